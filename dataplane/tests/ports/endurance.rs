//! A million frames, and not a descriptor lost.

use dataplane::ports::af_xdp::{Options, open};
use stack::port::Port;

use super::af_xdp::{drain, mac_of, open_near, options, until};
use super::frames::{Ends, udp};
use super::namespaces::{FAR, NEAR, OUR_IP, PEER_IP, Pair, root_or_skip};

const FRAMES: u64 = 1_000_000;

#[test]
fn a_full_queue_refuses_and_recovers() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let mut opened = open_near(&pair, &Options { tx_frames: 100, ..options() });
    let port = &mut opened.ports[0];
    for round in 1..=3u64 {
        let mut committed = 0;
        while let Some(frame) = port.frame() {
            frame[..64].fill(0xff);
            port.commit(64);
            committed += 1;
        }
        assert_eq!((committed, port.queued(), port.capacity()), (100, 100, 100));
        // Without an open frame a commit does nothing.
        port.commit(64);
        assert_eq!(port.queued(), 100);
        drain(port);
        let counters = port.counters();
        assert_eq!((counters.tx_frames, counters.tx_completed, counters.tx_bytes), (100 * round, 100 * round, 6400 * round));
        assert_eq!(counters.tx_full, round);
        // The kernel sends 32 frames in each call.
        assert!(counters.tx_calls >= 4 * round, "{counters:?}");
    }
    // A frame that is open keeps its content until it is committed, whatever is completed meanwhile.
    port.frame().unwrap()[..4].copy_from_slice(b"keep");
    port.flush(0);
    assert_eq!(&port.frame().unwrap()[..4], b"keep");
    // Short frames are padded with zeros, whatever lay there before.
    port.commit(4);
    assert_eq!(port.counters().tx_bytes, 6400 * 3 + 60);
}

#[test]
fn a_million_frames_cross_without_losing_a_descriptor() {
    if !root_or_skip("AF_XDP") {
        return;
    }
    let pair = Pair::new(1);
    let rx_frames = 512;
    let mut near = open_near(&pair, &Options { rx_frames, ..options() });
    let far = Options { interface: FAR.into(), addresses: vec![PEER_IP.into()], ..Options::new(FAR) };
    let mut far = pair.far.enter(|| open(&far)).unwrap();
    let ends = Ends { source: (mac_of(&pair.far, FAR), PEER_IP, 1), destination: (mac_of(&pair.near, NEAR), OUR_IP, 2) };
    let mut datagram = [0; 200];
    let len = udp(&mut datagram, ends, &[0x5a; 100]);
    let datagram = &datagram[..len];

    let (sender, receiver) = (&mut far.ports[0], &mut near.ports[0]);
    let mut sent = 0;
    while sent < FRAMES {
        while sent < FRAMES
            && let Some(frame) = sender.frame()
        {
            frame[..len].copy_from_slice(datagram);
            sender.commit(len);
            sent += 1;
        }
        sender.flush(0);
        receiver.receive(0, usize::MAX, &mut |frame| assert_eq!(frame, datagram));
    }
    drain(sender);
    let steered = || near.steering.counters_of(0).to_us;
    // What was steered to the socket was shown or counted as dropped.
    let settle = |receiver: &mut dyn Port| {
        until("frame at the receiver", || {
            receiver.receive(0, usize::MAX, &mut |_| ());
            let counters = receiver.counters();
            (counters.rx_frames + counters.rx_dropped == steered()).then_some(counters)
        })
    };
    let first = settle(receiver);
    let counters = sender.counters();
    assert_eq!((counters.tx_frames, counters.tx_completed, counters.tx_failed), (FRAMES, FRAMES, 0));
    assert!(first.rx_frames > 0);

    // Every transmit frame is free again.
    let mut free = 0;
    while let Some(frame) = sender.frame() {
        frame[..60].fill(0xff);
        sender.commit(60);
        free += 1;
    }
    assert_eq!(free, sender.capacity());
    drain(sender);
    // Every receive frame is with the kernel again: as many as there are wait there, and not one is dropped.
    let before = steered();
    for _ in 0..rx_frames {
        sender.frame().unwrap()[..len].copy_from_slice(datagram);
        sender.commit(len);
    }
    drain(sender);
    until("frames steered", || (steered() == before + u64::from(rx_frames)).then_some(()));
    let second = settle(receiver);
    assert_eq!((second.rx_frames, second.rx_dropped), (first.rx_frames + u64::from(rx_frames), first.rx_dropped));
}
