//! AF_XDP on veth pairs: frames, steering, ends.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dataplane::ports::af_xdp::{AfXdpError, Mode, Opened, Options, open};
use dataplane::ports::netdev::Netdev;
use dataplane::ports::steer::SteerError;
use stack::port::Port;

use super::frames::{Ends, arp_answer, read_udp, udp};
use super::namespaces::{FAR, KERNEL_IP, NEAR, Namespace, OUR_IP, PEER_IP, Pair, root_or_skip};

/// Bound of every wait.
const PATIENCE: Duration = Duration::from_secs(20);
const PORT: u16 = 4000;

pub fn options() -> Options {
    Options { addresses: vec![OUR_IP.into()], ..Options::new(NEAR) }
}

pub fn open_near(pair: &Pair, options: &Options) -> Opened {
    pair.near.enter(|| open(options)).unwrap()
}

pub fn mac_of(namespace: &Namespace, interface: &str) -> [u8; 6] {
    namespace.enter(|| Netdev::find(interface)).unwrap().mac
}

/// Repeats until there is an answer.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(done) = attempt() {
            return done;
        }
        assert!(start.elapsed() < PATIENCE, "no {what} after {PATIENCE:?}");
    }
}

/// Flushes until everything is completed.
pub fn drain(port: &mut impl Port) {
    until("completion", || {
        port.flush(0);
        (port.queued() == 0).then_some(())
    });
}

fn send(port: &mut impl Port, write: impl FnOnce(&mut [u8]) -> usize) {
    let frame = port.frame().unwrap();
    let len = write(frame);
    port.commit(len);
    drain(port);
}

/// The next datagram of the peer, answering ARP on the way.
fn next_datagram(port: &mut impl Port) -> (Vec<u8>, u16) {
    let mac = port.mac();
    until("datagram", || {
        let mut frames = Vec::new();
        port.receive(0, 8, &mut |frame| frames.push(frame.to_vec()));
        let mut found = None;
        for frame in frames {
            let mut answer = [0; 64];
            if let Some(len) = arp_answer(&frame, OUR_IP, mac, &mut answer) {
                send(port, |out| {
                    out[..len].copy_from_slice(&answer[..len]);
                    len
                });
            }
            found = found.or(read_udp(&frame));
        }
        found
    })
}

/// Datagrams both ways between a port and the kernel at the other end.
pub fn both_ways(far: &Namespace, interface: &str, port: &mut impl Port) {
    let peer = far.enter(|| UdpSocket::bind("10.77.0.3:4001").unwrap());
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let ends = Ends { source: (port.mac(), OUR_IP, PORT), destination: (mac_of(far, interface), PEER_IP, 4001) };
    for len in [1, 18, 1000, 1472] {
        let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
        send(port, |frame| udp(frame, ends, &payload));
        let mut received = [0; 2048];
        let (count, from) = peer.recv_from(&mut received).unwrap();
        assert_eq!((&received[..count], from), (&payload[..], "10.77.0.2:4000".parse().unwrap()));
        peer.send_to(&payload, ("10.77.0.2", PORT)).unwrap();
        assert_eq!(next_datagram(port), (payload, 4001));
    }
}

#[test]
fn datagrams_go_both_ways_in_native_mode() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut opened = open_near(&pair, &options());
    let port = &mut opened.ports[0];
    assert_eq!(port.mac(), opened.netdev.mac);
    assert!(port.frame_bytes() >= 18 + port.mtu_bytes());
    // veth has native XDP and no zero-copy, and both must be said.
    let text = port.describe();
    assert!(text.contains("AF_XDP on near queue 0: native XDP, copy mode"), "{text}");
    assert!(opened.notes.iter().any(|note| note.contains("no zero-copy")), "{:?}", opened.notes);
    both_ways(&pair.far, FAR, port);
    let counters = port.counters();
    assert_eq!((counters.rx_dropped, counters.tx_failed, counters.tx_full), (0, 0, 0));
    assert_eq!(counters.tx_frames, counters.tx_completed);
    assert!(opened.steering.counters_of(0).to_us >= counters.rx_frames);
}

#[test]
fn datagrams_go_both_ways_in_generic_mode() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut opened = open_near(&pair, &Options { mode: Mode::Generic, ..options() });
    assert!(opened.ports[0].describe().contains("generic XDP, copy mode"));
    both_ways(&pair.far, FAR, &mut opened.ports[0]);
}

#[test]
fn a_driver_without_native_xdp_is_opened_in_generic_mode_and_that_is_said() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    // veth's native XDP keeps a packet in one page, with room around it.
    pair.near.ip("link set near mtu 3700");
    pair.far.ip("link set far mtu 3700");
    let opened = open_near(&pair, &options());
    assert!(opened.ports[0].describe().contains("generic XDP"), "{}", opened.ports[0].describe());
    assert!(opened.notes.iter().any(|note| note.contains("refused XDP in its driver")), "{:?}", opened.notes);
    drop(opened);
    let refused = pair.near.enter(|| open(&Options { mode: Mode::Copy, ..options() })).map(drop).unwrap_err();
    assert!(matches!(refused, AfXdpError::Steer(SteerError::Attach { .. })), "{refused}");
    let pair = Pair::new(1);
    let refused = pair.near.enter(|| open(&Options { mode: Mode::ZeroCopy, ..options() })).map(drop).unwrap_err();
    assert!(matches!(refused, AfXdpError::Bind { .. }), "{refused}");
}

#[test]
fn the_kernel_keeps_its_own_connections_on_the_same_interface() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut opened = open_near(&pair, &options());
    let listener = pair.near.enter(|| TcpListener::bind((KERNEL_IP, 2222)).unwrap());
    let mut client = pair.far.enter(|| TcpStream::connect((KERNEL_IP, 2222)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(&[7; 100_000]).unwrap();
    drop(client);
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert_eq!(received, [7; 100_000]);
    let kernel_only = opened.steering.counters_of(0);
    assert!(kernel_only.to_kernel > 4 && kernel_only.to_us == 0, "{kernel_only:?}");
    // And at the same time what is ours is ours.
    both_ways(&pair.far, FAR, &mut opened.ports[0]);
    // An address that is added while frames flow is ours from then on, and one that is taken away the kernel's again.
    let second: IpAddr = "10.77.0.9".parse().unwrap();
    pair.far.ip(&format!("neigh replace {second} lladdr {} dev far nud permanent", mac_text(opened.netdev.mac)));
    let peer = pair.far.enter(|| UdpSocket::bind("10.77.0.3:0").unwrap());
    opened.steering.add_address(second).unwrap();
    peer.send_to(b"ours", (second, 9)).unwrap();
    assert_eq!(next_datagram(&mut opened.ports[0]).0, b"ours");
    opened.steering.remove_address(second).unwrap();
    let before = opened.steering.counters_of(0).to_kernel;
    peer.send_to(b"the kernel's", (second, 9)).unwrap();
    until("frame for the kernel", || (opened.steering.counters_of(0).to_kernel > before).then_some(()));
    opened.ports[0].receive(0, usize::MAX, &mut |frame| assert_eq!(read_udp(frame), None));
    assert!(opened.steering.remove_address(second).is_err());
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[test]
fn what_is_unserved_or_wrong_is_told() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(2);
    let refused = |options: Options| pair.near.enter(|| open(&options)).map(drop).unwrap_err();
    let few = refused(Options { queues: 3, ..options() });
    assert!(matches!(few, AfXdpError::Queues { have: 2, last: 2, .. }) && few.to_string().contains("ethtool -L near rx 3 tx 3"), "{few}");
    assert!(matches!(refused(Options { queues: 0, ..options() }), AfXdpError::Queues { .. }));
    assert!(matches!(refused(Options { interface: "none".into(), ..options() }), AfXdpError::Netdev(_)));
    assert!(matches!(refused(Options { interface: "lo".into(), ..options() }), AfXdpError::Netdev(_)));
    let opened = open_near(&pair, &options());
    assert!(opened.notes.iter().any(|note| note.contains("2 queues, and 1 are served")), "{:?}", opened.notes);
    drop(opened);
    pair.near.ip("link set near mtu 9000");
    assert!(matches!(refused(options()), AfXdpError::Mtu { mtu_bytes: 9000, max: 3822, .. }));
    pair.near.ip("link set near mtu 1500 down");
    assert!(matches!(refused(options()), AfXdpError::Down { .. }));
}

#[test]
fn each_queue_has_its_own_port() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(2);
    let mut opened = open_near(&pair, &Options { queues: 2, ..options() });
    assert_eq!(opened.ports.len(), 2);
    pair.far.ip(&format!("neigh replace 10.77.0.2 lladdr {} dev far nud permanent", mac_text(opened.netdev.mac)));
    let peer = pair.far.enter(|| UdpSocket::bind("10.77.0.3:4001").unwrap());
    for i in 0..100u8 {
        peer.send_to(&[i; 100], ("10.77.0.2", PORT + u16::from(i))).unwrap();
    }
    let mut seen = Vec::new();
    until("all datagrams", || {
        for port in &mut opened.ports {
            port.receive(0, 16, &mut |frame| seen.extend(read_udp(frame).map(|(payload, _)| payload[0])));
        }
        (seen.len() == 100).then_some(())
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert_eq!(opened.steering.counters(2).to_us, 100);
    // Both can send.
    let ends = Ends { source: (opened.netdev.mac, OUR_IP, PORT), destination: (mac_of(&pair.far, FAR), PEER_IP, 4001) };
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    for (i, port) in (0u8..).zip(&mut opened.ports) {
        send(port, |frame| udp(frame, ends, &[i]));
        let mut received = [9; 1];
        peer.recv(&mut received).unwrap();
        assert_eq!(received, [i]);
    }
}

#[test]
fn a_closed_queue_can_be_opened_again_at_once_and_not_twice() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    for _ in 0..10 {
        let mut opened = open_near(&pair, &options());
        assert!(opened.ports[0].frame().is_some());
    }
    let mut first = open_near(&pair, &options());
    let impatient = Options { patience: Duration::from_millis(50), ..options() };
    let second = pair.near.enter(|| open(&impatient)).map(drop).unwrap_err();
    assert!(matches!(second, AfXdpError::Steer(SteerError::Busy { .. })), "{second}");
    // The attempt has not disturbed the first.
    both_ways(&pair.far, FAR, &mut first.ports[0]);
    assert!(pair.near.ip("link show near").contains("xdp"));
    drop(first);
    until("detached program", || (!pair.near.ip("link show near").contains("xdp")).then_some(()));
}

/// Not a test by itself: the process that the next one kills.
#[test]
fn child_that_holds_the_interface() {
    if std::env::var_os("TACTUS_HOLD_NEAR").is_none() {
        return;
    }
    let opened = open(&options()).unwrap();
    println!("\nholding {}", opened.ports.len());
    std::thread::sleep(PATIENCE * 3);
}

#[test]
fn a_killed_process_leaves_the_interface_to_the_kernel() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut child = Command::new("ip")
        .args(["netns", "exec", &pair.near.name])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "af_xdp::child_that_holds_the_interface"])
        .env("TACTUS_HOLD_NEAR", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut said = Vec::new();
    while !said.windows(9).any(|part| part == b"holding 1") {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).unwrap(), 1, "the child ended: {}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    assert!(pair.near.ip("link show near").contains("xdp"));
    // SIGKILL: nothing of the process's own runs any more.
    child.kill().unwrap();
    child.wait().unwrap();
    until("detached program", || (!pair.near.ip("link show near").contains("xdp")).then_some(()));
    both_ways(&pair.far, FAR, &mut open_near(&pair, &options()).ports[0]);
}

#[test]
fn frames_wait_for_an_interface_that_is_down_and_a_removed_one_is_told() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut opened = open_near(&pair, &options());
    let port = &mut opened.ports[0];
    let peer = pair.far.enter(|| UdpSocket::bind("10.77.0.3:4001").unwrap());
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let ends = Ends { source: (port.mac(), OUR_IP, PORT), destination: (mac_of(&pair.far, FAR), PEER_IP, 4001) };
    pair.near.ip("link set near down");
    let len = udp(port.frame().unwrap(), ends, b"later");
    port.commit(len);
    port.flush(0);
    assert_eq!((port.queued(), port.lost()), (1, false));
    pair.near.ip("link set near up");
    drain(port);
    let mut received = [0; 16];
    assert_eq!(peer.recv(&mut received).unwrap(), 5);

    let len = udp(port.frame().unwrap(), ends, b"never");
    port.commit(len);
    pair.near.ip("link del near");
    until("loss told", || {
        port.flush(0);
        port.lost().then_some(())
    });
    assert_eq!((port.queued(), port.counters().tx_failed), (0, 1));
    assert!(port.frame().is_none());
    assert_eq!(port.receive(0, 8, &mut |_| ()), 0);
}

#[test]
fn a_sleeping_port_wakes_for_frames_and_for_its_owner() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut opened = open_near(&pair, &options());
    let port = &mut opened.ports[0];
    // Like an eventfd that was written: eight bytes to read.
    let (wake, mut waker) = std::io::pipe().unwrap();
    waker.write_all(&[1; 8]).unwrap();
    port.wait(u64::MAX, wake.as_raw_fd());
    // The event was taken; from now on only a frame can end the wait.
    let peer = pair.far.enter(|| UdpSocket::bind("10.77.0.3:4001").unwrap());
    peer.send_to(b"x", ("10.77.0.2", PORT)).unwrap();
    port.wait(u64::MAX, wake.as_raw_fd());
    assert!(port.receive(0, 8, &mut |_| ()) > 0);
}
