//! What clients send to an engine core: RTCP over UDP or interleaved, and the packets that open a NAT's ports.
//!
//! All sessions share one port pair, so a packet is matched by its sender. RTCP from an unknown address that reports on one of our
//! random SSRCs, sent from the address of that session's RTSP connection, proves to be that client behind a NAT: from then on it is
//! followed there. RTP then goes to the neighbouring port that it opened, if it sent anything to our RTP port.

use std::net::SocketAddr;

use pacing::Clock;
use pacing::period::Unreserved;
use stack::host::{Host, Received};

use super::control::RTCP_PORT;
use super::core::EngineCore;
use super::live::interleaved_key;
use crate::delivery::Outlet;
use crate::disks::Disk;
use crate::rtp::rtcp::{Compound, Packet};

/// Datagrams taken in one turn.
const DATAGRAMS_PER_TURN: usize = 64;
/// Longer datagrams are cut: no RTCP packet of a client is longer.
const DATAGRAM_BYTES_MAX: usize = 1500;
/// Senders to our RTP port that are remembered, to know a NAT's choice of port.
const OPENERS: usize = 256;

/// Datagrams between the host and the sessions.
#[derive(Debug)]
pub(super) struct Inbox {
    from: Vec<(Received, usize)>,
    bytes: Box<[[u8; DATAGRAM_BYTES_MAX]]>,
    openers: Box<[Option<SocketAddr>]>,
    next_opener: usize,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self {
            from: Vec::with_capacity(DATAGRAMS_PER_TURN),
            bytes: vec![[0; DATAGRAM_BYTES_MAX]; DATAGRAMS_PER_TURN].into_boxed_slice(),
            openers: vec![None; OPENERS].into_boxed_slice(),
            next_opener: 0,
        }
    }

    fn put(&mut self, from: Received, bytes: &[u8]) {
        let Some(place) = self.bytes.get_mut(self.from.len()) else { return };
        let len = bytes.len().min(place.len());
        if let (Some(to), Some(source)) = (place.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(source);
            self.from.push((from, len));
        }
    }

    fn note_opener(&mut self, remote: SocketAddr) {
        if self.openers.contains(&Some(remote)) {
            return;
        }
        if let Some(place) = self.openers.get_mut(self.next_opener) {
            *place = Some(remote);
        }
        self.next_opener = (self.next_opener + 1) % OPENERS;
    }

    /// The port from which the client behind `rtcp` opened the way for RTP: the one below, or the only one of that address.
    fn opener_beside(&self, rtcp: SocketAddr) -> Option<SocketAddr> {
        let of_client = || self.openers.iter().flatten().filter(|a| a.ip() == rtcp.ip());
        let below = of_client().find(|a| a.port().checked_add(1) == Some(rtcp.port()));
        let only = (of_client().count() == 1).then(|| of_client().next()).flatten();
        below.or(only).copied()
    }
}

impl<H: Host, D: Disk, C: Clock> EngineCore<H, D, C> {
    /// Takes in what clients sent, if there is time for it.
    pub(super) fn receive(&mut self, now_ns: u64) -> bool {
        let Some(slice) = self.gdsl.slice(Unreserved::Receive, self.clock.now_ns()) else { return false };
        let count = self.receive_some(now_ns);
        self.gdsl.took(slice, self.clock.now_ns());
        self.next_receive_ns = now_ns + self.gdsl.host().receive_every_ns();
        if count == DATAGRAMS_PER_TURN {
            self.gdsl.put_off(Unreserved::Receive);
        }
        count > 0
    }

    fn receive_some(&mut self, now_ns: u64) -> usize {
        let mut inbox =
            std::mem::replace(&mut self.inbox, Inbox { from: Vec::new(), bytes: Box::default(), openers: Box::default(), next_opener: 0 });
        let count = self.gdsl.host_mut().receive(now_ns, DATAGRAMS_PER_TURN, &mut |from, bytes| inbox.put(from, bytes));
        // First, so that a report finds the port that was opened just before it.
        for i in 0..inbox.from.len() {
            if let Some(&(from, _)) = inbox.from.get(i)
                && from.local_port < RTCP_PORT
                && !self.by_sender.contains_key(&from.remote)
            {
                inbox.note_opener(from.remote);
            }
        }
        for (i, &(from, len)) in inbox.from.iter().enumerate() {
            let Some(packet) = inbox.bytes.get(i).and_then(|b| b.get(..len)) else { continue };
            if from.local_port > RTCP_PORT {
                if let Some(arrival) = self.by_port.get(usize::from(from.local_port)).copied().flatten() {
                    self.arrived(now_ns, arrival, packet);
                }
                continue;
            }
            let rtcp = from.local_port == RTCP_PORT;
            match self.by_sender.get(&from.remote) {
                Some(&arrival) if arrival.rtcp == rtcp => self.arrived(now_ns, arrival, packet),
                None if rtcp => self.rtcp_over_udp(now_ns, from.remote, packet, &inbox),
                _ => {}
            }
        }
        inbox.from.clear();
        self.inbox = inbox;
        count
    }

    fn rtcp_over_udp(&mut self, now_ns: u64, remote: SocketAddr, packet: &[u8], inbox: &Inbox) {
        let known = self.by_remote.get(&remote).copied();
        // A report names the track whatever the address; the address alone decides when it names none.
        let mut named = None;
        for ssrc in reported_ssrcs(packet) {
            let Some(&(index, place)) = self.by_ssrc.get(&ssrc) else { continue };
            let Some(Some(session)) = self.sessions.get(index as usize) else { continue };
            if session.peer == Some(remote.ip()) {
                named = named.filter(|_| known != Some((index, place))).or(Some((index, place)));
            }
        }
        if let Some((index, place)) = named
            // An older session's address may have become this one's: a NAT reuses ports.
            && known.is_none_or(|(owner, _)| owner != index)
        {
            self.follow(index, place, remote, inbox.opener_beside(remote));
        }
        let owner = named.or(known);
        match owner {
            Some((index, place)) => self.rtcp_of_track(now_ns, index, place, packet),
            None => self.rtcp_ignored += 1,
        }
    }

    /// Sends the track's packets to where its client's packets come from.
    fn follow(&mut self, index: u32, place: u8, rtcp: SocketAddr, rtp: Option<SocketAddr>) {
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        let Some(Some(track)) = session.tracks.get_mut(usize::from(place)) else { return };
        let Some((old_rtp, old_rtcp)) = track.remotes else { return };
        let Outlet::Udp { rtp: rtp_flow, rtcp: rtcp_flow } = track.outlet else { return };
        let rtp = rtp.unwrap_or(old_rtp);
        let host = self.gdsl.host_mut();
        if host.redirect_flow(rtcp_flow, rtcp).is_err() || host.redirect_flow(rtp_flow, rtp).is_err() {
            return;
        }
        track.remotes = Some((rtp, rtcp));
        if self.by_remote.get(&old_rtcp) == Some(&(index, place)) {
            self.by_remote.remove(&old_rtcp);
        }
        self.by_remote.insert(rtcp, (index, place));
        self.flows_followed += 1;
    }

    fn rtcp_of_track(&mut self, now_ns: u64, index: u32, place: u8, packet: &[u8]) {
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        let Some(Some(track)) = session.tracks.get(usize::from(place)) else { return };
        let Some(pair) = super::modules::track_of(&mut self.gdsl, track.pair) else { return };
        if pair.destination.rtp_mut().receive(now_ns, packet).is_ok() {
            session.last_rtcp_ns = Some(now_ns);
        } else {
            self.rtcp_ignored += 1;
        }
    }

    pub(super) fn stream_input(&mut self, token: u64, channel: u8, packet: &[u8]) {
        let now_ns = self.clock.now_ns();
        let Some(&wanted) = self.streams.get(&token) else { return };
        if let Some(&arrival) = self.by_interleaved.get(&interleaved_key(token, channel)) {
            return self.arrived(now_ns, arrival, packet);
        }
        // Few tracks are interleaved in one connection, and its client reports every few seconds: the SSRC finds the track.
        let by_report = reported_ssrcs(packet).find_map(|ssrc| self.by_ssrc.get(&ssrc).copied());
        let Some((index, place)) = by_report else {
            self.rtcp_ignored += 1;
            return;
        };
        let outlet = self.sessions.get(index as usize).and_then(Option::as_ref).and_then(|s| *s.tracks.get(usize::from(place))?);
        match outlet.map(|t| t.outlet) {
            Some(Outlet::Stream { stream, rtcp_channel, .. }) if stream == wanted && rtcp_channel == channel => {
                self.rtcp_of_track(now_ns, index, place, packet);
            }
            _ => self.rtcp_ignored += 1,
        }
    }
}

/// The synchronisation sources that a compound packet reports on; none when it does not parse.
fn reported_ssrcs(packet: &[u8]) -> impl Iterator<Item = u32> {
    let packets = Compound::new_checked(packet).ok().into_iter().flat_map(|compound| compound.packets());
    let reports = packets.filter_map(|packet| match packet {
        Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => Some(reports),
        _ => None,
    });
    reports.flatten().map(|block| block.ssrc)
}
