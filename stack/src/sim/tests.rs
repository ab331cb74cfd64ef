use super::*;

const LINK: SimLink = SimLink { rate_bps: 8_000_000, queue_bytes: 1000 };

fn host_with(config: SimConfig, seed: u64) -> (SimHost, FlowId) {
    let mut host = SimHost::new(config, seed);
    let flow = host.open_flow(FlowSpec { local_port: 0, local_addr: None, remote: ([10, 0, 0, 1], 5000).into() }).unwrap();
    (host, flow)
}

fn put(host: &mut SimHost, flow: FlowId, byte: u8, len: usize) -> bool {
    let Some(frame) = host.datagram(flow) else { return false };
    frame[..len].fill(byte);
    host.commit(len);
    true
}

fn taken(host: &mut SimHost) -> Vec<(u8, u64, u64)> {
    let mut all = Vec::new();
    host.take_sent(|sent| all.push((sent.bytes[0], sent.at_ns, sent.departed_ns)));
    all
}

/// One byte takes 1 us on this link: 434 + 66 bytes of overhead take 500 us.
#[test]
fn the_link_takes_what_its_queue_has_room_for() {
    let (mut host, flow) = host_with(SimConfig { link: Some(LINK), ..SimConfig::default() }, 1);
    for byte in 0..5 {
        assert!(put(&mut host, flow, byte, 434));
    }
    assert_eq!(host.flush(0), Flushed { done: 2, failed: 0 });
    assert_eq!((host.queued(), host.counters().tx_backpressure, host.link_free_ns()), (3, 1, 1_000_000));
    assert_eq!(taken(&mut host), [(0, 0, 500_000), (1, 0, 1_000_000)]);
    assert_eq!(host.flush(0), Flushed::default());
    assert_eq!(host.flush(250_000), Flushed { done: 1, failed: 0 });
    assert_eq!(host.flush(5_000_000), Flushed { done: 2, failed: 0 });
    assert_eq!(taken(&mut host), [(2, 250_000, 1_500_000), (3, 5_000_000, 5_500_000), (4, 5_000_000, 6_000_000)]);
    host.set_link(Some(SimLink { rate_bps: 0, ..LINK }));
    put(&mut host, flow, 5, 1);
    assert_eq!(host.flush(u64::MAX), Flushed::default());
    host.set_link(None);
    assert_eq!(host.flush(7_000_000), Flushed { done: 1, failed: 0 });
}

#[test]
fn equal_seeds_fail_the_same_datagrams() {
    let run = |seed| {
        let (mut host, flow) = host_with(SimConfig { failures_per_million: 200_000, ..SimConfig::default() }, seed);
        let mut failed = Vec::new();
        for nth in 0..2000 {
            put(&mut host, flow, 0, 10);
            let flushed = host.flush(nth);
            assert_eq!(flushed.done, 1);
            failed.push(flushed.failed);
        }
        assert_eq!(host.counters().tx_failed + host.counters().tx_datagrams, 2000);
        failed
    };
    let first = run(7);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
    assert!((300..500).contains(&first.iter().sum::<u32>()));
}

#[test]
fn datagrams_arrive_at_their_time_and_in_order() {
    let (mut host, _) = host_with(SimConfig::default(), 1);
    let from = |port| Received { local_port: 1, remote: ([10, 0, 0, 1], port).into() };
    for (at_ns, port) in [(30, 3), (10, 1), (30, 4), (20, 2)] {
        host.inject(at_ns, from(port), &port.to_be_bytes());
    }
    let mut ports = Vec::new();
    let mut receive =
        |host: &mut SimHost, now_ns, limit| host.receive(now_ns, limit, &mut |received, _| ports.push(received.remote.port()));
    assert_eq!(host.next_arrival_ns(), Some(10));
    assert_eq!(receive(&mut host, 9, 8), 0);
    assert_eq!(receive(&mut host, 25, 1), 1);
    assert_eq!(receive(&mut host, 25, 8), 1);
    assert_eq!(receive(&mut host, 30, 8), 2);
    assert_eq!(host.next_arrival_ns(), None);
    assert_eq!(ports, [1, 2, 3, 4]);
}

#[test]
fn what_was_sent_tells_its_flow_even_after_it_closed() {
    let (mut host, _) = host_with(SimConfig::default(), 1);
    let local_addr = Some([10, 0, 0, 9].into());
    let flow = host.open_flow(FlowSpec { local_port: 1, local_addr, remote: "[::ffff:10.0.0.2]:7".parse().unwrap() }).unwrap();
    put(&mut host, flow, 3, 2);
    host.close_flow(flow);
    host.flush(5);
    let mut seen = 0;
    host.take_sent(|sent| {
        let remote = ([10, 0, 0, 2], 7).into();
        let expected = SentDatagram { flow, local_port: 1, local_addr, remote, at_ns: 5, departed_ns: 5, bytes: &[3, 3] };
        assert_eq!(sent, expected);
        seen += 1;
    });
    assert_eq!(seen, 1);
}

#[test]
fn a_host_of_no_frames_takes_nothing() {
    let (mut host, flow) = host_with(SimConfig { tx_frames: 0, ..SimConfig::default() }, 1);
    assert!(!put(&mut host, flow, 0, 0));
    assert_eq!(host.flush(0), Flushed::default());
}
