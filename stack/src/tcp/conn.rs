//! One connection: its two halves, its timers, and the small steps that the other files are made of.

use super::api::{Events, KeepAlive, LinkAddress, ListenerId, State, TcpError};
use super::buffers::Round;
use super::congestion::{Algorithm, Congestion};
use super::flight::Flight;
use super::queues::{RecvQueue, SendQueue};
use super::rack::Rack;
use super::recovery::Recovery;
use super::replies::Reply;
use super::rtt::Rtt;
use super::seq::Seq;
use super::shared::Shared;
use super::wire::{Header, Options, SackBlocks, TIMESTAMPS_BYTES, Tuple, flag};

/// No deadline.
pub(super) const NEVER: u64 = u64::MAX;
/// Segments that are acknowledged at once at the start of a connection, while the sender's window is small.
const QUICK_ACKS: u8 = 16;
/// RFC 9293 3.7.1: segment size of a peer that says nothing.
const DEFAULT_MSS_V4: u16 = 536;
const DEFAULT_MSS_V6: u16 = 1220;
/// Segment sizes below this are taken for an attack.
const MIN_MSS: u32 = 88;

/// Our FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fin {
    No,
    /// To be sent behind what is queued.
    Queued,
    Sent,
}

/// The half that sends.
#[derive(Debug)]
pub(super) struct Sender {
    pub iss: Seq,
    /// First sequence number that is not acknowledged.
    pub una: Seq,
    /// Next sequence number to send.
    pub nxt: Seq,
    /// The peer's window, in bytes from `una`.
    pub window: u32,
    pub window_max: u32,
    /// Sequence and acknowledgment number of the segment that the window came with.
    pub wl1: Seq,
    pub wl2: Seq,
    pub scale: u8,
    /// Payload of a full segment.
    pub mss: u32,
    pub queue: SendQueue,
    pub fin: Fin,
    pub flight: Flight,
    /// The only segment in flight was sent when nothing else was in flight.
    pub lone: bool,
    pub rtt: Rtt,
    pub rack: Rack,
    pub recovery: Recovery,
    pub congestion: Congestion,
    /// The writer was told that there is no room.
    pub writer_waits: bool,
    pub last_sent_ns: u64,
    pub retransmits: u32,
    pub rtos: u32,
    /// Segments with payload left of the turn in the ring.
    pub credit: u32,
    /// Zero-window probes since the window was last open.
    pub persists: u32,
}

impl Sender {
    /// RFC 6675 4, SetPipe: bytes believed to be in the network.
    pub fn in_flight(&self) -> u64 {
        let out = self.nxt.since(self.una);
        u64::from(out.saturating_sub(self.flight.sacked_bytes + self.flight.lost_bytes + self.recovery.reno_sacked_bytes))
    }

    /// Something is queued that was never sent.
    pub fn has_unsent(&self) -> bool {
        self.queue.unsent_len() > 0 || self.fin == Fin::Queued
    }
}

/// The half that receives.
#[derive(Debug)]
pub(super) struct Receiver {
    pub irs: Seq,
    /// Next sequence number expected.
    pub nxt: Seq,
    /// End of the window that was offered; never moves back.
    pub edge: Seq,
    pub scale: u8,
    pub queue: RecvQueue,
    pub round: Round,
    /// Sequence number of the peer's FIN, when that has arrived.
    pub fin: Option<Seq>,
    /// An acknowledgment is to go out at once.
    pub ack_now: bool,
    /// Bytes that were not acknowledged yet.
    pub unacked: u32,
    pub quick_acks: u8,
    /// Largest payload seen: what a full segment of the peer is.
    pub full: u32,
    /// A duplicate that the next acknowledgment tells of (RFC 2883).
    pub duplicate: Option<(Seq, Seq)>,
    /// RFC 7323 4.3: TS.Recent and Last.ACK.sent.
    pub ts_recent: u32,
    pub ts_recent_at_ns: u64,
    pub last_ack: Seq,
    pub challenged_ns: u64,
}

/// What the loss timer is armed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LossTimer {
    Retransmit,
    Probe,
    Reordering,
}

/// Deadlines; [`NEVER`] when off. The wheel holds one for the earliest of them, or an earlier one that was for something that has passed.
#[derive(Debug)]
pub(super) struct Timers {
    pub wheel_ns: u64,
    pub loss_ns: u64,
    pub loss: LossTimer,
    /// Delayed acknowledgment.
    pub ack_ns: u64,
    /// Zero-window probe or keep-alive.
    pub probe_ns: u64,
    /// End of TIME-WAIT, or of patience with a peer in FIN-WAIT-2.
    pub state_ns: u64,
    /// The layer below had no way for a segment: again then.
    pub retry_ns: u64,
}

impl Timers {
    const OFF: Self = Self {
        wheel_ns: NEVER,
        loss_ns: NEVER,
        loss: LossTimer::Retransmit,
        ack_ns: NEVER,
        probe_ns: NEVER,
        state_ns: NEVER,
        retry_ns: NEVER,
    };

    fn earliest_ns(&self) -> u64 {
        self.loss_ns.min(self.ack_ns).min(self.probe_ns).min(self.state_ns).min(self.retry_ns)
    }
}

/// A connection, or a free place for one.
#[derive(Debug)]
pub(super) struct Conn {
    pub index: u32,
    pub generation: u32,
    pub state: State,
    /// In the table.
    pub listed: bool,
    /// The user has its name.
    pub held: bool,
    /// Where it came from, until it is accepted.
    pub listener: Option<ListenerId>,
    pub tuple: Tuple,
    /// Where the peer's SYN came from on the link, until it has been heard again.
    pub via: Option<LinkAddress>,
    pub events: Events,
    pub error: Option<TcpError>,
    pub no_delay: bool,
    pub keep_alive: Option<KeepAlive>,
    pub user_timeout_ns: u64,
    pub timestamps: bool,
    pub ts_offset: u32,
    pub sack: bool,
    /// SYN, or SYN with ACK, is to be sent.
    pub syn_due: bool,
    pub syn_sent_ns: u64,
    pub snd: Sender,
    pub rcv: Receiver,
    pub timers: Timers,
    /// When the peer was heard last.
    pub heard_ns: u64,
    /// When the peer last acknowledged something new, or something was sent while nothing was in flight.
    pub progress_ns: u64,
    /// Since when the layer below has had no way for a segment; [`NEVER`] if it has.
    pub stalled_ns: u64,
    /// Probes since the peer was heard last.
    pub probes: u8,
    pub probe_due: bool,
}

impl Conn {
    /// A free place.
    pub fn vacant(index: u32, tuple: Tuple, shared: &Shared) -> Self {
        let config = &shared.config;
        Self {
            index,
            generation: 0,
            state: State::Closed,
            listed: false,
            held: false,
            listener: None,
            tuple,
            via: None,
            events: Events::default(),
            error: None,
            no_delay: false,
            keep_alive: None,
            user_timeout_ns: config.user_timeout_ns,
            timestamps: false,
            ts_offset: 0,
            sack: false,
            syn_due: false,
            syn_sent_ns: NEVER,
            snd: Sender::new(Seq(0), config.congestion, config.rto_min_ns, config.rto_max_ns),
            rcv: Receiver::new(Seq(0)),
            timers: Timers::OFF,
            heard_ns: 0,
            progress_ns: 0,
            stalled_ns: NEVER,
            probes: 0,
            probe_due: false,
        }
    }

    /// Makes a connection of a free place, in SYN-SENT, with that initial sequence number.
    pub fn open(&mut self, shared: &Shared, now_ns: u64, tuple: Tuple, iss: Seq) {
        let generation = self.generation;
        // A deadline that the wheel may still hold for this place comes, finds nothing due, and is gone.
        let wheel_ns = self.timers.wheel_ns;
        *self = Self::vacant(self.index, tuple, shared);
        self.generation = generation;
        self.timers.wheel_ns = wheel_ns;
        self.state = State::SynSent;
        self.snd = Sender::new(iss, shared.config.congestion, shared.config.rto_min_ns, shared.config.rto_max_ns);
        self.ts_offset = shared.keys.timestamp_offset(&tuple);
        self.rcv.scale = window_scale(shared.recv_window_max());
        self.timestamps = true;
        self.sack = true;
        (self.heard_ns, self.progress_ns) = (now_ns, now_ns);
    }

    /// The peer's SYN: its number and its options. What it did not offer is not used (RFC 7323 2.2 and 3.2, RFC 2018 2).
    pub fn learn_peer(&mut self, shared: &Shared, now_ns: u64, header: &Header) {
        let options = &header.options;
        self.rcv.start(header.seq);
        match options.window_scale {
            Some(scale) => self.snd.scale = scale,
            None => (self.snd.scale, self.rcv.scale) = (0, 0),
        }
        self.sack = options.sack_permitted;
        self.timestamps = options.timestamps.is_some();
        if let Some((value, _)) = options.timestamps {
            (self.rcv.ts_recent, self.rcv.ts_recent_at_ns) = (value, now_ns);
        }
        self.set_mss(shared, options.mss);
        // The window of a SYN is never scaled (RFC 7323 2.2).
        self.snd.window = u32::from(header.window);
        self.snd.window_max = self.snd.window;
        (self.snd.wl1, self.snd.wl2) = (header.seq, header.ack);
    }

    /// The size of segments, from what the peer takes and what the link carries.
    pub fn set_mss(&mut self, shared: &Shared, peer: Option<u16>) {
        let v4 = self.tuple.local.is_ipv4();
        let peer = u32::from(peer.unwrap_or(if v4 { DEFAULT_MSS_V4 } else { DEFAULT_MSS_V6 }));
        let options = if self.timestamps { TIMESTAMPS_BYTES as u32 } else { 0 };
        // RFC 6691: the option does not count the options of a segment, so they come off.
        self.snd.mss = peer.min(u32::from(own_mss(shared.config.mtu_bytes, v4))).max(MIN_MSS) - options;
        self.snd.congestion.cwnd = Congestion::initial(u64::from(self.snd.mss));
    }

    /// The handshake is done.
    pub fn establish(&mut self, shared: &mut Shared, now_ns: u64) {
        self.state = State::Established;
        self.via = None;
        shared.counters.established += 1;
        self.timers.loss_ns = NEVER;
        self.snd.rtt.backoff = 0;
        self.progress_ns = now_ns;
        self.snd.last_sent_ns = now_ns;
        if self.held {
            self.tell(shared, Events::CONNECTED | Events::WRITABLE);
        }
    }

    /// The millisecond clock of timestamps (RFC 7323 5.4).
    pub fn ts_at(&self, at_ns: u64) -> u32 {
        ((at_ns / 1_000_000) as u32).wrapping_add(self.ts_offset)
    }

    pub fn tell(&mut self, shared: &mut Shared, events: Events) {
        if self.held {
            self.events.add(events);
            shared.events.push(self.index);
        }
    }

    /// Something is to be sent.
    pub fn wake(&self, shared: &mut Shared) {
        shared.ready.push(self.index);
    }

    /// An acknowledgment is to go out at once.
    pub fn ack_now(&mut self, shared: &mut Shared) {
        self.rcv.ack_now = true;
        self.wake(shared);
    }

    /// RFC 5961 7: an acknowledgment that asks a doubtful peer to prove itself; not too many of them.
    pub fn challenge(&mut self, shared: &mut Shared, now_ns: u64) {
        if self.rcv.challenged_ns == 0 || now_ns >= self.rcv.challenged_ns + shared.config.challenge_interval_ns {
            self.rcv.challenged_ns = now_ns.max(1);
            shared.counters.tx_challenges += 1;
            self.ack_now(shared);
        }
    }

    /// The connection is over before its time.
    pub fn fail(&mut self, shared: &mut Shared, error: TcpError) {
        self.error = Some(error);
        self.rcv.queue.clear(&mut shared.blocks, &mut shared.ranges);
        self.end(shared);
        self.tell(shared, Events::FAILED | Events::READABLE | Events::WRITABLE);
    }

    /// Nothing more is sent: the state is CLOSED, and what is held for sending goes back to the pools.
    pub fn end(&mut self, shared: &mut Shared) {
        self.state = State::Closed;
        self.drop_sent(shared);
        let wheel_ns = self.timers.wheel_ns;
        self.timers = Timers { wheel_ns, ..Timers::OFF };
        self.rcv.ack_now = false;
        self.syn_due = false;
    }

    fn drop_sent(&mut self, shared: &mut Shared) {
        self.snd.queue.clear(&mut shared.blocks);
        self.snd.flight.clear(&mut shared.records);
        self.snd.recovery.probe_due = false;
        self.probe_due = false;
    }

    /// Both sides have sent their FINs and ours is acknowledged (RFC 9293 3.6).
    pub fn enter_time_wait(&mut self, shared: &mut Shared, now_ns: u64) {
        self.state = State::TimeWait;
        self.drop_sent(shared);
        (self.timers.loss_ns, self.timers.probe_ns) = (NEVER, NEVER);
        self.timers.state_ns = now_ns + shared.config.time_wait_ns;
        shared.time_wait.push(self.index);
        self.tell(shared, Events::CLOSED);
    }

    /// A reset for this connection, to be sent as a reply.
    pub fn reset_peer(&self, shared: &mut Shared) {
        let flags = if self.state == State::SynSent { return } else { flag::RST | flag::ACK };
        let header = Header { seq: self.snd.nxt, ack: self.rcv.nxt, flags, window: 0, options: Options::default() };
        reply(shared, Reply { tuple: self.tuple, header, via: None });
    }

    /// Nobody wants this connection: reset.
    pub fn abandon(&mut self, shared: &mut Shared) {
        if !matches!(self.state, State::Closed | State::TimeWait) {
            self.reset_peer(shared);
        }
        self.rcv.queue.clear(&mut shared.blocks, &mut shared.ranges);
        self.end(shared);
    }

    /// Sees to it that the wheel calls no later than the earliest deadline.
    pub fn arm(&mut self, shared: &mut Shared, now_ns: u64) {
        let earliest_ns = self.timers.earliest_ns();
        if earliest_ns < self.timers.wheel_ns {
            // A deadline in the past would be handed out again in the same turn, for ever if nothing can be done about it now.
            self.timers.wheel_ns = earliest_ns.max(now_ns + 1);
            shared.wheel.schedule(self.index, self.timers.wheel_ns);
        }
    }

    /// The window to offer; moves the edge that was offered.
    pub fn offer_window(&mut self, shared: &Shared) -> u16 {
        self.rcv.edge = self.rcv.edge.max(self.rcv.nxt + self.space(shared));
        let window = self.rcv.edge.since(self.rcv.nxt);
        // Rounded up: rounding down would take back some of what was offered.
        let scaled = (window + (1 << self.rcv.scale) - 1) >> self.rcv.scale;
        scaled.min(0xffff) as u16
    }

    /// Bytes beyond `rcv.nxt` that there is room for.
    pub fn space(&self, shared: &Shared) -> u32 {
        if self.rcv.fin.is_some() && self.rcv.fin.is_some_and(|fin| fin.lt(self.rcv.nxt)) {
            return 0;
        }
        let limit = self.recv_limit(shared) as u32;
        let own = (limit as usize).saturating_sub(self.rcv.queue.readable());
        let field = 0xffff << self.rcv.scale;
        let space = (own.min(self.rcv.queue.room(&shared.blocks)) as u32).min(field);
        // RFC 9293 3.8.6.2.2: the window is opened by a full segment or half the buffer, not by crumbs.
        let offered = self.rcv.edge.since(self.rcv.nxt);
        let step = self.rcv.full.max(DEFAULT_MSS_V4.into()).min(limit / 2);
        if space < offered + step && space < limit { offered } else { space }
    }

    /// Options of a segment that is no SYN; SACK blocks come first only if `room` bytes allow. False: they did not fit.
    pub fn options(&self, shared: &Shared, now_ns: u64, room: usize) -> (Options, bool) {
        let mut options = Options::default();
        if self.timestamps {
            options.timestamps = Some((self.ts_at(now_ns), self.rcv.ts_recent));
        }
        if !self.sack || (self.rcv.duplicate.is_none() && self.rcv.queue.ranges().is_empty()) {
            return (options, true);
        }
        let mut sack = SackBlocks::default();
        if let Some((start, end)) = self.rcv.duplicate {
            sack.push(start, end);
        }
        self.rcv.queue.ranges().report(&shared.ranges, self.rcv.fin, &mut sack);
        let fits = 4 + 8 * sack.as_slice().len() <= room;
        if fits {
            options.sack = sack;
        }
        (options, fits)
    }
}

impl Sender {
    fn new(iss: Seq, algorithm: Algorithm, rto_min_ns: u64, rto_max_ns: u64) -> Self {
        let mss = u32::from(DEFAULT_MSS_V4);
        Self {
            iss,
            una: iss,
            nxt: iss,
            window: 0,
            window_max: 0,
            wl1: Seq(0),
            wl2: Seq(0),
            scale: 0,
            mss,
            queue: SendQueue::EMPTY,
            fin: Fin::No,
            flight: Flight::EMPTY,
            lone: false,
            rtt: Rtt::new(rto_min_ns, rto_max_ns),
            rack: Rack::new(iss + 1),
            recovery: Recovery::new(iss),
            congestion: Congestion::new(algorithm, u64::from(mss)),
            writer_waits: false,
            last_sent_ns: 0,
            retransmits: 0,
            rtos: 0,
            credit: 0,
            persists: 0,
        }
    }
}

impl Receiver {
    fn new(irs: Seq) -> Self {
        let mut receiver = Self {
            irs,
            nxt: irs,
            edge: irs,
            scale: 0,
            queue: RecvQueue::EMPTY,
            round: Round::default(),
            fin: None,
            ack_now: false,
            unacked: 0,
            quick_acks: QUICK_ACKS,
            full: 0,
            duplicate: None,
            ts_recent: 0,
            ts_recent_at_ns: 0,
            last_ack: irs,
            challenged_ns: 0,
        };
        receiver.start(irs);
        receiver
    }

    fn start(&mut self, irs: Seq) {
        self.irs = irs;
        (self.nxt, self.edge, self.last_ack) = (irs + 1, irs + 1, irs + 1);
    }
}

/// A segment without a connection of its own; dropped and counted when there are too many.
pub(super) fn reply(shared: &mut Shared, reply: Reply) {
    if !shared.replies.push(reply) {
        shared.counters.tx_replies_dropped += 1;
    }
}

/// What our SYN says of the segments that we take.
pub(super) fn own_mss(mtu_bytes: usize, v4: bool) -> u16 {
    mtu_bytes.saturating_sub(if v4 { 40 } else { 60 }).clamp(MIN_MSS as usize, 0xffff) as u16
}

/// The smallest shift with which the buffer fits into the field of the window.
pub(super) fn window_scale(buffer_bytes: usize) -> u8 {
    (0..14).find(|shift| buffer_bytes >> shift <= 0xffff).unwrap_or(14)
}
