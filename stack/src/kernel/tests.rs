//! What is particular to kernel sockets; what every host does is in `tests/conformance.rs`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn host_with(config: KernelConfig) -> KernelHost {
    KernelHost::bind(KernelConfig { port: 0, flows_max: 16, streams_max: 4, ..config }).unwrap().0
}

fn peer(address: &str) -> Option<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind(address).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    Some((socket, address))
}

fn flow(host: &mut KernelHost, remote: SocketAddr, local_addr: Option<IpAddr>) -> FlowId {
    host.open_flow(FlowSpec { local_port: 0, local_addr, remote }).unwrap()
}

fn put(host: &mut KernelHost, flow: FlowId, payload: &[u8]) {
    host.datagram(flow).unwrap()[..payload.len()].copy_from_slice(payload);
    host.commit(payload.len());
}

fn next(peer: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2048];
    let (len, from) = peer.recv_from(&mut buffer).unwrap();
    (buffer[..len].to_vec(), from)
}

#[test]
fn sends_from_the_address_that_the_flow_names() {
    for ipv6 in [true, false] {
        let mut host = host_with(KernelConfig { ipv6, ..KernelConfig::default() });
        let port = host.local_ports()[0];
        let (peer, remote) = peer("127.0.0.1:0").unwrap();
        for local in [Some([127, 0, 0, 2]), Some([127, 0, 0, 1]), None, Some([127, 1, 2, 3])] {
            let local: Option<IpAddr> = local.map(Into::into);
            let flow = flow(&mut host, remote, local);
            put(&mut host, flow, b"alone");
            assert_eq!(host.flush(0), Flushed { done: 1, failed: 0 });
            for _ in 0..3 {
                put(&mut host, flow, b"joined");
            }
            assert_eq!(host.flush(0), Flushed { done: 3, failed: 0 });
            let expected = SocketAddr::from((local.unwrap_or(Ipv4Addr::LOCALHOST.into()), port));
            for _ in 0..4 {
                assert_eq!(next(&peer).1, expected, "IPv6 sockets: {ipv6}");
            }
        }
    }
}

#[test]
fn sends_from_the_ipv6_address_that_the_flow_names() {
    let Some((peer, remote)) = peer("[::1]:0") else { return };
    let mut host = host_with(KernelConfig::default());
    let flow = flow(&mut host, remote, Some(remote.ip()));
    put(&mut host, flow, b"x");
    assert_eq!(host.flush(0), Flushed { done: 1, failed: 0 });
    assert_eq!(next(&peer).1, SocketAddr::from((remote.ip(), host.local_ports()[0])));
}

#[test]
fn a_joined_burst_arrives_as_the_datagrams_that_it_was_made_of() {
    for gso in [true, false] {
        let mut host = host_with(KernelConfig { gso, ..KernelConfig::default() });
        let (peer, remote) = peer("127.0.0.1:0").unwrap();
        let flow = flow(&mut host, remote, Some(remote.ip()));
        let sizes: Vec<usize> = [vec![1472; 9], vec![700], vec![300; 20], vec![0], vec![1; 3]].concat();
        for (nth, size) in sizes.iter().enumerate() {
            put(&mut host, flow, &vec![nth as u8; *size]);
        }
        assert_eq!(host.flush(0), Flushed { done: sizes.len() as u32, failed: 0 });
        for (nth, size) in sizes.iter().enumerate() {
            assert!(next(&peer).0 == vec![nth as u8; *size], "datagram {nth} of {size} bytes");
        }
        // What the kernel was given: one call; with GSO, five messages.
        assert_eq!(host.counters().tx_calls, 1);
        let messages = host.tx.planned();
        assert_eq!(messages.iter().map(|message| usize::from(message.count)).sum::<usize>(), sizes.len());
        if host.gso {
            assert_eq!(messages.iter().map(|message| message.count).collect::<Vec<_>>(), [10, 20, 1, 3]);
        } else {
            assert_eq!(messages.len(), sizes.len());
        }
    }
}

/// A socket may not send to the broadcast address unless it asks to: a failure that needs no network.
#[test]
fn a_destination_that_fails_does_not_stop_the_others() {
    let mut host = host_with(KernelConfig::default());
    let (peer, remote) = peer("127.0.0.1:0").unwrap();
    let good = flow(&mut host, remote, None);
    let bad = flow(&mut host, (Ipv4Addr::BROADCAST, 9).into(), None);
    let foreign = flow(&mut host, remote, Some([192, 0, 2, 1].into()));
    for nth in 0..4 {
        put(&mut host, good, &[nth]);
        put(&mut host, bad, &[nth]);
        put(&mut host, foreign, &[nth]);
        put(&mut host, foreign, &[nth]);
    }
    assert_eq!(host.flush(0), Flushed { done: 16, failed: 12 });
    for nth in 0..4 {
        assert_eq!(next(&peer).0, [nth]);
    }
    assert_eq!((host.counters().tx_failed, host.counters().tx_datagrams), (12, 4));
}

#[test]
fn what_does_not_fit_a_receive_buffer_is_dropped_and_counted() {
    let mut host = host_with(KernelConfig::default());
    let (peer, remote) = peer("127.0.0.1:0").unwrap();
    let port = host.local_ports()[1];
    for len in [RX_BUFFER_BYTES + 1, 60_000, RX_BUFFER_BYTES] {
        peer.send_to(&vec![7; len], ("127.0.0.1", port)).unwrap();
    }
    let mut seen = Vec::new();
    let start = Instant::now();
    while seen.is_empty() && start.elapsed() < PATIENCE {
        host.wait(1_000_000_000, -1);
        host.receive(0, 64, &mut |received, bytes| seen.push((received, bytes.len())));
    }
    assert_eq!(seen, [(Received { local_port: 1, remote }, RX_BUFFER_BYTES)]);
    assert_eq!((host.counters().rx_dropped, host.counters().rx_datagrams), (2, 1));
}

#[test]
fn waiting_ends_with_the_wake_event_which_is_then_used_up() {
    let mut host = host_with(KernelConfig::default());
    // A pipe wakes as an eventfd does, and shows what was read from it.
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&1_u64.to_ne_bytes()).unwrap();
    // Without the event this would outlast the test.
    host.wait(u64::MAX, reader.as_raw_fd());
    writer.write_all(b"next").unwrap();
    let mut left = [0; 12];
    assert_eq!(reader.read(&mut left).unwrap(), 4);
    host.wait(1, reader.as_raw_fd());
    host.wait(0, -1);
}

#[test]
fn waiting_ends_with_a_datagram() {
    let mut host = host_with(KernelConfig::default());
    let (peer, _) = peer("127.0.0.1:0").unwrap();
    peer.send_to(b"x", ("127.0.0.1", host.local_ports()[1])).unwrap();
    host.wait(u64::MAX, -1);
    assert!(host.has_arrivals());
    assert_eq!(host.receive(0, 64, &mut |_, _| ()), 1);
    assert!(!host.has_arrivals());
}

#[test]
fn a_short_sleep_does_not_look_for_datagrams() {
    let mut host = host_with(KernelConfig::default());
    let (peer, _) = peer("127.0.0.1:0").unwrap();
    peer.send_to(b"x", ("127.0.0.1", host.local_ports()[1])).unwrap();
    host.wait(host.receive_every_ns(), -1);
    assert!(!host.has_arrivals());
    host.wait(host.receive_every_ns() + 1, -1);
    assert!(host.has_arrivals());
}

#[test]
fn a_full_socket_shortens_the_sleep() {
    let mut host = host_with(KernelConfig { stream_queue_bytes: 32 << 20, ..KernelConfig::default() });
    assert_eq!(host.wait_ns(u64::MAX), u64::MAX);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let id = host.attach_stream(listener.accept().unwrap().0.into()).unwrap();
    host.stream_send(id, &[&vec![0; 32 << 20]]).unwrap();
    host.flush_streams(5);
    assert!(host.stream_queued_bytes(id) > 0);
    assert_eq!(host.wait_ns(u64::MAX), 1_000_000);
    assert_eq!(host.wait_ns(7), 7);
    host.detach_stream(id);
    assert_eq!(host.wait_ns(u64::MAX), u64::MAX);
    let flow = flow(&mut host, ([127, 0, 0, 1], 9).into(), None);
    put(&mut host, flow, b"x");
    assert_eq!(host.wait_ns(u64::MAX), BLOCKED_WAIT_NS_MAX);
}

#[test]
fn timer_slack_can_be_set() {
    std::thread::spawn(|| set_timer_slack_min().unwrap()).join().unwrap();
}
