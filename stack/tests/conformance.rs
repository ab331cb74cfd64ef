//! What every host must do, tried on kernel sockets over loopback, on our own stack over simulated ports, and on the simulated host.

mod rigs;

use std::net::SocketAddr;

use rigs::{Family, KernelRig, Rig, SimRig, Sizes, StackRig};
use stack::host::{FlowId, FlowSpec, Flushed, Host, HostError, StreamError};

const MS: u64 = 1_000_000;

/// Runs a body on all hosts, over IPv4 and over IPv6.
macro_rules! on_every_host {
    ($($name:ident),* $(,)?) => {
        mod kernel_ipv4 { $(#[test] fn $name() { super::$name::<super::KernelRig>(super::Family::V4); })* }
        mod kernel_ipv6 { $(#[test] fn $name() { if super::rigs::has_ipv6() { super::$name::<super::KernelRig>(super::Family::V6); } })* }
        mod stack_ipv4 { $(#[test] fn $name() { super::$name::<super::StackRig>(super::Family::V4); })* }
        mod stack_ipv6 { $(#[test] fn $name() { super::$name::<super::StackRig>(super::Family::V6); })* }
        mod sim_ipv4 { $(#[test] fn $name() { super::$name::<super::SimRig>(super::Family::V4); })* }
        mod sim_ipv6 { $(#[test] fn $name() { super::$name::<super::SimRig>(super::Family::V6); })* }
    };
}

on_every_host!(
    datagrams_go_out_in_commit_order_to_their_peers,
    a_full_queue_gives_no_frame_and_keeps_what_it_has,
    both_local_ports_send_from_their_own_port,
    commit_without_a_frame_does_nothing,
    empty_and_overlong_commits,
    frames_of_a_closed_flow_are_still_sent,
    redirect_holds_from_now_on,
    stale_flow_ids_do_nothing,
    the_flow_table_has_an_end,
    wrong_flows_are_refused,
    datagrams_come_in,
    receive_minds_its_limit,
    streams_carry_parts_in_order,
    stream_sends_are_all_or_nothing,
    a_peer_that_stops_reading_fills_only_its_own_queue,
    a_closed_peer_closes_the_stream,
    detaching_offers_what_is_queued,
    stale_stream_ids_do_nothing,
    the_stream_table_has_an_end,
    many_streams_stay_apart,
);

fn flow_to<R: Rig>(rig: &mut R, local_port: u8, peer: usize) -> FlowId {
    let remote = rig.remote(peer);
    rig.host().open_flow(FlowSpec { local_port, local_addr: None, remote }).unwrap()
}

fn put<R: Rig>(rig: &mut R, flow: FlowId, payload: &[u8]) -> bool {
    let Some(frame) = rig.host().datagram(flow) else { return false };
    frame[..payload.len()].copy_from_slice(payload);
    rig.host().commit(payload.len());
    true
}

fn flush<R: Rig>(rig: &mut R) -> Flushed {
    let now_ns = rig.now_ns();
    rig.host().flush(now_ns)
}

fn datagrams_go_out_in_commit_order_to_their_peers<R: Rig>(family: Family) {
    let mut rig = R::new(family, 3, Sizes::default());
    let flows: Vec<FlowId> = (0..3).map(|peer| flow_to(&mut rig, 0, peer)).collect();
    for round in 0..20_u8 {
        for (peer, flow) in flows.iter().enumerate() {
            // Runs of equal and of unequal sizes, so that joined messages are tried too.
            for nth in 0..=round % 3 {
                assert!(put(&mut rig, *flow, &vec![round * 4 + nth; 10 + peer + usize::from(round / 8)]));
            }
        }
        let queued = rig.host().queued();
        assert_eq!(flush(&mut rig), Flushed { done: queued as u32, failed: 0 });
        assert_eq!(rig.host().queued(), 0);
    }
    let expected: Vec<u8> = (0..20_u8).flat_map(|round| (0..=round % 3).map(move |nth| round * 4 + nth)).collect();
    for peer in 0..3 {
        let (ports, payloads): (Vec<u16>, Vec<Vec<u8>>) = rig.arrived(peer, expected.len()).into_iter().unzip();
        assert_eq!(payloads.iter().map(|payload| payload[0]).collect::<Vec<u8>>(), expected);
        let own_port = rig.host().local_ports()[0];
        assert!(ports.iter().all(|port| *port == own_port));
        assert!(payloads.iter().all(|payload| payload.len() == 10 + peer + usize::from(payload[0] / 32)));
    }
    let counters = rig.host().counters();
    assert_eq!((counters.tx_datagrams, counters.tx_failed, counters.flows), (3 * expected.len() as u64, 0, 3));
    assert!(counters.tx_calls > 0 && counters.tx_calls <= 20);
}

fn a_full_queue_gives_no_frame_and_keeps_what_it_has<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes { tx_frames: 4, ..Sizes::default() });
    let flow = flow_to(&mut rig, 0, 0);
    for nth in 0..4 {
        assert!(put(&mut rig, flow, &[nth]));
    }
    assert!(!put(&mut rig, flow, &[9]));
    rig.host().commit(1);
    assert_eq!(rig.host().queued(), 4);
    assert_eq!(flush(&mut rig).done, 4);
    assert!(put(&mut rig, flow, &[4]));
    assert_eq!(flush(&mut rig).done, 1);
    let payloads: Vec<u8> = rig.arrived(0, 5).into_iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(payloads, [0, 1, 2, 3, 4]);
    assert_eq!(flush(&mut rig), Flushed::default());
}

fn both_local_ports_send_from_their_own_port<R: Rig>(family: Family) {
    let mut rig = R::new(family, 2, Sizes::default());
    let (rtp, rtcp) = (flow_to(&mut rig, 0, 0), flow_to(&mut rig, 1, 1));
    let ports = rig.host().local_ports().to_vec();
    assert!(ports.len() == 2 && ports[0].is_multiple_of(2) && ports[1] == ports[0] + 1);
    for nth in 0..6 {
        put(&mut rig, if nth % 2 == 0 { rtp } else { rtcp }, &[nth]);
    }
    assert_eq!(flush(&mut rig), Flushed { done: 6, failed: 0 });
    assert_eq!(rig.arrived(0, 3), [(ports[0], vec![0]), (ports[0], vec![2]), (ports[0], vec![4])]);
    assert_eq!(rig.arrived(1, 3), [(ports[1], vec![1]), (ports[1], vec![3]), (ports[1], vec![5])]);
}

fn commit_without_a_frame_does_nothing<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes::default());
    let flow = flow_to(&mut rig, 0, 0);
    rig.host().commit(5);
    assert!(rig.host().datagram(flow).is_some());
    assert!(rig.host().datagram(FlowId(0)).is_none());
    rig.host().commit(5);
    assert_eq!(rig.host().queued(), 0);
    put(&mut rig, flow, &[1]);
    rig.host().commit(1);
    assert_eq!(rig.host().queued(), 1);
}

fn empty_and_overlong_commits<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes { max_datagram_bytes: 100, ..Sizes::default() });
    let flow = flow_to(&mut rig, 0, 0);
    assert_eq!(rig.host().max_datagram_bytes(), 100);
    for len in [0, 0, 100, usize::MAX] {
        let frame = rig.host().datagram(flow).unwrap();
        assert_eq!(frame.len(), 100);
        frame.fill(7);
        rig.host().commit(len);
    }
    assert_eq!(flush(&mut rig), Flushed { done: 4, failed: 0 });
    let lens: Vec<usize> = rig.arrived(0, 4).iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(lens, [0, 0, 100, 100]);
}

fn frames_of_a_closed_flow_are_still_sent<R: Rig>(family: Family) {
    let mut rig = R::new(family, 2, Sizes { flows_max: 1, ..Sizes::default() });
    let old = flow_to(&mut rig, 0, 0);
    put(&mut rig, old, b"old");
    rig.host().close_flow(old);
    let new = flow_to(&mut rig, 0, 1);
    put(&mut rig, new, b"new");
    assert!(!put(&mut rig, old, b"stale"));
    assert_eq!(flush(&mut rig), Flushed { done: 2, failed: 0 });
    assert_eq!(rig.arrived(0, 1)[0].1, b"old");
    assert_eq!(rig.arrived(1, 1)[0].1, b"new");
}

fn redirect_holds_from_now_on<R: Rig>(family: Family) {
    let mut rig = R::new(family, 2, Sizes::default());
    let flow = flow_to(&mut rig, 0, 0);
    put(&mut rig, flow, b"a");
    let there = rig.remote(1);
    rig.host().redirect_flow(flow, there).unwrap();
    put(&mut rig, flow, b"b");
    assert_eq!(flush(&mut rig), Flushed { done: 2, failed: 0 });
    assert_eq!(rig.arrived(0, 1)[0].1, b"a");
    assert_eq!(rig.arrived(1, 1)[0].1, b"b");
}

fn stale_flow_ids_do_nothing<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes { flows_max: 2, ..Sizes::default() });
    let mut seen = Vec::new();
    for _ in 0..50 {
        let flow = flow_to(&mut rig, 0, 0);
        assert!(!seen.contains(&flow));
        rig.host().close_flow(flow);
        seen.push(flow);
    }
    let current = flow_to(&mut rig, 0, 0);
    let remote = rig.remote(0);
    for stale in seen {
        assert!(rig.host().datagram(stale).is_none());
        assert_eq!(rig.host().redirect_flow(stale, remote), Err(HostError::Unknown));
        rig.host().close_flow(stale);
    }
    assert!(put(&mut rig, current, &[1]));
    assert_eq!(rig.host().counters().flows, 1);
}

fn the_flow_table_has_an_end<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes { flows_max: 3, ..Sizes::default() });
    let flows: Vec<FlowId> = (0..3).map(|_| flow_to(&mut rig, 0, 0)).collect();
    let spec = FlowSpec { local_port: 0, local_addr: None, remote: rig.remote(0) };
    assert_eq!(rig.host().open_flow(spec), Err(HostError::TableFull));
    rig.host().close_flow(flows[1]);
    assert!(rig.host().open_flow(spec).is_ok());
    assert_eq!(rig.host().open_flow(spec), Err(HostError::TableFull));
}

fn wrong_flows_are_refused<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes { ipv6: false, ..Sizes::default() });
    let v4: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let v6: SocketAddr = "[::1]:9".parse().unwrap();
    let spec = FlowSpec { local_port: 2, local_addr: None, remote: v4 };
    assert_eq!(rig.host().open_flow(spec), Err(HostError::Unknown));
    assert_eq!(rig.host().open_flow(FlowSpec { local_port: 0, remote: v6, ..spec }), Err(HostError::Family));
    let flow = rig.host().open_flow(FlowSpec { local_port: 0, ..spec }).unwrap();
    assert_eq!(rig.host().redirect_flow(flow, v6), Err(HostError::Family));
    assert_eq!(rig.host().counters().flows, 1);
}

fn datagrams_come_in<R: Rig>(family: Family) {
    let mut rig = R::new(family, 2, Sizes::default());
    rig.send_in(0, 0, b"punch");
    rig.send_in(1, 1, b"report");
    rig.send_in(0, 1, b"");
    let (first, second) = (rig.remote(0), rig.remote(1));
    let mut seen = rig.receive(3);
    seen.sort();
    let mut expected = [(0, first, b"punch".to_vec()), (1, second, b"report".to_vec()), (1, first, Vec::new())];
    expected.sort();
    assert_eq!(seen, expected);
    let counters = rig.host().counters();
    assert_eq!((counters.rx_datagrams, counters.rx_bytes, counters.rx_dropped), (3, 11, 0));
}

fn receive_minds_its_limit<R: Rig>(family: Family) {
    let mut rig = R::new(family, 1, Sizes::default());
    for nth in 0..150_u8 {
        rig.send_in(0, 0, &[nth]);
        rig.send_in(0, 1, &[nth]);
    }
    let mut seen: [Vec<u8>; 2] = Default::default();
    while seen.iter().map(Vec::len).sum::<usize>() < 300 {
        let now_ns = rig.now_ns();
        let mut shown = 0;
        let count = rig.host().receive(now_ns, 70, &mut |received, bytes| {
            shown += 1;
            seen[usize::from(received.local_port)].push(bytes[0]);
        });
        assert!(count == shown && count <= 70);
        rig.pass(MS);
    }
    let now_ns = rig.now_ns();
    assert_eq!(rig.host().receive(now_ns, 0, &mut |_, _| panic!("more than the limit")), 0);
    let expected: Vec<u8> = (0..150).collect();
    assert_eq!(seen, [expected.clone(), expected]);
}

fn streams_carry_parts_in_order<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes::default());
    let (stream, mut peer) = rig.connect();
    let id = rig.host().attach_stream(stream).unwrap();
    let mut expected = Vec::new();
    for nth in 0..200_u8 {
        let (head, body) = ([b'$', nth], vec![nth; usize::from(nth) * 7]);
        rig.host().stream_send(id, &[&head, &body, &[]]).unwrap();
        expected.extend(head);
        expected.extend(body);
        if nth % 3 == 0 {
            rig.flush_streams();
        }
    }
    let seen = rig.read_until(&mut peer, expected.len());
    assert!(seen == expected);
    assert_eq!(rig.host().stream_queued_bytes(id), 0);
    assert_eq!(rig.host().counters().stream_tx_bytes, expected.len() as u64);
}

fn stream_sends_are_all_or_nothing<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes { stream_queue_bytes: 10, ..Sizes::default() });
    let (stream, mut peer) = rig.connect();
    let id = rig.host().attach_stream(stream).unwrap();
    assert_eq!(rig.host().stream_send(id, &[b"12345", b"678901"]), Err(StreamError::Full));
    assert_eq!(rig.host().stream_queued_bytes(id), 0);
    rig.host().stream_send(id, &[b"1234", b"567"]).unwrap();
    assert_eq!(rig.host().stream_send(id, &[b"8", b"901"]), Err(StreamError::Full));
    rig.host().stream_send(id, &[b"890"]).unwrap();
    assert_eq!(rig.host().stream_queued_bytes(id), 10);
    assert_eq!(rig.read_until(&mut peer, 10), b"1234567890");
    rig.host().stream_send(id, &[b"abc"]).unwrap();
    assert_eq!(rig.read_until(&mut peer, 3), b"abc");
}

fn a_peer_that_stops_reading_fills_only_its_own_queue<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes { stream_queue_bytes: 64 << 10, ..Sizes::default() });
    let (slow, mut slow_peer) = rig.connect();
    let (fast, mut fast_peer) = rig.connect();
    let slow = rig.host().attach_stream(slow).unwrap();
    let fast = rig.host().attach_stream(fast).unwrap();
    rig.stop_reading(&mut slow_peer);
    let part: Vec<u8> = (0..10_000_u32).map(|at| (at % 251) as u8).collect();
    let mut parts_taken = 0;
    while rig.host().stream_send(slow, &[&part]).is_ok() {
        parts_taken += 1;
        assert!(parts_taken < 10_000, "the peer does not read and yet everything is taken");
        rig.host().stream_send(fast, &[b"tick"]).unwrap();
        rig.flush_streams();
        assert_eq!(rig.read_until(&mut fast_peer, 4), b"tick");
        rig.pass(MS);
    }
    assert_eq!(rig.host().stream_send(slow, &[&part]), Err(StreamError::Full));
    assert!(rig.host().stream_queued_bytes(slow) > 50_000);
    rig.host().stream_send(fast, &[b"tock"]).unwrap();
    assert_eq!(rig.read_until(&mut fast_peer, 4), b"tock");
    rig.resume_reading(&mut slow_peer);
    let seen = rig.read_until(&mut slow_peer, parts_taken * part.len());
    assert!(seen == part.repeat(parts_taken));
    assert_eq!(rig.host().stream_queued_bytes(slow), 0);
}

fn a_closed_peer_closes_the_stream<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes::default());
    let (stream, peer) = rig.connect();
    let (other, mut other_peer) = rig.connect();
    let id = rig.host().attach_stream(stream).unwrap();
    let other = rig.host().attach_stream(other).unwrap();
    rig.close(peer);
    let mut result = Ok(());
    for _ in 0..1000 {
        result = rig.host().stream_send(id, &[b"anyone there?"]);
        if result.is_err() {
            break;
        }
        rig.flush_streams();
        rig.pass(MS);
    }
    assert_eq!(result, Err(StreamError::Closed));
    assert_eq!(rig.host().stream_queued_bytes(id), 0);
    assert_eq!(rig.host().counters().streams, 2, "it keeps its place until it is detached");
    rig.host().stream_send(other, &[b"yes"]).unwrap();
    assert_eq!(rig.read_until(&mut other_peer, 3), b"yes");
    rig.host().detach_stream(id);
    assert_eq!(rig.host().counters().streams, 1);
}

fn detaching_offers_what_is_queued<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes::default());
    let (stream, mut peer) = rig.connect();
    let id = rig.host().attach_stream(stream).unwrap();
    rig.host().stream_send(id, &[b"good", b"bye"]).unwrap();
    rig.host().detach_stream(id);
    assert_eq!(rig.read_until(&mut peer, 7), b"goodbye");
    assert!(rig.is_given_up(&mut peer));
}

fn stale_stream_ids_do_nothing<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes { streams_max: 1, ..Sizes::default() });
    let (stream, _peer) = rig.connect();
    let old = rig.host().attach_stream(stream).unwrap();
    rig.host().stream_send(old, &[b"unsent"]).unwrap();
    rig.host().detach_stream(old);
    let (stream, mut peer) = rig.connect();
    let new = rig.host().attach_stream(stream).unwrap();
    assert_ne!(old, new);
    assert_eq!(rig.host().stream_send(old, &[b"stale"]), Err(StreamError::Closed));
    assert_eq!(rig.host().stream_queued_bytes(old), 0);
    rig.host().detach_stream(old);
    rig.host().stream_send(new, &[b"new"]).unwrap();
    assert_eq!(rig.read_until(&mut peer, 3), b"new");
}

fn the_stream_table_has_an_end<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes { streams_max: 2, ..Sizes::default() });
    let (first, _a) = rig.connect();
    let (second, _b) = rig.connect();
    let (third, mut refused) = rig.connect();
    let (fourth, _d) = rig.connect();
    let id = rig.host().attach_stream(first).unwrap();
    rig.host().attach_stream(second).unwrap();
    assert_eq!(rig.host().attach_stream(third), Err(HostError::TableFull));
    assert!(rig.is_given_up(&mut refused), "a refused handle is closed");
    rig.host().detach_stream(id);
    assert!(rig.host().attach_stream(fourth).is_ok());
}

fn many_streams_stay_apart<R: Rig>(family: Family) {
    let mut rig = R::new(family, 0, Sizes::default());
    let (mut ids, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let (stream, peer) = rig.connect();
        ids.push(rig.host().attach_stream(stream).unwrap());
        peers.push(peer);
    }
    for round in 0..10_u8 {
        for (nth, id) in ids.iter().enumerate() {
            rig.host().stream_send(*id, &[&[nth as u8], &[round]]).unwrap();
        }
        rig.flush_streams();
    }
    for (nth, peer) in peers.iter_mut().enumerate() {
        let expected: Vec<u8> = (0..10).flat_map(|round| [nth as u8, round]).collect();
        assert_eq!(rig.read_until(peer, 20), expected);
    }
}
