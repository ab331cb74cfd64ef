//! Clients that nobody has heard of: their handshakes wait for no lookup of a neighbour, with or without a flood around them.

use super::*;
use crate::iface::NeighbourState;
use crate::tcp::{ListenerId, TcpConfig};

const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;
const PORT: u16 = 554;
const HONEST: [u8; 4] = [10, 0, 0, 77];

fn sum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    (!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes()
}

/// A segment without payload from `from` at PEER.
fn segment(from: [u8; 4], from_port: u16, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let ports = [from_port.to_be_bytes(), PORT.to_be_bytes()].concat();
    let mut segment = [&ports[..], &seq.to_be_bytes(), &ack.to_be_bytes(), &[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]].concat();
    let checksum = sum(&[&from, &[10, 0, 0, 1, 0, 6, 0, 20], &segment]);
    segment[16..18].copy_from_slice(&checksum);
    let mut header = [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0][..], &from, &[10, 0, 0, 1]].concat();
    let checksum = sum(&[&header]);
    header[10..12].copy_from_slice(&checksum);
    [&OURS[..], &PEER, &[8, 0], &header, &segment].concat()
}

fn rig(backlog: usize) -> (Rig, ListenerId) {
    let tcp = TcpConfig { connections_max: 64, pool_bytes: 1 << 20, ..TcpConfig::default() };
    let mut rig = Rig::new(StackConfig { tcp, reserved_frames: 0, ..StackConfig::default() }, WireConfig::default(), 1024);
    let listener = rig.host.tcp_mut().listen((std::net::Ipv4Addr::UNSPECIFIED, PORT).into(), backlog).unwrap();
    (rig, listener)
}

impl Rig {
    /// Our sequence number in the answer to a SYN of that address; it goes to where the SYN came from.
    fn answer_to(&mut self, to: [u8; 4]) -> Option<u32> {
        let frames = self.seen();
        let frame = frames.iter().find(|frame| frame[12..14] == [8, 0] && frame[30..34] == to)?;
        assert_eq!((&frame[..6], frame[47]), (&PEER[..], SYN_ACK));
        Some(u32::from_be_bytes(frame[38..42].try_into().unwrap()))
    }

    fn requests(&mut self) -> usize {
        self.seen().iter().filter(|frame| frame[12..14] == [8, 6]).count()
    }

    fn state(&self, of: [u8; 4]) -> Option<NeighbourState> {
        self.host.iface().neighbour(self.now_ns, of.into())
    }
}

#[test]
fn the_answer_to_a_syn_waits_for_no_lookup() {
    let (mut rig, listener) = rig(8);
    rig.say(&segment(HONEST, 5000, SYN, 100, 0));
    rig.pass(0);
    let seq = rig.answer_to(HONEST).expect("an answer in the same turn");
    assert_eq!(rig.state(HONEST), None, "whoever sends a SYN is nobody yet");
    rig.say(&segment(HONEST, 5000, ACK, 101, seq.wrapping_add(1)));
    rig.pass(MS);
    assert_eq!(rig.state(HONEST), Some(NeighbourState::Reachable), "it has got our answer (RFC 4861 7.3.1)");
    let conn = rig.host.tcp_mut().accept(listener).expect("a connection");
    rig.host.tcp_mut().send(conn, &[b"hello"]).unwrap();
    rig.pass(0);
    let frames = rig.seen();
    assert_eq!(frames.len(), 1, "nobody had to be asked for");
    assert_eq!((&frames[0][..6], &frames[0][54..59]), (&PEER[..], &b"hello"[..]));
}

#[test]
fn what_a_neighbour_said_of_itself_counts_for_more() {
    let (mut rig, _) = rig(8);
    let elsewhere = [2, 0, 0, 0, 0, 9];
    let frame = [&OURS[..], &elsewhere, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &elsewhere, &HONEST, &OURS, &[10, 0, 0, 1]].concat();
    rig.say(&frame);
    rig.pass(0);
    rig.seen();
    rig.say(&segment(HONEST, 5000, SYN, 100, 0));
    rig.pass(0);
    let frames = rig.seen();
    assert!(frames.iter().any(|frame| frame[12..14] == [8, 0] && frame[..6] == elsewhere), "to where it said it is");
}

#[test]
fn behind_a_router_only_the_router_is_asked_for() {
    let (mut rig, _) = rig(8);
    for host in 1..=20 {
        rig.say(&segment([192, 0, 2, host], 5000, SYN, 100, 0));
    }
    // The limit of the interface queue lets them out in some turns.
    (0..5).for_each(|_| rig.pass(0));
    let frames = rig.seen();
    let answers = frames.iter().filter(|frame| frame[12..14] == [8, 0] && frame[..6] == PEER).count();
    assert_eq!(answers, 20, "all are answered at once");
    rig.pass(MS);
    rig.say(&segment([192, 0, 2, 99], 5000, SYN, 100, 0));
    rig.pass(MS);
    assert_eq!(rig.state([10, 0, 0, 9]), Some(NeighbourState::Incomplete));
    assert_eq!(rig.host.layers().1.neighbours, 1);
}

/// SYNs of neighbours that do not exist come all the time, more than the backlog holds.
#[test]
fn in_a_flood_the_first_syn_is_answered_at_once() {
    let (mut rig, listener) = rig(8);
    let flood = |rig: &mut Rig, turn: u32| {
        for nth in 0..100_u32 {
            let host = (turn * 100 + nth) % 60 + 100;
            rig.say(&segment([10, 0, 0, host as u8], 1024 + (turn * 100 + nth) as u16, SYN, nth, 0));
        }
    };
    for turn in 0..100 {
        flood(&mut rig, turn);
        rig.pass(MS);
    }
    assert_eq!(rig.requests(), 0, "nobody is asked for on behalf of strangers");
    // Until the limit of the interface queue had found its place some had to go.
    let dropped_before = rig.host.layers().2.tx_replies_dropped;
    flood(&mut rig, 100);
    rig.say(&segment(HONEST, 5000, SYN, 100, 0));
    rig.pass(0);
    let seq = rig.answer_to(HONEST).expect("an answer in the same turn");
    flood(&mut rig, 101);
    rig.say(&segment(HONEST, 5000, ACK, 101, seq.wrapping_add(1)));
    rig.pass(MS);
    assert!(rig.host.tcp_mut().accept(listener).is_some(), "{:?}", rig.host.layers());
    assert_eq!(rig.state(HONEST), Some(NeighbourState::Reachable));
    let (_, iface, tcp) = rig.host.layers();
    assert_eq!((iface.neighbours, tcp.tx_replies_dropped), (1, dropped_before), "{iface:?} {tcp:?}");
    assert_eq!((tcp.cookies_accepted, tcp.established), (1, 1));
}
