//! What an engine core does on command.

use std::net::SocketAddr;

use pacing::Clock;
use pacing::cpu::Work;
use pacing::period::Unreserved;
use stack::host::{FlowSpec, Host, HostError, StreamError};

use super::command::{Command, CoreReport, Event, Refusal, Reply, SessionReport, StartedTrack, State, TRACKS_MAX, TrackSetup, Transport};
use super::core::{EngineCore, START_PATIENCE_NS};
use super::modules::{SinkModule, SourceModule, track_in, track_of};
use super::session::{Phase, Session, TrackSlot};
use crate::delivery::{Outlet, StartPlan, Timeline};
use crate::disks::Disk;
use crate::gdsl::{Class, End};

/// Index of the host's local port for RTP, and for RTCP.
const RTP_PORT: u8 = 0;
pub(super) const RTCP_PORT: u8 = 1;
/// RTP time between the end of one range and the start of the next one, beside the time that passed.
const RANGE_GAP_NS: u64 = 40_000_000;

/// An outlet, and the client's RTP and RTCP addresses if it is UDP.
type Opened = (Outlet, Option<(SocketAddr, SocketAddr)>);
/// Why a track was not set up, and the boxes that go back to be freed.
type NotSetUp<F> = (Refusal, Box<TrackSetup<F>>);

impl<H: Host, D: Disk, C: Clock> EngineCore<H, D, C> {
    pub(super) fn obey(&mut self, command: Command<H::Stream, D::File>) {
        match command {
            Command::AttachStream { reply, token, stream } => {
                let answer = match self.gdsl.host_mut().attach_stream(stream) {
                    Ok(id) => {
                        self.streams.insert(token, id);
                        Reply::Done
                    }
                    Err(_) => Reply::Refused(Refusal::Full),
                };
                self.reply(reply, answer);
            }
            Command::StreamWrite { token, bytes } => self.write_stream(token, &bytes),
            Command::StreamInput { token, channel, bytes } => self.stream_input(token, channel, &bytes),
            Command::DetachStream { token } => {
                if let Some(stream) = self.streams.remove(&token) {
                    self.gdsl.host_mut().detach_stream(stream);
                }
            }
            Command::SetupTrack { reply, session, setup } => {
                let answer = match self.set_up(session, setup) {
                    Ok(()) => Reply::Done,
                    Err((refusal, setup)) => {
                        self.tell(Event::DiscardSetup(setup));
                        Reply::Refused(refusal)
                    }
                };
                self.reply(reply, answer);
            }
            Command::Start { reply, session, plan } => {
                let answer = self.start(session, plan.as_deref()).unwrap_or_else(Reply::Refused);
                if let Some(plan) = plan {
                    self.tell(Event::DiscardPlan(plan));
                }
                self.reply(reply, answer);
            }
            Command::Run { reply, session } => {
                let answer = self.run(session).map_or_else(Reply::Refused, |()| Reply::Done);
                self.reply(reply, answer);
            }
            Command::Stop { reply, session } => {
                let answer = self.stop(session).map_or_else(Reply::Refused, |position_ns| Reply::Stopped { position_ns });
                self.reply(reply, answer);
            }
            Command::Destroy { reply, session } => {
                if let Some(&index) = self.by_key.get(&session) {
                    self.destroy(index);
                }
                self.reply(reply, Reply::Done);
            }
            Command::SessionStatus { reply, session, mut report } => {
                let answer = match self.fill_session(session, &mut report) {
                    Some(()) => Reply::Session(report),
                    None => Reply::Refused(Refusal::NoSession),
                };
                self.reply(reply, answer);
            }
            Command::CoreStatus { reply, mut report } => {
                self.fill_core(&mut report);
                self.reply(reply, Reply::Core(report));
            }
            Command::OpenChannel { reply, channel } => {
                let answer = match self.open_channel(channel) {
                    Ok(()) => Reply::Done,
                    Err((refusal, channel)) => {
                        self.tell(Event::DiscardChannel(channel));
                        Reply::Refused(refusal)
                    }
                };
                self.reply(reply, answer);
            }
            Command::ResumeChannel { reply, channel, ingest } => {
                let answer = match self.resume_channel(channel, ingest) {
                    Ok(()) => Reply::Done,
                    Err((refusal, ingest)) => {
                        self.tell(Event::DiscardIngest(ingest));
                        Reply::Refused(refusal)
                    }
                };
                self.reply(reply, answer);
            }
            Command::SetupIngest { reply, channel, track, transport } => {
                let answer = self.set_up_ingest(channel, track, transport);
                self.reply(reply, answer.map_or_else(Reply::Refused, |()| Reply::Done));
            }
            Command::Listen { reply, addr } => {
                let answer = self.listen(addr).map_or_else(Reply::Refused, Reply::Listening);
                self.reply(reply, answer);
            }
            Command::RoutePort { reply, port, channel } => {
                let answer = self.route_port(port, channel);
                self.reply(reply, answer.map_or_else(Reply::Refused, |()| Reply::Done));
            }
            Command::LoseChannel { reply, channel } => {
                let answer = self.lose_channel_of(channel);
                self.reply(reply, answer.map_or_else(Reply::Refused, |()| Reply::Done));
            }
            Command::CloseChannel { reply, channel } => {
                let answer = self.close_channel(channel);
                self.reply(reply, answer.map_or_else(Reply::Refused, |()| Reply::Done));
            }
            Command::ChannelStatus { reply, channel, mut report } => {
                let answer = match self.fill_channel(channel, &mut report) {
                    Ok(()) => Reply::Channel(report),
                    Err(refusal) => {
                        self.tell(Event::DiscardReport(report));
                        Reply::Refused(refusal)
                    }
                };
                self.reply(reply, answer);
            }
            Command::StartTransfer { reply, transfer, pairs } => self.start_transfer(reply, transfer, pairs),
            Command::EndRecording { reply, transfer } => self.end_recording(reply, transfer),
            Command::StopTransfer { reply, transfer } => self.stop_transfer(reply, transfer),
            Command::TransferStatus { reply, transfer } => self.transfer_status(reply, transfer),
            Command::Shutdown => self.shut_down(),
        }
    }

    fn reply(&mut self, id: u64, reply: Reply) {
        self.tell(Event::Reply { id, reply });
    }

    fn write_stream(&mut self, token: u64, bytes: &[u8]) {
        let Some(&stream) = self.streams.get(&token) else { return };
        match self.gdsl.host_mut().stream_send(stream, &[bytes]) {
            Ok(()) => {}
            Err(StreamError::Full | StreamError::Closed) => {
                self.gdsl.host_mut().detach_stream(stream);
                self.streams.remove(&token);
                self.tell(Event::StreamClosed { token });
            }
        }
    }

    fn set_up(&mut self, key: u64, setup: Box<TrackSetup<D::File>>) -> Result<(), NotSetUp<D::File>> {
        let known = self.by_key.get(&key).copied();
        let place = match known.and_then(|index| self.sessions.get(index as usize)?.as_ref()) {
            _ if self.leaving.is_some() => Err(Refusal::State),
            _ if self.gdsl.pairs() - self.transfers.len() >= self.tracks_max => Err(Refusal::Full),
            Some(session) if session.phase != Phase::Idle => Err(Refusal::State),
            Some(session) => session.tracks.iter().position(Option::is_none).ok_or(Refusal::Full),
            None if self.free_sessions.is_empty() => Err(Refusal::Full),
            None => Ok(0),
        };
        let live = match &setup.pair.source {
            SourceModule::Track(source) => source.live(),
            SourceModule::File(_) => None,
        };
        let tape = match live.map(|live| self.tape_of(live.channel, live.track)) {
            Some(None) => return Err((Refusal::NoChannel, setup)),
            tape => tape.flatten(),
        };
        let (place, (outlet, remotes)) = match place.and_then(|place| Ok((place, self.open_outlet(setup.transport)?))) {
            Ok(opened) => opened,
            Err(refusal) => return Err((refusal, setup)),
        };
        let TrackSetup { track_id, transport, mut pair, work } = *setup;
        let class = pair.class;
        let Some(track) = track_in(&mut pair) else {
            self.close_outlet(outlet);
            return Err((Refusal::State, Box::new(TrackSetup { track_id, transport, pair, work })));
        };
        track.destination.set_outlet(outlet);
        if let Some(live) = track.source.live_mut()
            && let Some(tape) = tape
        {
            live.tape.set_tape(tape);
            track.destination.set_tape(tape);
        }
        let ssrc = track.destination.ssrc();
        if let (Outlet::Stream { stream, .. }, Class::Guaranteed) = (outlet, class) {
            self.gdsl.host_mut().prefer_stream(stream, true);
        }
        let pair = match self.gdsl.add(pair) {
            Ok(pair) => pair,
            Err(pair) => {
                self.close_outlet(outlet);
                return Err((Refusal::Full, Box::new(TrackSetup { track_id, transport, pair, work })));
            }
        };
        let track = TrackSlot { track_id, pair, ssrc, outlet, remotes, over: false };
        if let Some(index) = known.or_else(|| self.make_session(key)) {
            self.keep_track(index, place, track, work);
        }
        Ok(())
    }

    fn make_session(&mut self, key: u64) -> Option<u32> {
        let index = self.free_sessions.pop()?;
        *self.sessions.get_mut(index as usize)? = Some(Session::new(key));
        self.by_key.insert(key, index);
        Some(index)
    }

    fn keep_track(&mut self, index: u32, place: usize, track: TrackSlot, work: Work) {
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        session.work = session.work.and(work);
        self.reserved = self.reserved.and(work);
        self.gdsl.set_reserved(self.reserved);
        let Some(slot) = session.tracks.get_mut(place) else { return };
        *slot = Some(track);
        let owner = (index, place as u8);
        if let Some(entry) = self.owners.get_mut(track.pair.place()) {
            *entry = owner;
        }
        // Two sessions may have drawn the same number; the older one keeps it.
        self.by_ssrc.entry(track.ssrc).or_insert(owner);
        if let Some((rtp, rtcp)) = track.remotes {
            session.peer = Some(rtp.ip());
            self.by_remote.insert(rtcp, owner);
        }
    }

    fn open_outlet(&mut self, transport: Transport) -> Result<Opened, Refusal> {
        match transport {
            Transport::Udp { rtp, rtcp, local } => {
                let host = self.gdsl.host_mut();
                let refusal = |e| if e == HostError::TableFull { Refusal::Full } else { Refusal::Unreachable };
                let rtp_flow = host.open_flow(FlowSpec { local_port: RTP_PORT, local_addr: local, remote: rtp }).map_err(refusal)?;
                match host.open_flow(FlowSpec { local_port: RTCP_PORT, local_addr: local, remote: rtcp }) {
                    Ok(rtcp_flow) => Ok((Outlet::Udp { rtp: rtp_flow, rtcp: rtcp_flow }, Some((rtp, rtcp)))),
                    Err(e) => {
                        host.close_flow(rtp_flow);
                        Err(refusal(e))
                    }
                }
            }
            Transport::Stream { token, rtp_channel, rtcp_channel } => {
                let stream = self.streams.get(&token).copied().ok_or(Refusal::NoStream)?;
                Ok((Outlet::Stream { stream, rtp_channel, rtcp_channel }, None))
            }
        }
    }

    fn close_outlet(&mut self, outlet: Outlet) {
        if let Outlet::Udp { rtp, rtcp } = outlet {
            self.gdsl.host_mut().close_flow(rtp);
            self.gdsl.host_mut().close_flow(rtcp);
        }
    }

    fn start(&mut self, key: u64, plan: Option<&StartPlan>) -> Result<Reply, Refusal> {
        let now_ns = self.clock.now_ns();
        let &index = self.by_key.get(&key).ok_or(Refusal::NoSession)?;
        let Some(Some(session)) = self.sessions.get(index as usize) else { return Err(Refusal::NoSession) };
        let possible = match plan {
            Some(plan) => plan.tracks.len() == session.tracks().count(),
            // What came to its end has nothing to go on with.
            None => session.phase != Phase::Idle && !session.is_over(),
        };
        if !possible || session.tracks().next().is_none() {
            return Err(Refusal::State);
        }
        self.halt(index);
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return Err(Refusal::NoSession) };
        let stopped_for_ns = now_ns.saturating_sub(session.stopped_ns);
        if let Some(plan) = plan {
            session.timeline = Timeline { start_dts_ns: plan.start_dts_ns, anchor_ns: None };
            (session.from_ns, session.to_ns) = (plan.from_ns, plan.to_ns);
            session.stopped_at_dts_ns = plan.start_dts_ns;
            session.phase = Phase::Prepared;
        }
        let from_ns = session.position_ns(now_ns);
        // Until delivery runs the window of what is read ahead begins here.
        let resting = Timeline { start_dts_ns: session.stopped_at_dts_ns, anchor_ns: None };
        let mut tracks = [StartedTrack::default(); TRACKS_MAX];
        let mut count = 0;
        for (i, track) in session.tracks.iter_mut().flatten().enumerate() {
            if let Some(plan) = plan {
                self.gdsl.clear_link(track.pair);
                if let (Some(pair), Some(&part)) = (track_of(&mut self.gdsl, track.pair), plan.tracks.get(i)) {
                    pair.source.prepare(part, plan.start_dts_ns);
                    pair.destination.prepare(part, plan.start_dts_ns, plan.from_ns, RANGE_GAP_NS.saturating_add(stopped_for_ns));
                }
                track.over = false;
            }
            if !track.over {
                if let Some(pair) = track_of(&mut self.gdsl, track.pair) {
                    pair.source.set_timeline(resting);
                }
                self.gdsl.wake(track.pair, End::Source, now_ns);
            }
            if let (Some(pair), Some(entry)) = (track_of(&mut self.gdsl, track.pair), tracks.get_mut(i)) {
                let sender = pair.destination;
                *entry = StartedTrack { track_id: track.track_id, seq: sender.rtp().next_seq(), rtptime: sender.rtp_time_of(from_ns) };
                count = i + 1;
            }
        }
        let to_ns = session.to_ns;
        self.set_state(index, State::Paused);
        Ok(Reply::Started { from_ns, to_ns, tracks, count })
    }

    fn run(&mut self, key: u64) -> Result<(), Refusal> {
        let now_ns = self.clock.now_ns();
        let &index = self.by_key.get(&key).ok_or(Refusal::NoSession)?;
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return Err(Refusal::NoSession) };
        match session.phase {
            Phase::Idle => Err(Refusal::State),
            Phase::Prepared if session.is_over() => Err(Refusal::State),
            Phase::Prepared => {
                session.phase = Phase::Starting { give_up_ns: now_ns + START_PATIENCE_NS };
                self.starting.push(index);
                self.set_state(index, State::Playing);
                Ok(())
            }
            Phase::Starting { .. } | Phase::Running => Ok(()),
        }
    }

    fn stop(&mut self, key: u64) -> Result<u64, Refusal> {
        let now_ns = self.clock.now_ns();
        let &index = self.by_key.get(&key).ok_or(Refusal::NoSession)?;
        self.halt(index);
        let Some(Some(session)) = self.sessions.get(index as usize) else { return Err(Refusal::NoSession) };
        let position_ns = session.position_ns(now_ns);
        if session.state == State::Playing {
            self.set_state(index, State::Paused);
        }
        Ok(position_ns)
    }

    pub(super) fn set_state(&mut self, index: u32, state: State) {
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        let was = std::mem::replace(&mut session.state, state);
        self.playing = self.playing + u32::from(state == State::Playing) - u32::from(was == State::Playing);
    }

    /// Stops delivery where it is; what the links hold stays.
    pub(super) fn halt(&mut self, index: u32) {
        let now_ns = self.clock.now_ns();
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        match session.phase {
            Phase::Running => {
                session.stopped_at_dts_ns = session.timeline.dts_at(now_ns);
                session.stopped_ns = now_ns;
                session.timeline.anchor_ns = None;
                session.phase = Phase::Prepared;
                for track in session.tracks.iter().flatten() {
                    if let Some(pair) = track_of(&mut self.gdsl, track.pair) {
                        pair.destination.set_timeline(session.timeline);
                    }
                    self.gdsl.hold(track.pair, End::Source);
                    self.gdsl.hold(track.pair, End::Destination);
                }
            }
            Phase::Starting { .. } => {
                session.phase = Phase::Prepared;
                self.starting.retain(|&starting| starting != index);
            }
            Phase::Idle | Phase::Prepared => {}
        }
    }

    /// Sends each track's last report, with BYE.
    pub(super) fn send_byes(&mut self, index: u32) {
        let now_ns = self.clock.now_ns();
        let Some(Some(session)) = self.sessions.get(index as usize) else { return };
        for track in session.tracks.iter().flatten() {
            self.gdsl.with_io(track.pair, &self.clock, |module, io| {
                if let SinkModule::Track(sender) = module {
                    sender.send_bye(now_ns, io);
                }
            });
        }
    }

    fn destroy(&mut self, index: u32) {
        self.halt(index);
        let ended = matches!(self.sessions.get(index as usize), Some(Some(Session { state: State::Ended, .. })));
        if !ended {
            self.send_byes(index);
        }
        let Some(session) = self.sessions.get_mut(index as usize).and_then(Option::take) else { return };
        self.by_key.remove(&session.key);
        self.playing -= u32::from(session.state == State::Playing);
        self.reserved = self.reserved.without(session.work);
        self.gdsl.set_reserved(self.reserved);
        for track in session.tracks.iter().flatten() {
            if self.by_ssrc.get(&track.ssrc).is_some_and(|&(owner, _)| owner == index) {
                self.by_ssrc.remove(&track.ssrc);
            }
            if let Some((_, rtcp)) = track.remotes
                && self.by_remote.get(&rtcp).is_some_and(|&(owner, _)| owner == index)
            {
                self.by_remote.remove(&rtcp);
            }
            self.close_outlet(track.outlet);
            if let Some(pair) = self.gdsl.remove(track.pair) {
                self.tell(Event::Discard(pair));
            }
        }
        self.free_sessions.push(index);
    }

    /// From now on sessions are ended, as many in a turn as there is time for.
    pub(super) fn shut_down(&mut self) {
        if self.leaving.is_none() && !self.stopped {
            self.leaving = Some(0);
        }
    }

    /// Ends sessions once the core was told to end, and in the end says so.
    pub(super) fn leave(&mut self) -> bool {
        let Some(mut index) = self.leaving else { return false };
        let Some(slice) = self.gdsl.slice(Unreserved::Sessions, self.clock.now_ns()) else { return false };
        while index < self.sessions.len() && !slice.is_over(self.clock.now_ns()) {
            self.destroy(index as u32);
            index += 1;
        }
        self.gdsl.took(slice, self.clock.now_ns());
        self.leaving = Some(index);
        if index < self.sessions.len() {
            self.gdsl.put_off(Unreserved::Sessions);
            return true;
        }
        // The last BYEs go out.
        self.gdsl.cycle(&self.clock);
        (self.leaving, self.stopped) = (None, true);
        self.tell(Event::Stopped);
        true
    }

    fn fill_session(&mut self, key: u64, report: &mut SessionReport) -> Option<()> {
        let now_ns = self.clock.now_ns();
        let &index = self.by_key.get(&key)?;
        let session = self.sessions.get(index as usize)?.as_ref()?;
        report.state = session.state;
        report.position_ns = session.position_ns(now_ns);
        report.last_rtcp_age_ns = session.last_rtcp_ns.map(|at| now_ns.saturating_sub(at));
        report.lateness.reset();
        report.count = 0;
        for (track, entry) in session.tracks.iter().flatten().zip(&mut report.tracks) {
            let Some(pair) = track_of(&mut self.gdsl, track.pair) else { continue };
            entry.track_id = track.track_id;
            entry.ssrc = track.ssrc;
            entry.sent = pair.destination.status();
            entry.reception = pair.destination.rtp().reception();
            entry.client_cname = pair.destination.rtp().receiver_cname();
            report.lateness.add(pair.lateness);
            report.count += 1;
        }
        Some(())
    }

    fn fill_core(&mut self, report: &mut CoreReport) {
        let now_ns = self.clock.now_ns();
        let gdsl = self.gdsl.counters();
        let (last_ns, last_busy_ns, last_bytes) = self.last_report;
        report.interval_ns = now_ns.saturating_sub(last_ns);
        report.busy_ns = self.busy_ns.saturating_sub(last_busy_ns);
        report.interval_bytes = gdsl.bytes.saturating_sub(last_bytes);
        self.last_report = (now_ns, self.busy_ns, gdsl.bytes);
        report.sessions = self.by_key.len() as u32;
        report.playing = self.playing;
        report.gdsl = gdsl;
        report.host = self.gdsl.host().counters();
        report.layers = self.gdsl.host().own_layers();
        report.disk = self.gdsl.disk().counters();
        report.chunks_free = self.gdsl.chunks_free();
        report.cost = self.gdsl.cost();
        report.period = Some(*self.gdsl.period());
        report.device_count = 0;
        for (device, entry) in self.gdsl.devices().zip(&mut report.devices) {
            *entry = device;
            report.device_count += 1;
        }
        report.lateness.reset();
        report.lateness.add(self.gdsl.lateness());
        report.flows_followed = self.flows_followed;
        report.rtcp_ignored = self.rtcp_ignored;
    }
}
