//! Ports that only receive, unicast and multicast.

use super::*;

const GROUP: &str = "239.1.2.3:9500";

/// A datagram without a checksum to `to`, in a frame.
fn datagram(to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let mut udp = vec![0x13, 0x8c];
    udp.extend(to.1.to_be_bytes());
    udp.extend((8 + payload.len() as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let mut frame = packet(17, &udp);
    if to.0[0] >> 4 == 14 {
        frame[..6].copy_from_slice(&crate::iface::group_mac(to.0.into()));
    }
    frame[30..34].copy_from_slice(&to.0);
    frame[24..26].fill(0);
    let mut sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

/// Ports and first bytes of what comes.
fn heard(rig: &mut Rig) -> Vec<(u8, u8)> {
    let mut heard = Vec::new();
    rig.host.receive(rig.now_ns, 64, &mut |from, bytes| heard.push((from.local_port, bytes[0])));
    rig.host.flush_streams(rig.now_ns);
    heard
}

fn rig() -> Rig {
    let mut rig = Rig::new(StackConfig::default(), WireConfig::default(), 256);
    rig.arp(1, [10, 0, 0, 2]);
    rig.pass(MS);
    rig.seen();
    rig
}

#[test]
fn what_comes_is_told_apart_by_address_and_port() {
    let mut rig = rig();
    let listen = |rig: &mut Rig, addr: &str| rig.host.listen(addr.parse().unwrap());
    assert_eq!(listen(&mut rig, GROUP), Ok(2));
    assert_eq!(listen(&mut rig, "0.0.0.0:9500"), Ok(3));
    assert_eq!(listen(&mut rig, "10.0.0.1:9501"), Ok(4));
    // A group may have the number of a port of ours: what is sent to it is the listener's.
    assert_eq!(listen(&mut rig, "239.1.2.3:6970"), Ok(5));
    let group = [239, 1, 2, 3];
    for (to, byte) in
        [((group, 9500), 1), (([10, 0, 0, 1], 9500), 2), (([10, 0, 0, 1], 9501), 3), ((group, 6970), 4), (([10, 0, 0, 1], 6970), 5)]
    {
        rig.say(&datagram(to, &[byte; 188]));
    }
    assert_eq!(heard(&mut rig), [(2, 1), (3, 2), (4, 3), (5, 4), (0, 5)]);
    rig.seen();
    // What nobody listens to is refused, unless it came by a group.
    for to in [(group, 9501), (group, 6971), ([239, 1, 2, 4], 9500)] {
        rig.say(&datagram(to, b"x"));
    }
    assert_eq!(heard(&mut rig), []);
    rig.pass(MS);
    assert_eq!(rig.seen().len(), 0);
    rig.say(&datagram(([10, 0, 0, 1], 9502), b"x"));
    rig.pass(MS);
    assert_eq!(rig.seen().len(), 1);
}

#[test]
fn where_a_host_cannot_listen() {
    let mut rig = rig();
    let mut listen = |addr: &str| rig.host.listen(addr.parse().unwrap());
    assert_eq!(listen("10.0.0.1:9500"), Ok(2));
    for addr in ["10.0.0.9:9501", "0.0.0.0:6970", "10.0.0.1:6971", "0.0.0.0:9500", "10.0.0.1:9500", "0.0.0.0:0", "255.255.255.255:9501"] {
        assert_eq!(listen(addr), Err(HostError::Listen), "{addr}");
    }
    // It has no address of that family.
    assert_eq!(listen("[::]:9501"), Err(HostError::Family));
    assert_eq!(listen("[ff15::9]:9501"), Err(HostError::Family));
    for nth in 0..15 {
        assert_eq!(listen(&format!("239.1.2.3:{}", 9000 + u16::from(nth))), Ok(3 + nth));
    }
    assert_eq!(listen("239.1.2.3:9999"), Err(HostError::TableFull));
}

/// IGMP messages among frames.
fn igmp(frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.into_iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 2).map(|frame| frame[38..].to_vec()).collect()
}

#[test]
fn a_group_is_joined_once_and_left_at_the_end() {
    let mut rig = rig();
    for addr in [GROUP, "239.1.2.3:9501", "239.1.2.4:9500"] {
        rig.host.listen(addr.parse().unwrap()).unwrap();
    }
    rig.pass(0);
    let said = igmp(rig.seen());
    assert_eq!(said.len(), 1);
    assert_eq!(said[0][4..], [0, 0, 0, 2, 4, 0, 0, 0, 239, 1, 2, 3, 4, 0, 0, 0, 239, 1, 2, 4]);
    rig.pass(5_000 * MS);
    assert_eq!(igmp(rig.seen()).len(), 1, "said again");
    let Rig { host, mut peer, now_ns } = rig;
    drop(host);
    let mut frames = Vec::new();
    peer.receive(now_ns + MS, 64, &mut |frame| frames.push(frame.to_vec()));
    let said = igmp(frames);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0][4..], [0, 0, 0, 2, 3, 0, 0, 0, 239, 1, 2, 3, 3, 0, 0, 0, 239, 1, 2, 4]);
}
