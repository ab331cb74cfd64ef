//! The turn of an engine core, without a thread: a test drives it in simulated time as a thread does in real time.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::SocketAddr;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use hugepages::ChunkPool;
use pacing::Clock;
use pacing::cpu::Work;
use pacing::period::{Period, Unreserved};
use stack::host::{Host, StreamId};

use super::channel::Channel;
use super::command::{Command, Event, State, TRACKS_MAX};
use super::inbound::Inbox;
use super::live::Arrival;
use super::modules::{CoreGdsl, track_of};
use super::session::{Phase, Session};
use super::transfers::{TRANSFERS_MAX, Transfer};
use crate::disks::{CyclicConfig, Disk};
use crate::gdsl::{End, Gdsl, GdslConfig, Lateness, Outcome, PairId};

/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 32;
/// Events that one command can bring: a reply, a plan or set-up handed back, and a box for each track.
const EVENTS_PER_COMMAND: usize = TRACKS_MAX + 2;
/// Delivery starts at the latest this long after `Run`, even when a track's first block is not here.
pub(super) const START_PATIENCE_NS: u64 = 500_000_000;
/// Blocks of each guaranteed track that are here before delivery starts, if so many were asked for; one of a best-effort track.
const START_BLOCKS: usize = 4;
/// Local UDP ports at most.
const PORTS_MAX: usize = 32;
/// How often a session that starts is looked at.
const START_POLL_NS: u64 = 50_000;

/// Sizes of an engine core, all fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct CoreConfig {
    /// Sessions at once.
    pub sessions_max: u32,
    /// Tracks of all sessions at once.
    pub tracks_max: u32,
    /// Byte streams at once.
    pub streams_max: u32,
    /// Resolution of the deadline wheel, nanoseconds.
    pub tick_ns: u64,
    /// Frames that the host can queue.
    pub host_frames: usize,
    /// How disks are scheduled.
    pub disk: CyclicConfig,
    /// Whether buffers that nobody needs keep what is likely to be read again.
    pub cache: bool,
    /// Live channels at once.
    pub channels_max: u32,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            sessions_max: 1024,
            tracks_max: 2048,
            streams_max: 1024,
            tick_ns: 20_000,
            host_frames: 1024,
            disk: CyclicConfig::default(),
            cache: false,
            channels_max: 32,
        }
    }
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Anything happened.
    pub worked: bool,
    /// Packets with a due time that it queued.
    pub packets: u64,
    /// When the next turn is needed; `None` when only a command or a datagram can bring work.
    pub next_ns: Option<u64>,
    /// The core was told to end.
    pub stopped: bool,
}

pub(super) type FastMap<K, V> = HashMap<K, V, BuildHasherDefault<crate::gdsl::Mix>>;

/// One engine core.
pub struct EngineCore<H: Host, D: Disk, C: Clock> {
    pub(super) clock: C,
    pub(super) gdsl: CoreGdsl<H, D>,
    commands: Receiver<Command<H::Stream, D::File>>,
    /// Taken out of the queue, and to be obeyed first.
    next_command: Option<Command<H::Stream, D::File>>,
    events: Sender<Event<D::File>>,
    pub(super) sessions: Vec<Option<Session>>,
    pub(super) free_sessions: Vec<u32>,
    pub(super) by_key: FastMap<u64, u32>,
    /// Session and track of each pair, by the pair's place.
    pub(super) owners: Vec<(u32, u8)>,
    pub(super) by_ssrc: FastMap<u32, (u32, u8)>,
    pub(super) by_remote: HashMap<SocketAddr, (u32, u8)>,
    pub(super) streams: FastMap<u64, StreamId>,
    pub(super) channels: Vec<Option<Box<Channel>>>,
    pub(super) by_channel: FastMap<u64, u32>,
    /// Who sends to channels, by address, and by connection and interleaved channel.
    pub(super) by_sender: HashMap<SocketAddr, Arrival>,
    pub(super) by_interleaved: FastMap<u64, Arrival>,
    /// Where what arrives at further ports belongs.
    pub(super) by_port: [Option<Arrival>; PORTS_MAX],
    pub(super) next_look_ns: u64,
    /// The sessions whose phase is `Starting`, each once: it never grows.
    pub(super) starting: Vec<u32>,
    /// Place of the one to be looked at next.
    next_starting: usize,
    pub(super) tracks_max: usize,
    /// What is copied or recorded into files; it never grows.
    pub(super) transfers: Vec<Transfer>,
    pub(super) inbox: Inbox,
    pub(super) next_receive_ns: u64,
    /// Told to end: the place of the next session to be ended.
    pub(super) leaving: Option<usize>,
    pub(super) stopped: bool,
    /// Sessions whose state is `Playing`.
    pub(super) playing: u32,
    /// What guaranteed sessions have reserved of this core.
    pub(super) reserved: Work,
    pub(super) busy_ns: u64,
    pub(super) last_report: (u64, u64, u64),
    pub(super) flows_followed: u64,
    pub(super) rtcp_ignored: u64,
}

impl<H: Host, D: Disk, C: Clock> EngineCore<H, D, C> {
    /// A core over `host` and `disk` with the chunks of `pool` as buffers. Allocates all its tables.
    pub fn new(
        config: CoreConfig,
        clock: C,
        host: H,
        disk: D,
        pool: ChunkPool,
        commands: Receiver<Command<H::Stream, D::File>>,
        events: Sender<Event<D::File>>,
    ) -> Self {
        let now_ns = clock.now_ns();
        let sessions = config.sessions_max as usize;
        let tracks = config.tracks_max as usize;
        let senders = config.channels_max as usize * TRACKS_MAX * 4;
        let gdsl_config = GdslConfig {
            pairs_max: config.tracks_max.saturating_add(TRANSFERS_MAX as u32),
            tick_ns: config.tick_ns,
            host_frames: config.host_frames,
            disk: config.disk,
            cache: config.cache,
            tapes_max: config.channels_max.saturating_mul(TRACKS_MAX as u32),
            ..GdslConfig::default()
        };
        Self {
            gdsl: Gdsl::new(gdsl_config, host, disk, pool, now_ns),
            commands,
            next_command: None,
            events,
            sessions: (0..sessions).map(|_| None).collect(),
            free_sessions: (0..config.sessions_max).rev().collect(),
            by_key: FastMap::with_capacity_and_hasher(2 * sessions, BuildHasherDefault::default()),
            owners: vec![(0, 0); tracks + TRANSFERS_MAX],
            by_ssrc: FastMap::with_capacity_and_hasher(2 * tracks, BuildHasherDefault::default()),
            by_remote: HashMap::with_capacity(4 * tracks),
            streams: FastMap::with_capacity_and_hasher(2 * config.streams_max as usize, BuildHasherDefault::default()),
            channels: (0..config.channels_max).map(|_| None).collect(),
            by_channel: FastMap::with_capacity_and_hasher(2 * config.channels_max as usize, BuildHasherDefault::default()),
            by_sender: HashMap::with_capacity(senders),
            by_interleaved: FastMap::with_capacity_and_hasher(senders, BuildHasherDefault::default()),
            by_port: [None; PORTS_MAX],
            next_look_ns: now_ns,
            starting: Vec::with_capacity(sessions),
            next_starting: 0,
            tracks_max: tracks,
            transfers: Vec::with_capacity(TRANSFERS_MAX),
            inbox: Inbox::new(),
            next_receive_ns: now_ns,
            leaving: None,
            stopped: false,
            playing: 0,
            reserved: Work::default(),
            busy_ns: 0,
            last_report: (now_ns, 0, 0),
            flows_followed: 0,
            rtcp_ignored: 0,
            clock,
        }
    }

    /// One turn. All work but that of guaranteed peers goes on in slices of what these have not reserved.
    pub fn turn(&mut self) -> Turn {
        let begin_ns = self.clock.now_ns();
        let mut worked = self.take_commands();
        if begin_ns >= self.next_receive_ns || self.gdsl.host().has_arrivals() {
            worked |= self.receive(begin_ns);
        }
        let look_ns = self.look_after_channels(begin_ns);
        worked |= self.start_sessions();
        let packets_before = self.gdsl.counters().packets;
        let cycle = self.gdsl.cycle(&self.clock);
        let packets = self.gdsl.counters().packets - packets_before;
        worked |= cycle.worked;
        worked |= self.end_deliveries();
        worked |= self.release_transfers();
        worked |= self.leave();
        let soon_ns = (!self.starting.is_empty()).then_some(begin_ns + START_POLL_NS);
        let next_ns = match [cycle.next_ns, look_ns, soon_ns].into_iter().flatten().min() {
            _ if self.gdsl.has_outcomes() || self.leaving.is_some() => Some(begin_ns),
            next_ns => next_ns,
        };
        if worked {
            self.busy_ns += self.clock.now_ns().saturating_sub(begin_ns);
        }
        Turn { worked, packets, next_ns, stopped: self.stopped }
    }

    /// The host, for the loop that waits on it.
    pub fn host_mut(&mut self) -> &mut H {
        self.gdsl.host_mut()
    }

    /// The clock.
    pub fn clock(&self) -> &C {
        &self.clock
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        self.gdsl.disk()
    }

    /// The disk, for a test that changes it.
    pub fn disk_mut(&mut self) -> &mut D {
        self.gdsl.disk_mut()
    }

    /// The buffers.
    pub fn pool(&self) -> &ChunkPool {
        self.gdsl.pool()
    }

    /// Buffers that are free, or would be the moment somebody needs them.
    pub fn chunks_free(&self) -> usize {
        self.gdsl.chunks_free()
    }

    /// Who has its time.
    pub fn period(&self) -> &Period {
        self.gdsl.period()
    }

    /// Lateness of all packets since start.
    pub fn lateness(&self) -> &Lateness {
        self.gdsl.lateness()
    }

    /// Commands wait to be taken.
    pub fn has_commands(&self) -> bool {
        self.next_command.is_some() || !self.commands.is_empty()
    }

    fn take_commands(&mut self) -> bool {
        // An end that nobody has heard of comes before what is asked after it.
        if self.gdsl.has_outcomes() {
            self.gdsl.put_off(Unreserved::Commands);
            return false;
        }
        if self.next_command.is_none() {
            match self.commands.try_recv() {
                Ok(command) => self.next_command = Some(command),
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => {
                    self.shut_down();
                    return false;
                }
            }
        }
        let Some(slice) = self.gdsl.slice(Unreserved::Commands, self.clock.now_ns()) else { return false };
        let mut any = false;
        for _ in 0..COMMANDS_PER_TURN {
            if self.listener_is_behind() || any && slice.is_over(self.clock.now_ns()) {
                break;
            }
            let Some(command) = self.next_command.take().or_else(|| self.commands.try_recv().ok()) else { break };
            any = true;
            self.obey(command);
        }
        self.gdsl.took(slice, self.clock.now_ns());
        if self.has_commands() {
            self.gdsl.put_off(Unreserved::Commands);
        }
        any
    }

    /// What the next command brings might not fit beside the ends that sessions and streams may still come to: then commands wait, so
    /// that no answer and no end is lost.
    fn listener_is_behind(&self) -> bool {
        let queued = self.events.len();
        // A channel's end, what filled it, and a description; a transfer's end, its boxes, and that it is gone.
        let of_others = 3 * (self.by_channel.len() + self.transfers.len());
        let needed = EVENTS_PER_COMMAND + self.by_key.len() + self.streams.len() + of_others;
        queued > 0 && self.events.capacity().is_some_and(|capacity| capacity - queued.min(capacity) < needed)
    }

    /// An event that does not fit is dropped here, boxes and all; [`Self::listener_is_behind`] sees to it that all fit.
    pub(super) fn tell(&mut self, event: Event<D::File>) {
        let _ = self.events.try_send(event);
    }

    /// Starts the sessions whose first blocks are here.
    fn start_sessions(&mut self) -> bool {
        if self.starting.is_empty() {
            return false;
        }
        let Some(slice) = self.gdsl.slice(Unreserved::Sessions, self.clock.now_ns()) else { return false };
        let mut any = false;
        // Each is looked at once; when the slice is too short for all, the next turn goes on where this one ended.
        for _ in 0..self.starting.len() {
            let now_ns = self.clock.now_ns();
            if slice.is_over(now_ns) {
                self.gdsl.put_off(Unreserved::Sessions);
                break;
            }
            if self.next_starting >= self.starting.len() {
                self.next_starting = 0;
            }
            let Some(&index) = self.starting.get(self.next_starting) else { break };
            let give_up_ns = match self.sessions.get(index as usize) {
                Some(Some(Session { phase: Phase::Starting { give_up_ns }, .. })) => *give_up_ns,
                _ => {
                    self.starting.swap_remove(self.next_starting);
                    continue;
                }
            };
            if now_ns >= give_up_ns || self.all_fronts_arrived(index) {
                self.starting.swap_remove(self.next_starting);
                self.begin_delivery(index, self.clock.now_ns());
                any = true;
            } else {
                self.next_starting += 1;
            }
        }
        self.gdsl.took(slice, self.clock.now_ns());
        any
    }

    fn all_fronts_arrived(&mut self, index: u32) -> bool {
        let Some(Some(session)) = self.sessions.get(index as usize) else { return true };
        for track in session.tracks().filter(|track| !track.over) {
            // With an empty link: has its source anything to ask for?
            let arrived = match self.gdsl.front_arrived(track.pair, START_BLOCKS) {
                Some(arrived) => arrived,
                None => track_of(&mut self.gdsl, track.pair).is_none_or(|pair| pair.source.is_at_rest()),
            };
            if !arrived {
                return false;
            }
        }
        true
    }

    fn begin_delivery(&mut self, index: u32, now_ns: u64) {
        let live = self.start_viewer(index, now_ns);
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        if let Some(timeline) = live {
            session.timeline = timeline;
        } else {
            let already_ns = session.stopped_at_dts_ns.saturating_sub(session.timeline.start_dts_ns);
            session.timeline.anchor_ns = Some(now_ns.saturating_add_signed(already_ns.saturating_neg()));
        }
        session.phase = Phase::Running;
        for track in session.tracks.iter().flatten().filter(|t| !t.over) {
            if let Some(pair) = track_of(&mut self.gdsl, track.pair) {
                pair.source.set_timeline(session.timeline);
                pair.destination.set_timeline(session.timeline);
            }
            self.gdsl.wake(track.pair, End::Source, now_ns);
            self.gdsl.wake(track.pair, End::Destination, now_ns);
        }
    }

    /// Takes note of deliveries that came to their end.
    fn end_deliveries(&mut self) -> bool {
        if !self.gdsl.has_outcomes() {
            return false;
        }
        let Some(slice) = self.gdsl.slice(Unreserved::Sessions, self.clock.now_ns()) else { return false };
        while let Some((pair, outcome)) = self.gdsl.next_outcome() {
            if !self.transfer_ended(pair, outcome) {
                self.pair_ended(pair, outcome);
            }
            if slice.is_over(self.clock.now_ns()) {
                break;
            }
        }
        self.gdsl.took(slice, self.clock.now_ns());
        if self.gdsl.has_outcomes() {
            self.gdsl.put_off(Unreserved::Sessions);
        }
        true
    }

    fn pair_ended(&mut self, pair: PairId, outcome: Outcome) {
        let Some(&(index, place)) = self.owners.get(pair.place()) else { return };
        let Some(Some(session)) = self.sessions.get_mut(index as usize) else { return };
        let Some(Some(track)) = session.tracks.get_mut(usize::from(place)) else { return };
        if track.pair != pair || session.state != State::Playing {
            return;
        }
        track.over = true;
        let all_over = session.tracks().all(|t| t.over);
        match outcome {
            Outcome::Failed(why) => {
                self.set_state(index, State::Failed(why));
                self.halt(index);
                self.finish(index, outcome);
            }
            Outcome::Ended if all_over => {
                self.set_state(index, State::Ended);
                self.halt(index);
                self.send_byes(index);
                self.finish(index, outcome);
            }
            Outcome::Ended => {}
        }
    }

    fn finish(&mut self, index: u32, outcome: Outcome) {
        if let Some(Some(session)) = self.sessions.get(index as usize) {
            let session = session.key;
            self.tell(Event::Finished { session, outcome });
        }
    }
}
