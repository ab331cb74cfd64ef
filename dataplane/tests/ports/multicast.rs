//! Further UDP ports of our own stack over AF_XDP, unicast and multicast. At the other end is a bridge of the kernel, which asks as a
//! multicast router does and keeps account of who listens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dataplane::ports::af_xdp::{self, AfXdpPort};
use dataplane::ports::netdev::Netdev;
use socket2::{Domain, Protocol, Socket, Type};
use stack::host::Host as _;
use stack::host_port::{StackConfig, StackHost};
use stack::iface::IfaceConfig;
use stack::port::Port as _;

use super::af_xdp::{open_near, until};
use super::namespaces::{FAR, KERNEL_IP, NEAR, Namespace, OUR_IP, Pair, root_or_skip};

const PORT: u16 = 9500;
const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x99);
/// Nobody of ours listens to it.
const OTHER4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 4);
const OUR_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);
/// Seven packets of a transport stream.
const DATAGRAM_BYTES: usize = 7 * 188;
const DATAGRAMS: u16 = 300;
/// What the receive buffer of a kernel's socket has room for.
const KERNEL_DATAGRAMS: u16 = 20;

/// The bridge at the other end.
const BRIDGE: &str = "br0";

/// A pair whose far end is a port of a bridge that asks every second who listens, which all have a tenth of a second to answer.
fn pair() -> Pair {
    let pair = Pair::new(1);
    let times = "mcast_query_interval 100 mcast_query_response_interval 10 mcast_startup_query_interval 50 mcast_membership_interval 200";
    let far = &pair.far;
    far.ip(&format!("link add {BRIDGE} type bridge mcast_snooping 1 mcast_querier 1 mcast_igmp_version 3 mcast_mld_version 2 {times}"));
    far.ip(&format!("addr flush dev {FAR}"));
    far.ip(&format!("link set {FAR} master {BRIDGE}"));
    far.ip(&format!("addr add 10.77.0.3/24 dev {BRIDGE}"));
    far.ip(&format!("addr add 2001:db8:77::3/64 dev {BRIDGE} nodad"));
    far.ip(&format!("link set {BRIDGE} up"));
    pair
}

struct Receiver {
    host: StackHost<AfXdpPort>,
    start: Instant,
    /// What came, by port.
    heard: Vec<Vec<u16>>,
}

impl Receiver {
    fn new(pair: &Pair) -> Self {
        let options = af_xdp::Options { addresses: vec![OUR_IP.into(), OUR_IP6.into()], ..af_xdp::Options::new(NEAR) };
        let mut opened = open_near(pair, &options);
        let addresses = vec!["10.77.0.2/24".parse().unwrap(), "2001:db8:77::2/64".parse().unwrap()];
        let iface = IfaceConfig { addresses, detect_duplicates: false, ..IfaceConfig::default() };
        let mut port = opened.ports.remove(0);
        port.hear_neighbours(OUR_IP6).unwrap();
        let host = StackHost::new(StackConfig { iface, ..StackConfig::default() }, port, None, 1, 0);
        Self { host, start: Instant::now(), heard: vec![Vec::new(); 8] }
    }

    fn listen(&mut self, addr: impl Into<SocketAddr>) -> usize {
        self.turn();
        usize::from(self.host.listen(addr.into()).unwrap())
    }

    fn turn(&mut self) {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        let heard = &mut self.heard;
        self.host.receive(now_ns, 64, &mut |received, bytes| {
            assert_eq!(bytes.len(), DATAGRAM_BYTES);
            heard[usize::from(received.local_port)].push(u16::from_be_bytes([bytes[0], bytes[1]]));
        });
        self.host.flush_streams(now_ns);
    }

    /// Turns until there is an answer.
    fn until<T>(&mut self, what: &str, mut attempt: impl FnMut(&mut Self) -> Option<T>) -> T {
        until(what, || {
            self.turn();
            self.host.wait(1_000_000, -1);
            attempt(self)
        })
    }
}

/// A socket of the kernel at the other end that sends to groups by the bridge.
fn sender(far: &Namespace, ipv6: bool) -> UdpSocket {
    far.enter(|| {
        let domain = if ipv6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        if ipv6 {
            socket.set_multicast_if_v6(Netdev::find(BRIDGE).unwrap().index).unwrap();
        } else {
            socket.set_multicast_if_v4(&Ipv4Addr::new(10, 77, 0, 3)).unwrap();
        }
        socket.into()
    })
}

/// The kernel on our interface listens to another group.
fn kernel_listener(pair: &Pair) -> UdpSocket {
    pair.near.enter(|| {
        let socket = UdpSocket::bind((OTHER4, PORT)).unwrap();
        socket.join_multicast_v4(&OTHER4, &KERNEL_IP.parse().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    })
}

/// Sends a stream: fewer datagrams than an AF_XDP socket has room for.
fn send(socket: &UdpSocket, to: SocketAddr, count: u16) {
    // A bridge that has just come up has no routes for a moment.
    until("route", || socket.connect(to).ok());
    for nth in 0..count {
        let mut datagram = [7; DATAGRAM_BYTES];
        datagram[..2].copy_from_slice(&nth.to_be_bytes());
        socket.send(&datagram).unwrap();
    }
}

#[test]
fn streams_arrive_by_unicast_and_by_joined_groups_and_the_kernel_keeps_its_own() {
    if !root_or_skip("multicast over AF_XDP") {
        return;
    }
    let pair = pair();
    let mut receiver = Receiver::new(&pair);
    let ports: Vec<usize> =
        [(IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT), (GROUP4.into(), PORT), (GROUP6.into(), PORT), (OUR_IP6.into(), PORT)]
            .into_iter()
            .map(|addr| receiver.listen(addr))
            .collect();
    assert_eq!(ports, [2, 3, 4, 5]);
    // Where we are is known, so that no datagram waits for an answer, and is dropped for it.
    let mac = receiver.host.port().mac().map(|byte| format!("{byte:02x}")).join(":");
    for ours in ["10.77.0.2", "2001:db8:77::2"] {
        pair.far.ip(&format!("neigh replace {ours} lladdr {mac} dev {BRIDGE} nud permanent"));
    }
    let (v4, v6) = (sender(&pair.far, false), sender(&pair.far, true));
    let kernel = kernel_listener(&pair);
    let known = |group: &str| {
        pair.far.exec("bridge mdb show").lines().any(|line| line.contains("port far") && line.contains(&format!("grp {group} ")))
    };
    receiver.until("listeners at the bridge", |_| ["239.1.2.3", "239.1.2.4", "ff15::99"].iter().all(|group| known(group)).then_some(()));
    let to: [(&UdpSocket, SocketAddr); 4] =
        [(&v4, (OUR_IP, PORT).into()), (&v4, (GROUP4, PORT).into()), (&v6, (GROUP6, PORT).into()), (&v6, (OUR_IP6, PORT).into())];
    for (port, (socket, to)) in ports.iter().zip(to) {
        send(socket, to, DATAGRAMS);
        // Each stream is heard before the next one comes.
        receiver.until(&format!("whole stream at {to}"), |receiver| (receiver.heard[*port].len() == usize::from(DATAGRAMS)).then_some(()));
    }
    send(&v4, (OTHER4, PORT).into(), KERNEL_DATAGRAMS);
    let all: Vec<u16> = (0..DATAGRAMS).collect();
    for port in ports {
        assert_eq!(receiver.heard[port], all, "port {port}: all of them, in order, once");
    }
    let mut buffer = [0; 2048];
    for _ in 0..KERNEL_DATAGRAMS {
        let (count, _) = receiver.until("datagram of the kernel's", |_| kernel.recv_from(&mut buffer).ok());
        assert_eq!(count, DATAGRAM_BYTES);
    }
    assert_eq!(receiver.host.counters().rx_datagrams, 4 * u64::from(DATAGRAMS));
    assert_eq!(receiver.host.iface().counters().dropped_checksum, 0);
}

#[test]
fn routers_are_answered_for_as_long_as_we_listen() {
    if !root_or_skip("IGMP and MLD over AF_XDP") {
        return;
    }
    let pair = pair();
    let filter = |address: &str| pair.near.ip("maddr show dev near").contains(address);
    let mut receiver = Receiver::new(&pair);
    assert!(filter("33:33:ff:00:00:02") && !filter("01:00:5e:01:02:03"));
    receiver.listen((GROUP4, PORT));
    receiver.listen((GROUP6, PORT));
    assert!(filter("01:00:5e:01:02:03") && filter("33:33:00:00:00:99"), "the card lets the groups in");
    // Questions are for the kernel as well.
    let _kernel = kernel_listener(&pair);
    let mdb = || pair.far.exec("bridge mdb show");
    let all = ["port far grp 239.1.2.3 ", "port far grp 239.1.2.4 ", "port far grp ff15::99 ", "port far grp ff02::1:ff00:2 "];
    let listens = || {
        let known = mdb();
        all.iter().all(|line| known.contains(line))
    };
    receiver.until("listeners at the bridge", |_| listens().then_some(()));
    // Longer than the bridge remembers who does not answer, which is 2 s.
    let answered = Instant::now() + Duration::from_secs(4);
    receiver.until("end of a time", |_| (Instant::now() > answered).then_some(()));
    assert!(listens(), "{}", mdb());
    let counters = receiver.host.iface().counters();
    assert!(counters.rx_igmp > 2 && counters.rx_ndp > 2, "{counters:?}");
    drop(receiver);
    assert!(!filter("01:00:5e:01:02:03") && !filter("33:33:00:00:00:99") && !filter("33:33:ff:00:00:02"));
    until("the groups to be left", || {
        std::thread::sleep(Duration::from_millis(50));
        (!mdb().contains("grp 239.1.2.3 ") && !mdb().contains("grp ff15::99 ")).then_some(())
    });
}
