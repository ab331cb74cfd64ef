//! What passes between the control core and an engine core.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use pacing::cpu::{Cost, Work};
use pacing::period::Period;

use super::modules::AnyPair;
use super::transfers::TransferReport;
use crate::delivery::{StartPlan, TrackSenderStatus};
use crate::disks::{DEVICES_MAX, DeviceReport, DiskCounters};
use crate::gdsl::{GdslCounters, Lateness, Outcome};
use crate::ingest::{Described, Ingest};
use crate::rtp::sender::Reception;
use stack::host::{HostCounters, Layers};

use super::channel::{Channel, ChannelReport};

/// Tracks of one session at most.
pub const TRACKS_MAX: usize = 8;

/// The pair of modules of a track.
pub type TrackPair<F> = AnyPair<F>;

/// How a track goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RTP over UDP.
    Udp {
        /// Where RTP goes.
        rtp: SocketAddr,
        /// Where RTCP goes.
        rtcp: SocketAddr,
        /// Which of our addresses it comes from.
        local: Option<IpAddr>,
    },
    /// Interleaved in a byte stream that was attached.
    Stream {
        /// The stream's token.
        token: u64,
        /// Channel of RTP.
        rtp_channel: u8,
        /// Channel of RTCP.
        rtcp_channel: u8,
    },
}

/// A track, ready to be delivered.
#[derive(Debug)]
pub struct TrackSetup<F> {
    /// The container's track id.
    pub track_id: u32,
    /// Where it goes.
    pub transport: Transport,
    /// Its modules and its link.
    pub pair: Box<TrackPair<F>>,
    /// Work that it has reserved time for; none for best-effort ones, and where another track has reserved for the whole session.
    pub work: Work,
}

/// A wish of the control core. `reply` comes back in [`Event::Reply`].
#[derive(Debug)]
pub enum Command<S, F> {
    /// Take over the sending side of a byte stream under a token of the control core's choice.
    AttachStream {
        /// Reply number.
        reply: u64,
        /// Name of the stream from now on.
        token: u64,
        /// The stream.
        stream: S,
    },
    /// Queue bytes on a stream; when they do not fit the stream is given up.
    StreamWrite {
        /// The stream.
        token: u64,
        /// What to write.
        bytes: Bytes,
    },
    /// An interleaved frame that the client sent.
    StreamInput {
        /// The stream.
        token: u64,
        /// Its channel.
        channel: u8,
        /// Its payload.
        bytes: Bytes,
    },
    /// The stream's connection is gone.
    DetachStream {
        /// The stream.
        token: u64,
    },
    /// Add a track to a session; the first one makes the session.
    SetupTrack {
        /// Reply number.
        reply: u64,
        /// The session.
        session: u64,
        /// The track.
        setup: Box<TrackSetup<F>>,
    },
    /// Prepare delivery; without a plan, from where it stopped.
    Start {
        /// Reply number.
        reply: u64,
        /// The session.
        session: u64,
        /// Where each track starts; its order is that of the set-ups.
        plan: Option<Box<StartPlan>>,
    },
    /// Start what was prepared.
    Run {
        /// Reply number.
        reply: u64,
        /// The session.
        session: u64,
    },
    /// Stop delivery, keep the position.
    Stop {
        /// Reply number.
        reply: u64,
        /// The session.
        session: u64,
    },
    /// BYE, and free everything.
    Destroy {
        /// Reply number.
        reply: u64,
        /// The session.
        session: u64,
    },
    /// Fill in the report.
    SessionStatus {
        /// Reply number.
        reply: u64,
        /// The session.
        session: u64,
        /// To be filled in and returned.
        report: Box<SessionReport>,
    },
    /// Fill in the report.
    CoreStatus {
        /// Reply number.
        reply: u64,
        /// To be filled in and returned.
        report: Box<CoreReport>,
    },
    /// Take over a channel: its tapes and what fills them.
    OpenChannel {
        /// Reply number.
        reply: u64,
        /// The channel.
        channel: Box<Channel>,
    },
    /// A channel whose sender was lost is filled by this from now on.
    ResumeChannel {
        /// Reply number.
        reply: u64,
        /// The channel.
        channel: u64,
        /// What fills it, for the same tracks.
        ingest: Box<Ingest>,
    },
    /// What arrives from there is the channel's track.
    SetupIngest {
        /// Reply number.
        reply: u64,
        /// The channel.
        channel: u64,
        /// Position of the track.
        track: usize,
        /// Where it arrives from.
        transport: Transport,
    },
    /// Receive at another UDP address.
    Listen {
        /// Reply number.
        reply: u64,
        /// The address, or a multicast group.
        addr: SocketAddr,
    },
    /// What arrives at such a port is a channel's.
    RoutePort {
        /// Reply number.
        reply: u64,
        /// The port's number.
        port: u8,
        /// The channel.
        channel: u64,
    },
    /// The channel's sender goes: what is held is held, the rest ends.
    LoseChannel {
        /// Reply number.
        reply: u64,
        /// The channel.
        channel: u64,
    },
    /// Forget the channel; its viewers' deliveries end with what they have.
    CloseChannel {
        /// Reply number.
        reply: u64,
        /// The channel.
        channel: u64,
    },
    /// Fill in the report.
    ChannelStatus {
        /// Reply number.
        reply: u64,
        /// The channel.
        channel: u64,
        /// To be filled in and returned.
        report: Box<ChannelReport>,
    },
    /// Begin to copy or record into a file.
    StartTransfer {
        /// Reply number.
        reply: u64,
        /// Name of the transfer from now on, of the control core's choice.
        transfer: u64,
        /// Its modules and their links: one pair, or, of a recording, one for each track of the channel.
        pairs: Vec<Box<AnyPair<F>>>,
    },
    /// What is live by now is recorded, and nothing more; [`Event::TransferOver`] follows for each pair.
    EndRecording {
        /// Reply number.
        reply: u64,
        /// The transfer.
        transfer: u64,
    },
    /// End a transfer, whether it came to its end or not. [`Event::TransferGone`] follows when nothing of it is under way any more.
    StopTransfer {
        /// Reply number.
        reply: u64,
        /// The transfer.
        transfer: u64,
    },
    /// How far a transfer is.
    TransferStatus {
        /// Reply number.
        reply: u64,
        /// The transfer.
        transfer: u64,
    },
    /// BYE to every session, then end.
    Shutdown,
}

/// Why an engine core refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such session.
    #[error("no such session")]
    NoSession,
    /// No such stream.
    #[error("no such stream")]
    NoStream,
    /// No such channel, or no such track of it.
    #[error("the channel is not live any more")]
    NoChannel,
    /// No such transfer.
    #[error("no such transfer")]
    NoTransfer,
    /// Nothing of the channel is there that a recording could begin with.
    #[error("the live stream has not sent a key frame yet: try again in a moment")]
    NoKeyFrame,
    /// A table is full.
    #[error("the engine core's tables are full")]
    Full,
    /// The session has no track, or is not in a state for this.
    #[error("not valid in the session's state")]
    State,
    /// The address is not ours, or in use.
    #[error("cannot listen there: the address is not ours, or the port is in use (by another program, another source, or as --rtp-port)")]
    Listen,
    /// The network has no address of that family.
    #[error("cannot listen there: we have no address of that family (--ip)")]
    Family,
    /// The interface does not let it in.
    #[error("the interface cannot let in what is sent to that address: is it up, and has it multicast (`ip link`)?")]
    Device,
    /// The network of this engine core has no further ports.
    #[error("this network cannot receive at further ports")]
    CannotListen,
    /// The client's address cannot be reached from here.
    #[error("the client's address cannot be reached from here")]
    Unreachable,
}

/// Where a track's RTP will start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartedTrack {
    /// The container's track id.
    pub track_id: u32,
    /// Sequence number of the first packet.
    pub seq: u16,
    /// RTP time at the start of the range.
    pub rtptime: u32,
}

/// Answer to a command.
#[derive(Debug)]
pub enum Reply {
    /// Done.
    Done,
    /// Not done.
    Refused(Refusal),
    /// Prepared.
    Started {
        /// Presentation time at which it starts, nanoseconds.
        from_ns: u64,
        /// Presentation time at which it ends, nanoseconds.
        to_ns: u64,
        /// The tracks in set-up order; unused entries have track id 0.
        tracks: [StartedTrack; TRACKS_MAX],
        /// How many there are.
        count: usize,
    },
    /// Stopped at this presentation time, nanoseconds.
    Stopped {
        /// The position.
        position_ns: u64,
    },
    /// A session's report.
    Session(Box<SessionReport>),
    /// The core's report.
    Core(Box<CoreReport>),
    /// A channel's report.
    Channel(Box<ChannelReport>),
    /// The number of the port that is listened at.
    Listening(u8),
    /// A transfer's report.
    Transfer(TransferReport),
}

/// What an engine core tells the control core.
#[derive(Debug)]
pub enum Event<F> {
    /// Answer to the command with this reply number.
    Reply {
        /// The number.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// A session came to the end of its range, or cannot go on.
    Finished {
        /// The session.
        session: u64,
        /// How it ended.
        outcome: Outcome,
    },
    /// A channel's sender is gone.
    ChannelLost {
        /// The channel.
        channel: u64,
        /// Why.
        why: &'static str,
    },
    /// A channel's sender has told for the first time, or told anew, how its tracks are coded.
    ChannelDescribed {
        /// The channel.
        channel: u64,
        /// What it told.
        described: Box<Described>,
    },
    /// A channel that was closed or refused, to be freed by whoever reads this.
    DiscardChannel(Box<Channel>),
    /// What filled a channel, to be freed by whoever reads this.
    DiscardIngest(Box<Ingest>),
    /// A report that was not filled in, to be freed by whoever reads this.
    DiscardReport(Box<ChannelReport>),
    /// A byte stream was given up because it took no more.
    StreamClosed {
        /// The stream.
        token: u64,
    },
    /// A pair of a transfer came to its end, or cannot go on; it stays until the transfer is stopped.
    TransferOver {
        /// The transfer.
        transfer: u64,
        /// How far the transfer came, and how it ended so far.
        report: TransferReport,
    },
    /// A transfer was stopped; the engine core has let go of its files.
    TransferGone {
        /// The transfer.
        transfer: u64,
    },
    /// A delivery's boxes, to be freed by whoever reads this.
    Discard(Box<TrackPair<F>>),
    /// What a transfer's boxes came in, with those that were refused, to be freed by whoever reads this.
    DiscardAll(Vec<Box<AnyPair<F>>>),
    /// A set-up that was refused, to be freed by whoever reads this.
    DiscardSetup(Box<TrackSetup<F>>),
    /// A plan that was used, to be freed by whoever reads this.
    DiscardPlan(Box<StartPlan>),
    /// The core ended; nothing follows.
    Stopped,
}

/// What a session does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Set up.
    #[default]
    Ready,
    /// Prepared or being delivered.
    Playing,
    /// Stopped by command.
    Paused,
    /// Delivered to its end.
    Ended,
    /// Given up.
    Failed(&'static str),
}

/// Delivery state of a track.
#[derive(Clone, Debug, Default)]
pub struct TrackReport {
    /// The container's track id.
    pub track_id: u32,
    /// RTP synchronisation source.
    pub ssrc: u32,
    /// What was sent.
    pub sent: TrackSenderStatus,
    /// What the client last reported.
    pub reception: Option<Reception>,
    /// CNAME of the client.
    pub client_cname: Option<String>,
}

/// Delivery state of a session; made by the control core, filled in by the engine core.
#[derive(Debug, Default)]
pub struct SessionReport {
    /// What it does.
    pub state: State,
    /// Presentation time reached, nanoseconds.
    pub position_ns: u64,
    /// When the client last showed by RTCP that it lives: age in nanoseconds.
    pub last_rtcp_age_ns: Option<u64>,
    /// Lateness of all its tracks' packets.
    pub lateness: Lateness,
    /// Tracks; `count` entries are filled in.
    pub tracks: [TrackReport; TRACKS_MAX],
    /// How many there are.
    pub count: usize,
}

/// Monitor data of a core; made by the control core, filled in by the engine core.
#[derive(Debug, Default)]
pub struct CoreReport {
    /// Time since the report before this one, nanoseconds.
    pub interval_ns: u64,
    /// Of this, time in turns that had work.
    pub busy_ns: u64,
    /// Bytes of RTP sent in the interval.
    pub interval_bytes: u64,
    /// Sessions.
    pub sessions: u32,
    /// Of these, playing.
    pub playing: u32,
    /// Executor.
    pub gdsl: GdslCounters,
    /// Host.
    pub host: HostCounters,
    /// Layers of our own stack.
    pub layers: Option<Layers>,
    /// Disk.
    pub disk: DiskCounters,
    /// Chunks free.
    pub chunks_free: usize,
    /// What work costs here.
    pub cost: Cost,
    /// Who has its time.
    pub period: Option<Period>,
    /// What each device did; `device_count` entries are filled in.
    pub devices: [DeviceReport; DEVICES_MAX],
    /// How many there are.
    pub device_count: usize,
    /// Lateness of all packets since start.
    pub lateness: Lateness,
    /// Clients behind NAT that were followed.
    pub flows_followed: u64,
    /// RTCP packets that belonged to no session or did not parse.
    pub rtcp_ignored: u64,
}
