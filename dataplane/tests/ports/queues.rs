//! Two stacks that share one interface of two queues, and its addresses, with the kernel at the other end: it spreads flows over queues as
//! it likes.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown, TcpStream, UdpSocket};

use dataplane::ports::af_xdp;
use dataplane::ports::tap::{Options, TapPort};
use stack::exchange::{ExchangePort, Wake, exchange};
use stack::iface::{Owners, PortBlock};
use stack::port::Port;

use super::af_xdp::{open_near, options, until};
use super::namespaces::{NEAR, Namespace, OUR_IP, Pair, root_or_skip};
use super::own_stack::{Echo, PATIENCE, TCP_PORT};

const RTP: u16 = 6970;
/// Flows of each kind: that all of them come by one queue is as likely as 40 times heads.
const FLOWS: usize = 40;
const BYTES: usize = 40_000;

fn shared<P: Port>(ports: Vec<P>) -> Vec<Echo<ExchangePort<P>>> {
    let owners = Owners::new(ports.len(), vec![PortBlock { first: RTP, per_core: 2 }], 1);
    let ports = ports.into_iter().map(|port| (port, Box::new(|| ()) as Wake)).collect();
    let echo = |(nth, port)| {
        let first = RTP + 2 * nth as u16;
        Echo::with_ports(port, [first, first + 1])
    };
    exchange(ports, &owners, 256).into_iter().enumerate().map(echo).collect()
}

fn flows() {
    let ours = IpAddr::from(OUR_IP);
    let mut buffer = [0; 2048];
    let sockets: Vec<UdpSocket> = (0..FLOWS).map(|_| UdpSocket::bind("0.0.0.0:0").unwrap()).collect();
    for (nth, socket) in sockets.iter().enumerate() {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((ours, RTP + 2 * (nth % 2) as u16)).unwrap();
        for len in [1, 1000] {
            socket.send(&vec![nth as u8; len]).unwrap();
            let count = socket.recv(&mut buffer).unwrap();
            assert_eq!((count, buffer[0], buffer[count - 1]), (len, nth as u8, nth as u8));
        }
    }
    let mut streams: Vec<TcpStream> = (0..FLOWS).map(|_| TcpStream::connect_timeout(&(ours, TCP_PORT).into(), PATIENCE).unwrap()).collect();
    for (nth, stream) in streams.iter_mut().enumerate() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&vec![nth as u8; BYTES]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        assert!(back == vec![nth as u8; BYTES], "{nth}: {} bytes came back", back.len());
    }
}

fn serve<P: Port>(ports: Vec<P>, far: &Namespace) -> Vec<Echo<ExchangePort<P>>> {
    let mut cores = shared(ports);
    Echo::serve_all(&mut cores, far, flows);
    // The last acknowledgments may lie in a ring.
    until("end of what is handed over", || {
        cores.iter_mut().for_each(Echo::turn);
        let exchanged: Vec<_> = cores.iter().map(|core| core.host.port().exchanged()).collect();
        (exchanged[0].handed_over == exchanged[1].taken_over && exchanged[1].handed_over == exchanged[0].taken_over).then_some(())
    });
    let counters: Vec<_> = cores.iter().map(|core| (core.host.layers(), core.host.port().exchanged())).collect();
    for ((port, iface, tcp), exchanged) in &counters {
        println!("{port:?}\n{iface:?}\n{tcp:?}\n{exchanged:?}");
        assert!(port.rx_frames > 0 && exchanged.handed_over > 0 && tcp.established > 0 && iface.rx_udp == FLOWS as u64);
        assert_eq!((exchanged.dropped, iface.dropped_malformed, iface.dropped_checksum, tcp.tx_resets), (0, 0, 0, 0));
    }
    assert_eq!(counters.iter().map(|((.., tcp), _)| tcp.established).sum::<u64>(), FLOWS as u64);
    cores
}

#[test]
fn two_cores_share_the_queues_of_an_interface() {
    if !root_or_skip("several queues over AF_XDP") {
        return;
    }
    let pair = Pair::new(2);
    let opened = open_near(&pair, &af_xdp::Options { queues: 2, ..options() });
    assert!(opened.notes.iter().all(|note| !note.contains("queues")), "{:?}", opened.notes);
    let cores = serve(opened.ports, &pair.far);
    assert!(cores.iter().all(|core| core.host.port().port().unserved() == 0));
}

#[test]
fn two_cores_share_the_queues_of_a_tap_device() {
    if !root_or_skip("several queues over TAP") {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip("tuntap add tacq mode tap");
    let refused = namespace.enter(|| TapPort::open_queues(&Options::new("tacq"), 2)).map(drop).unwrap_err().to_string();
    assert!(refused.contains("multi_queue"), "{refused}");
    namespace.ip("link del tacq");
    let ports = namespace.enter(|| TapPort::open_queues(&Options::new("tacq"), 2)).unwrap();
    namespace.ip("link set tacq addrgenmode none");
    namespace.ip("addr add 10.77.0.3/24 dev tacq");
    serve(ports, &namespace);
}

#[test]
fn what_comes_by_a_queue_that_nobody_serves_is_counted() {
    if !root_or_skip("unserved queues") {
        return;
    }
    let pair = Pair::new(4);
    let opened = open_near(&pair, &af_xdp::Options { queues: 2, ..options() });
    let note = opened.notes.iter().find(|note| note.contains("4 queues, and 2 are served"));
    assert!(note.is_some_and(|note| note.contains(&format!("ethtool -L {NEAR} rx 2 tx 2"))), "{:?}", opened.notes);
    // A neighbour that is known, so that datagrams go without a question.
    let mac = opened.netdev.mac.map(|byte| format!("{byte:02x}")).join(":");
    pair.far.ip(&format!("neigh replace 10.77.0.2 lladdr {mac} dev far nud permanent"));
    let sent = 200;
    pair.far.enter(|| {
        for _ in 0..sent {
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"x", (IpAddr::from(OUR_IP), RTP)).unwrap();
        }
    });
    let served = || (0..2).map(|queue| opened.steering.counters_of(queue).to_us).sum::<u64>();
    until("frames", || (served() + opened.ports[0].unserved() >= sent).then_some(()));
    assert!(served() > 0 && opened.ports[0].unserved() > 0 && opened.ports[1].unserved() == 0);
}
