//! What an engine core does for live channels: takes in what their senders send, keeps their tapes, starts their viewers.

use pacing::Clock;
use stack::host::{FlowSpec, Host, HostError};

use super::channel::{Channel, ChannelReport, Route};
use super::command::{Event, Refusal, Transport};
use super::control::RTCP_PORT;
use super::core::EngineCore;
use super::modules::{AnyPair, SinkModule, SourceModule, track_of};
use crate::delivery::live::RecordHeader;
use crate::delivery::{LiveSource, Timeline};
use crate::disks::Disk;
use crate::gdsl::{Gdsl, IssueModule};
use crate::ingest::{Ingest, REPORT_BYTES_MAX, Records};
use crate::media::TrackKind;
use crate::rtp::interleaved;
use crate::transfer::RecordSink;

/// How often channels are looked at when nothing else is due.
const LOOK_EVERY_NS: u64 = 250_000_000;

/// Where something that arrived belongs: the channel's place, the track, and whether it is RTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) channel: u32,
    pub(super) track: u8,
    pub(super) rtcp: bool,
}

/// Puts the records of an ingest on the channel's tapes.
struct Recorder<'a, H: Host, D: Disk, S, T> {
    gdsl: &'a mut Gdsl<H, D, S, T>,
    channel: &'a mut Channel,
    now_ns: u64,
    /// Tracks of which a record found no room, a bit each.
    overruns: u32,
}

impl<H: Host, D: Disk, S: IssueModule<H, D>, T: IssueModule<H, D>> Records for Recorder<'_, H, D, S, T> {
    fn record(&mut self, position: usize, header: &RecordHeader, data: &[u8]) {
        let leader = self.channel.leader();
        let follows = self.channel.tracks.get(leader).is_some_and(|track| track.kind == TrackKind::Video) && position != leader;
        let Some(track) = self.channel.tracks.get_mut(position) else { return };
        let is_mark = header.sync && (!follows || track.mark_from_ns.is_some_and(|from_ns| header.at_ns >= from_ns));
        let mark = is_mark.then_some(header.at_ns);
        if self.gdsl.append(track.tape, &[&header.encode(), data], mark, self.now_ns).is_err() {
            self.overruns |= 1 << position;
            return;
        }
        if is_mark {
            track.mark_from_ns = None;
            if position == leader {
                for (_, other) in self.channel.tracks.iter_mut().enumerate().filter(|&(other, _)| other != leader) {
                    other.mark_from_ns = mark;
                }
            }
        }
    }
}

impl<H: Host, D: Disk, C: Clock> EngineCore<H, D, C> {
    pub(super) fn open_channel(&mut self, mut channel: Box<Channel>) -> Result<(), (Refusal, Box<Channel>)> {
        if self.by_channel.contains_key(&channel.key) {
            return Err((Refusal::State, channel));
        }
        let Some(index) = self.channels.iter().position(Option::is_none) else { return Err((Refusal::Full, channel)) };
        let mut added = 0;
        // From the back, so that taking a tape moves no other.
        while let Some(tape) = channel.tapes.pop() {
            match self.gdsl.add_tape(tape) {
                Ok(id) => {
                    added += 1;
                    if let Some(track) = channel.tapes.len().checked_add(0).and_then(|at| channel.tracks.get_mut(at)) {
                        track.tape = id;
                    }
                }
                Err(tape) => {
                    channel.tapes.push(tape);
                    break;
                }
            }
        }
        if added < channel.tracks.len() {
            self.take_tapes(&mut channel);
            return Err((Refusal::Full, channel));
        }
        channel.last_packet_ns = self.clock.now_ns();
        self.by_channel.insert(channel.key, index as u32);
        if let Some(place) = self.channels.get_mut(index) {
            *place = Some(channel);
        }
        self.next_look_ns = 0;
        Ok(())
    }

    fn take_tapes(&mut self, channel: &mut Channel) {
        for track in &channel.tracks {
            channel.tapes.extend(self.gdsl.remove_tape(track.tape));
        }
    }

    pub(super) fn resume_channel(&mut self, key: u64, ingest: Box<Ingest>) -> Result<(), (Refusal, Box<Ingest>)> {
        let now_ns = self.clock.now_ns();
        let channel = self.by_channel.get(&key).and_then(|&index| self.channels.get_mut(index as usize)).and_then(Option::as_mut);
        let Some(channel) = channel else { return Err((Refusal::NoChannel, ingest)) };
        if channel.ended || channel.ingest.is_some() || channel.tracks.len() != ingest.len() {
            return Err((Refusal::State, ingest));
        }
        channel.ingest = Some(ingest);
        channel.last_packet_ns = now_ns;
        self.next_look_ns = 0;
        Ok(())
    }

    pub(super) fn set_up_ingest(&mut self, key: u64, position: usize, transport: Transport) -> Result<(), Refusal> {
        let &index = self.by_channel.get(&key).ok_or(Refusal::NoChannel)?;
        let channel = self.channels.get_mut(index as usize).and_then(Option::as_mut).ok_or(Refusal::NoChannel)?;
        let track = channel.tracks.get_mut(position).ok_or(Refusal::NoChannel)?;
        if track.route.is_some() {
            return Err(Refusal::State);
        }
        let arrival = |rtcp| Arrival { channel: index, track: position as u8, rtcp };
        let route = match transport {
            Transport::Udp { rtp, rtcp, local } => {
                if self.by_sender.contains_key(&rtp) || self.by_sender.contains_key(&rtcp) || self.by_remote.contains_key(&rtcp) {
                    return Err(Refusal::State);
                }
                let spec = FlowSpec { local_port: RTCP_PORT, local_addr: local, remote: rtcp };
                let reports = self.gdsl.host_mut().open_flow(spec).map_err(|_| Refusal::Unreachable)?;
                self.by_sender.insert(rtp, arrival(false));
                self.by_sender.insert(rtcp, arrival(true));
                Route::Udp { rtp, rtcp, reports }
            }
            Transport::Stream { token, rtp_channel, rtcp_channel } => {
                let stream = self.streams.get(&token).copied().ok_or(Refusal::NoStream)?;
                self.by_interleaved.insert(interleaved_key(token, rtp_channel), arrival(false));
                self.by_interleaved.insert(interleaved_key(token, rtcp_channel), arrival(true));
                Route::Stream { stream, token, rtp_channel, rtcp_channel }
            }
        };
        track.route = Some(route);
        Ok(())
    }

    /// Takes in a packet of a channel's sender.
    pub(super) fn arrived(&mut self, now_ns: u64, arrival: Arrival, packet: &[u8]) {
        let track = usize::from(arrival.track);
        if arrival.rtcp {
            let Some(Some(channel)) = self.channels.get_mut(arrival.channel as usize) else { return };
            let Some(ingest) = channel.ingest.as_deref_mut() else { return };
            if !ingest.rtcp(now_ns, track, packet) {
                self.rtcp_ignored += 1;
            }
            if ingest.is_over() {
                self.lose_channel(arrival.channel, "its sender said goodbye");
            }
            return;
        }
        self.with_ingest(now_ns, arrival.channel, |ingest, recorder| {
            if ingest.rtp(now_ns, track, packet, recorder) {
                recorder.channel.last_packet_ns = now_ns;
            }
        });
    }

    fn with_ingest(
        &mut self,
        now_ns: u64,
        index: u32,
        f: impl FnOnce(&mut Ingest, &mut Recorder<'_, H, D, SourceModule<D::File>, SinkModule<D::File>>),
    ) {
        let Some(Some(channel)) = self.channels.get_mut(index as usize) else { return };
        let Some(mut ingest) = channel.ingest.take() else { return };
        let mut recorder = Recorder { gdsl: &mut self.gdsl, channel, now_ns, overruns: 0 };
        f(&mut ingest, &mut recorder);
        let overruns = recorder.overruns;
        for track in (0..ingest.len()).filter(|track| overruns & 1 << track != 0) {
            ingest.overrun(track);
        }
        if let Some(at_ns) = ingest.next_ns() {
            self.next_look_ns = self.next_look_ns.min(at_ns);
        }
        let described = ingest.take_described();
        channel.ingest = Some(ingest);
        if let Some(described) = described {
            for (track, codec) in channel.tracks.iter_mut().zip(&described.tracks) {
                track.active = codec.is_some();
            }
            let channel = channel.key;
            self.tell(Event::ChannelDescribed { channel, described });
        }
    }

    /// Sees to what is due for channels without a packet: reports, packets that waited for too long, senders that went silent. The answer
    /// is when to look again.
    pub(super) fn look_after_channels(&mut self, now_ns: u64) -> Option<u64> {
        if self.by_channel.is_empty() {
            return None;
        }
        if now_ns < self.next_look_ns {
            return Some(self.next_look_ns);
        }
        self.next_look_ns = now_ns.saturating_add(LOOK_EVERY_NS);
        for index in 0..self.channels.len() as u32 {
            self.with_ingest(now_ns, index, |ingest, recorder| ingest.tick(now_ns, recorder));
            self.send_reports(now_ns, index);
            let silent = match self.channels.get(index as usize) {
                Some(Some(channel)) => {
                    channel.ingest.as_ref().is_some_and(|ingest| ingest.may_vanish())
                        && now_ns.saturating_sub(channel.last_packet_ns) >= channel.silence_ns
                }
                _ => false,
            };
            if silent {
                self.lose_channel(index, "its sender is silent");
            }
        }
        Some(self.next_look_ns)
    }

    fn send_reports(&mut self, now_ns: u64, index: u32) {
        let Some(Some(channel)) = self.channels.get_mut(index as usize) else { return };
        let Some(ingest) = channel.ingest.as_deref_mut() else { return };
        if !ingest.reports_due(now_ns) {
            return;
        }
        let mut packet = [0; REPORT_BYTES_MAX];
        for (position, track) in channel.tracks.iter().enumerate() {
            let Some(route) = track.route else { continue };
            let len = ingest.report(now_ns, position, &mut packet);
            let Some(report) = packet.get(..len).filter(|report| !report.is_empty()) else { continue };
            match route {
                Route::Udp { reports, .. } => self.gdsl.send_untimed(reports, report),
                Route::Stream { stream, rtcp_channel, .. } => {
                    if let Some(prefix) = interleaved::prefix(rtcp_channel, report.len()) {
                        // What does not fit now is said in the next report.
                        let _ = self.gdsl.host_mut().stream_send(stream, &[&prefix, report]);
                    }
                }
            }
        }
    }

    /// Listens at `addr`; the number of the port.
    pub(super) fn listen(&mut self, addr: std::net::SocketAddr) -> Result<u8, Refusal> {
        self.gdsl.host_mut().listen(addr).map_err(|error| match error {
            HostError::TableFull => Refusal::Full,
            HostError::Unknown => Refusal::CannotListen,
            HostError::Family => Refusal::Family,
            HostError::Device => Refusal::Device,
            _ => Refusal::Listen,
        })
    }

    /// What arrives at the port is the channel's.
    pub(super) fn route_port(&mut self, port: u8, key: u64) -> Result<(), Refusal> {
        let &index = self.by_channel.get(&key).ok_or(Refusal::NoChannel)?;
        let place = self.by_port.get_mut(usize::from(port)).ok_or(Refusal::Full)?;
        *place = Some(Arrival { channel: index, track: 0, rtcp: false });
        Ok(())
    }

    pub(super) fn lose_channel_of(&mut self, key: u64) -> Result<(), Refusal> {
        let &index = self.by_channel.get(&key).ok_or(Refusal::NoChannel)?;
        self.lose_channel(index, "its sender ended it");
        Ok(())
    }

    /// The sender is gone.
    fn lose_channel(&mut self, index: u32, why: &'static str) {
        let now_ns = self.clock.now_ns();
        self.with_ingest(now_ns, index, |ingest, recorder| ingest.flush(now_ns, recorder));
        self.forget_routes(index);
        let Some(Some(channel)) = self.channels.get_mut(index as usize) else { return };
        let Some(ingest) = channel.ingest.take() else { return };
        for track in &channel.tracks {
            if channel.hold {
                // Who joins now waits for what comes next, not for what is over.
                self.gdsl.unmark(track.tape);
            } else {
                self.gdsl.end_tape(track.tape, now_ns);
            }
        }
        channel.ended = !channel.hold;
        let channel = channel.key;
        self.tell(Event::DiscardIngest(ingest));
        self.tell(Event::ChannelLost { channel, why });
    }

    fn forget_routes(&mut self, index: u32) {
        for port in self.by_port.iter_mut().filter(|port| port.is_some_and(|arrival| arrival.channel == index)) {
            *port = None;
        }
        let Some(Some(channel)) = self.channels.get_mut(index as usize) else { return };
        for track in &mut channel.tracks {
            match track.route.take() {
                Some(Route::Udp { rtp, rtcp, reports }) => {
                    self.by_sender.remove(&rtp);
                    self.by_sender.remove(&rtcp);
                    self.gdsl.host_mut().close_flow(reports);
                }
                Some(Route::Stream { token, rtp_channel, rtcp_channel, .. }) => {
                    self.by_interleaved.remove(&interleaved_key(token, rtp_channel));
                    self.by_interleaved.remove(&interleaved_key(token, rtcp_channel));
                }
                None => {}
            }
        }
    }

    pub(super) fn close_channel(&mut self, key: u64) -> Result<(), Refusal> {
        let index = self.by_channel.remove(&key).ok_or(Refusal::NoChannel)?;
        self.forget_routes(index);
        let Some(mut channel) = self.channels.get_mut(index as usize).and_then(Option::take) else { return Err(Refusal::NoChannel) };
        self.take_tapes(&mut channel);
        self.tell(Event::DiscardChannel(channel));
        Ok(())
    }

    pub(super) fn fill_channel(&self, key: u64, report: &mut ChannelReport) -> Result<(), Refusal> {
        let now_ns = self.clock.now_ns();
        let &index = self.by_channel.get(&key).ok_or(Refusal::NoChannel)?;
        let channel = self.channels.get(index as usize).and_then(Option::as_ref).ok_or(Refusal::NoChannel)?;
        report.live = channel.ingest.is_some();
        report.last_packet_age_ns = now_ns.saturating_sub(channel.last_packet_ns);
        let mark = channel.tracks.get(channel.leader()).and_then(|track| self.gdsl.tape(track.tape)?.mark);
        report.sync_age_ns = mark.map(|(_, at_ns)| now_ns.saturating_sub(at_ns));
        report.count = channel.tracks.len().min(report.tracks.len());
        for (track, entry) in report.tracks.iter_mut().enumerate().take(report.count) {
            *entry = channel.ingest.as_ref().map(|ingest| ingest.counters(track)).unwrap_or_default();
        }
        Ok(())
    }

    /// The tape of a channel's track.
    pub(super) fn tape_of(&self, key: u64, track: usize) -> Option<crate::gdsl::TapeId> {
        let &index = self.by_channel.get(&key)?;
        let channel = self.channels.get(index as usize)?.as_ref().filter(|channel| !channel.ended)?;
        channel.tracks.get(track).map(|track| track.tape)
    }

    /// Starts the tracks of a live session where a viewer can start now, and says its time line: what is retained from the newest sync
    /// sample on is due from now on, so a viewer is as far behind as that sample is old, and no further than `latency_ns` allows for.
    /// `None` when the session is not live.
    pub(super) fn start_viewer(&mut self, index: u32, now_ns: u64) -> Option<Timeline> {
        let session = self.sessions.get(index as usize)?.as_ref()?;
        let block_bytes = self.gdsl.pool().chunk_bytes() as u64;
        let (mut latency_ns, mut leader) = (0, None);
        for track in session.tracks() {
            let live = track_of(&mut self.gdsl, track.pair)?.source.live()?;
            let (channel, position, tape) = (live.channel, live.track, live.tape.tape());
            let channel = self.by_channel.get(&channel).and_then(|&index| self.channels.get(index as usize)?.as_ref());
            let kind = channel.and_then(|channel| channel.tracks.get(position)).map_or(TrackKind::Audio, |track| track.kind);
            latency_ns = latency_ns.max(channel.map_or(0, |channel| channel.latency_ns));
            let mark = self.gdsl.tape(tape).and_then(|place| place.mark);
            if leader.is_none_or(|(known, _)| kind == TrackKind::Video && known == TrackKind::Audio) {
                leader = Some((kind, mark));
            }
        }
        let start_ns = leader.and_then(|(_, mark)| mark).map(|(_, at_ns)| at_ns);
        for track in session.tracks() {
            let Some(modules) = track_of(&mut self.gdsl, track.pair) else { continue };
            let Some(tape) = modules.source.live().map(|live| live.tape.tape()) else { continue };
            let Some(place) = self.gdsl.tape(tape) else { continue };
            // Without a place to start with a picture, the sound starts where the picture will.
            let mark = place.mark.filter(|_| start_ns.is_some());
            let (offset, is_mark) = mark.map_or((place.end, false), |(offset, _)| (offset, true));
            let Some(modules) = track_of(&mut self.gdsl, track.pair) else { continue };
            modules.destination.start_live(offset, is_mark, start_ns.unwrap_or(now_ns), block_bytes);
            if let Some(live) = modules.source.live_mut() {
                live.tape.start(offset);
            }
        }
        let start_ns = start_ns.unwrap_or(now_ns);
        let delay_ns = latency_ns.max(now_ns.saturating_sub(start_ns));
        Some(Timeline { start_dts_ns: start_ns as i64, anchor_ns: Some(start_ns.saturating_add(delay_ns)) })
    }

    /// Gives the pairs of a recording their tapes, and the places where a viewer could start: all of them at the picture's. Other
    /// transfers need nothing.
    pub(super) fn prepare_recording(&mut self, pairs: &mut [Box<AnyPair<D::File>>]) -> Result<(), Refusal> {
        let block_bytes = self.gdsl.pool().chunk_bytes() as u64;
        let mut leader: Option<(bool, Option<(u64, u64)>)> = None;
        for (live, sink) in pairs.iter_mut().filter_map(|pair| recorded(pair)) {
            let tape = self.tape_of(live.channel, live.track).ok_or(Refusal::NoChannel)?;
            live.tape.set_tape(tape);
            let mark = self.gdsl.tape(tape).and_then(|place| place.mark);
            if leader.is_none_or(|(is_video, _)| sink.is_video() && !is_video) {
                leader = Some((sink.is_video(), mark));
            }
        }
        let Some((_, mark)) = leader else { return Ok(()) };
        let (_, start_ns) = mark.ok_or(Refusal::NoKeyFrame)?;
        for (live, sink) in pairs.iter_mut().filter_map(|pair| recorded(pair)) {
            let tape = live.tape.tape();
            let place = self.gdsl.tape(tape).ok_or(Refusal::NoChannel)?;
            let offset = place.mark.map_or(place.end, |(offset, _)| offset);
            sink.start(tape, offset, start_ns, block_bytes);
            live.tape.start(offset);
        }
        Ok(())
    }
}

/// The modules of this pair, if it records.
fn recorded<F>(pair: &mut AnyPair<F>) -> Option<(&mut LiveSource, &mut RecordSink<F>)> {
    match (&mut pair.source, &mut pair.destination) {
        (SourceModule::Track(source), SinkModule::Record(sink)) => Some((source.live_mut()?, sink)),
        _ => None,
    }
}

pub(super) fn interleaved_key(token: u64, channel: u8) -> u64 {
    token << 8 | u64::from(channel)
}
