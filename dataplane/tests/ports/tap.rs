//! TAP devices: frames, ends, a device that goes away.

use std::time::Duration;

use dataplane::ports::tap::{Options, TapError, TapPort};
use stack::port::Port;

use super::af_xdp::{both_ways, drain, until};
use super::namespaces::{Namespace, root_or_skip};

const TAP: &str = "tactap";

/// The kernel's end has the peer's address.
fn address(namespace: &Namespace) {
    namespace.ip(&format!("link set {TAP} addrgenmode none"));
    namespace.ip(&format!("addr add 10.77.0.3/24 dev {TAP}"));
}

fn open(namespace: &Namespace, options: &Options) -> Result<TapPort, TapError> {
    namespace.enter(|| TapPort::open(options))
}

#[test]
fn datagrams_go_both_ways_over_a_device_of_our_own() {
    if !root_or_skip("TAP") {
        return;
    }
    let namespace = Namespace::new();
    let mut port = open(&namespace, &Options::new(TAP)).unwrap();
    assert!(port.describe().contains("made by this process"), "{}", port.describe());
    address(&namespace);
    both_ways(&namespace, TAP, &mut port);
    let counters = port.counters();
    assert_eq!((counters.tx_frames, counters.tx_failed), (counters.tx_completed, 0));
    assert_eq!(counters.tx_calls, counters.tx_frames);
    let impatient = Options { patience: Duration::ZERO, ..Options::new(TAP) };
    let busy = open(&namespace, &impatient).unwrap_err();
    assert!(busy.to_string().contains("another process is attached"), "{busy}");
    drop(port);
    // A test beside this one may be starting a process, which has our files until it runs its program.
    until("end of a device of our own", || (!namespace.ip("link").contains(TAP)).then_some(()));
}

#[test]
fn a_device_that_was_there_stays_and_keeps_its_settings() {
    if !root_or_skip("TAP") {
        return;
    }
    let namespace = Namespace::new();
    namespace.ip(&format!("tuntap add {TAP} mode tap"));
    namespace.ip(&format!("link set {TAP} mtu 1400 address 02:00:00:00:00:08"));
    let mut port = open(&namespace, &Options::new(TAP)).unwrap();
    assert_eq!((port.mtu_bytes(), port.mac()), (1400, [2, 0, 0, 0, 0, 9]));
    assert!(port.describe().contains("that was there"));
    address(&namespace);
    // The largest datagram of that test is 1472 bytes.
    drop(port);
    let options = Options { mtu_bytes: Some(9000), mac: Some([2, 9, 9, 9, 9, 9]), ..Options::new(TAP) };
    port = open(&namespace, &options).unwrap();
    assert_eq!((port.mtu_bytes(), port.mac()), (9000, [2, 9, 9, 9, 9, 9]));
    assert!(port.frame_bytes() >= 9018);
    both_ways(&namespace, TAP, &mut port);
    drop(port);
    assert!(namespace.ip("link").contains(TAP));
    let same = open(&namespace, &Options { mac: Some([2, 0, 0, 0, 0, 8]), ..Options::new(TAP) }).unwrap_err();
    assert!(matches!(same, TapError::SameMac { .. }), "{same}");
}

#[test]
fn a_full_queue_refuses_and_a_lost_device_is_told() {
    if !root_or_skip("TAP") {
        return;
    }
    let namespace = Namespace::new();
    let mut port = open(&namespace, &Options { tx_frames: 10, ..Options::new(TAP) }).unwrap();
    for _ in 0..2 {
        let mut committed = 0;
        while let Some(frame) = port.frame() {
            frame[..64].fill(0xff);
            port.commit(64);
            committed += 1;
        }
        assert_eq!((committed, port.queued(), port.capacity()), (10, 10, 10));
        port.commit(64);
        assert_eq!(port.queued(), 10);
        drain(&mut port);
    }
    assert_eq!(port.counters().tx_bytes, 20 * 64);
    // A device that is down drops what it is given.
    namespace.ip(&format!("link set {TAP} down"));
    port.frame().unwrap().fill(0);
    port.commit(64);
    assert_eq!((port.flush(0), port.queued(), port.lost()), (1, 0, false));
    assert_eq!((port.counters().tx_failed, port.counters().tx_completed), (1, 20));
    namespace.ip(&format!("link del {TAP}"));
    assert_eq!(port.receive(0, 8, &mut |_| ()), 0);
    assert!(port.lost() && port.frame().is_none());
}

#[test]
fn what_cannot_be_a_tap_is_refused_with_advice() {
    if !root_or_skip("TAP") {
        return;
    }
    let namespace = Namespace::new();
    for name in ["", "a-name-that-is-too-long", "lo"] {
        let error = open(&namespace, &Options::new(name)).unwrap_err();
        assert!(error.to_string().contains("1 to 15 bytes"), "{name:?}: {error}");
    }
}
