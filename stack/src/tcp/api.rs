//! What the users of [`Tcp`](super::Tcp) see: names of connections, configuration, errors, readiness, counters, and the layer below.

use std::net::{IpAddr, SocketAddr};

use super::congestion::Algorithm;

/// Nanoseconds in a millisecond.
pub(super) const MS: u64 = 1_000_000;

/// Where a frame came from on the link.
pub type LinkAddress = [u8; 6];

/// What TCP needs of the layer below to send.
pub trait SegmentOut {
    /// Length of the interface queue: frames that the port has accepted and not completed.
    fn queued(&self) -> usize;

    /// Sends one segment of `len` bytes (TCP header and payload). `fill` writes all of them, the checksum included (TCP knows the pseudo
    /// header). On anything but [`SendOutcome::Sent`] nothing went out, and the connection is as it was before.
    fn segment(&mut self, local: IpAddr, remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome;

    /// The same for the answer to a segment of somebody who has proved nothing yet. It may go back to where that came from on the link
    /// (`via`), so that nobody has to be looked up, or wait, for a stranger's sake.
    fn answer(&mut self, via: LinkAddress, local: IpAddr, remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let _ = via;
        self.segment(local, remote, len, fill)
    }
}

/// What became of a segment that was handed to the layer below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is in the interface queue.
    Sent,
    /// No frame was free: again after completions.
    Full,
    /// The neighbour's address is being looked up: again in a moment.
    Unresolved,
    /// There is no route to the remote address.
    NoRoute,
}

/// Names a connection. A name stays unique: when its connection is gone, calls with it answer [`TcpError::NoConnection`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl ConnId {
    /// The connection's place in tables of [`TcpConfig::connections_max`] entries; used again when the connection is gone.
    pub fn index(self) -> usize {
        self.index as usize
    }
}

/// Names a listener; like [`ConnId`], it is never used for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// The limit of the interface queue that TCP keeps to (IFQ limiting).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfqLimit {
    /// No limit: segments are handed down as long as a frame is free.
    Off,
    /// No segment with payload is handed down while this many frames are queued.
    Fixed(usize),
    /// The smallest limit that keeps the link busy, between the two bounds (see [`super::ifq`]).
    Adaptive {
        /// Lower bound, in frames.
        min: usize,
        /// Upper bound, in frames.
        max: usize,
    },
}

/// Sizes and habits of one engine core's TCP. Everything is allocated by [`Tcp::new`](super::Tcp::new) and never grows.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// Connections in all states, TIME-WAIT included.
    pub connections_max: usize,
    /// Listeners.
    pub listeners_max: usize,
    /// Bytes of the largest IP packet that the link carries.
    pub mtu_bytes: usize,
    /// Bytes of payload that one connection may hold queued for sending, acknowledged ones not counted, whatever others hold.
    pub send_buffer_bytes: usize,
    /// Bytes of payload that one connection may hold for its reader, gaps included, whatever others hold: the window that is offered first.
    pub recv_buffer_bytes: usize,
    /// To how many bytes each of the two grows when the path holds more and more than half of the pool is free; no growth if that is less
    /// than the two.
    pub buffer_bytes_max: usize,
    /// Bytes of payload that all connections together may hold, in both directions.
    pub pool_bytes: usize,
    /// Segments in flight of all connections together.
    pub segments_max: usize,
    /// Bound of the interface queue.
    pub ifq_limit: IfqLimit,
    /// Segments with payload that a connection sends in a row before the next one in the ring has its turn.
    pub quantum: u32,
    /// Congestion control of new connections.
    pub congestion: Algorithm,
    /// Lower bound of the retransmission timeout (RFC 6298 says 1 s, and everybody uses 200 ms).
    pub rto_min_ns: u64,
    /// Upper bound of the retransmission timeout (RFC 6298 2.5).
    pub rto_max_ns: u64,
    /// How long an acknowledgment may be held back (RFC 9293 3.8.6.3: less than 500 ms).
    pub delayed_ack_ns: u64,
    /// How long an established connection goes on without progress before it is given up (RFC 9293 3.8.3, R2).
    pub user_timeout_ns: u64,
    /// The same for a connection that is not yet established.
    pub connect_timeout_ns: u64,
    /// Twice the maximum segment lifetime: how long TIME-WAIT lasts.
    pub time_wait_ns: u64,
    /// How long a connection that nobody holds any more waits for the peer's FIN.
    pub fin_wait_ns: u64,
    /// Connections in TIME-WAIT; beyond that the oldest is dropped.
    pub time_wait_max: usize,
    /// Challenge ACKs of one connection are at least this far apart (RFC 5961 7).
    pub challenge_interval_ns: u64,
    /// False when the layer below has verified checksums of received segments.
    pub verify_checksums: bool,
    /// Ports that [`Tcp::connect`](super::Tcp::connect) chooses from, first and last.
    pub ephemeral_ports: (u16, u16),
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            listeners_max: 16,
            mtu_bytes: 1500,
            send_buffer_bytes: 512 * 1024,
            recv_buffer_bytes: 512 * 1024,
            buffer_bytes_max: 2 * 1024 * 1024,
            pool_bytes: 64 * 1024 * 1024,
            segments_max: 65_536,
            ifq_limit: IfqLimit::Adaptive { min: 4, max: 1024 },
            quantum: 4,
            congestion: Algorithm::Cubic,
            rto_min_ns: 200 * MS,
            rto_max_ns: 60_000 * MS,
            delayed_ack_ns: 40 * MS,
            user_timeout_ns: 120_000 * MS,
            connect_timeout_ns: 30_000 * MS,
            time_wait_ns: 60_000 * MS,
            fin_wait_ns: 60_000 * MS,
            time_wait_max: 512,
            challenge_interval_ns: 100 * MS,
            verify_checksums: true,
            ephemeral_ports: (32_768, 60_999),
        }
    }
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TcpError {
    /// The name is of a connection or listener that is gone.
    #[error("no such connection")]
    NoConnection,
    /// All of [`TcpConfig::connections_max`] (or `listeners_max`) are in use.
    #[error("all connections are in use (connections_max, listeners_max)")]
    TooMany,
    /// The local address, or the pair of addresses, is taken, or no ephemeral port is free.
    #[error("the address is in use")]
    AddressInUse,
    /// One address is IPv4 and the other IPv6, or an address or port is zero where it cannot be.
    #[error("not an address that a connection can have")]
    BadAddress,
    /// The connection is not established yet.
    #[error("the connection is not established yet")]
    NotConnected,
    /// This side has shut its direction down, or the connection is over: nothing more can be sent.
    #[error("the connection is closed for sending")]
    Closed,
    /// The peer has reset the connection.
    #[error("the connection was reset by the peer")]
    Reset,
    /// The peer refused the connection.
    #[error("the connection was refused")]
    Refused,
    /// The peer did not answer for too long.
    #[error("the connection timed out")]
    TimedOut,
    /// The network says that the peer cannot be reached.
    #[error("the peer cannot be reached")]
    Unreachable,
}

/// An option of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption {
    /// True: small segments go out at once (`TCP_NODELAY`). False, the default: Nagle's algorithm (RFC 9293 3.7.4).
    NoDelay(bool),
    /// Probes an idle connection (RFC 9293 3.8.4); off by default.
    KeepAlive(Option<KeepAlive>),
    /// In place of [`TcpConfig::user_timeout_ns`].
    UserTimeoutNs(u64),
}

/// When and how an idle connection is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Idle time before the first probe, at least a millisecond.
    pub idle_ns: u64,
    /// Time between probes, at least a millisecond.
    pub interval_ns: u64,
    /// Probes without an answer after which the connection is given up.
    pub probes: u8,
}

/// What has become true of a connection since it was last reported. A report is a hint, given at least once; the calls tell the truth.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Events(pub(super) u8);

impl Events {
    /// The handshake is done: data flows.
    pub const CONNECTED: Self = Self(1);
    /// There is data to receive.
    pub const READABLE: Self = Self(2);
    /// There is room again, after a `send` that took less than it was given.
    pub const WRITABLE: Self = Self(4);
    /// The peer has shut its direction down: after what is queued, `recv` answers 0.
    pub const PEER_CLOSED: Self = Self(8);
    /// Both directions are shut down and all that was sent is acknowledged.
    pub const CLOSED: Self = Self(16);
    /// The connection is over before its time: `recv` and `send` say why.
    pub const FAILED: Self = Self(32);

    /// True when one of `events` is among these.
    pub fn any(self, events: Self) -> bool {
        self.0 & events.0 != 0
    }

    pub(super) fn add(&mut self, events: Self) {
        self.0 |= events.0;
    }
}

impl std::ops::BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [
            (Self::CONNECTED, "connected"),
            (Self::READABLE, "readable"),
            (Self::WRITABLE, "writable"),
            (Self::PEER_CLOSED, "peer closed"),
            (Self::CLOSED, "closed"),
            (Self::FAILED, "failed"),
        ];
        f.debug_set().entries(names.iter().filter(|(event, _)| self.any(*event)).map(|(_, name)| name)).finish()
    }
}

/// State of a connection (RFC 9293 3.3.2; LISTEN is a [`ListenerId`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
    Closed,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub struct ConnInfo {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// State.
    pub state: State,
    /// Bytes of payload in a full segment.
    pub mss_bytes: usize,
    /// Congestion window.
    pub cwnd_bytes: u64,
    /// Slow start threshold; `u64::MAX` before the first loss.
    pub ssthresh_bytes: u64,
    /// Bytes believed to be in the network.
    pub in_flight_bytes: u64,
    /// Smoothed round-trip time, 0 before the first measurement.
    pub srtt_ns: u64,
    /// Smallest round-trip time of late, 0 before the first measurement.
    pub min_rtt_ns: u64,
    /// Retransmission timeout without backoff.
    pub rto_ns: u64,
    /// The peer's window.
    pub send_window_bytes: u64,
    /// Bytes queued for sending that are not acknowledged.
    pub send_queued_bytes: usize,
    /// Bytes that wait for the reader.
    pub recv_queued_bytes: usize,
    /// Segments sent again.
    pub retransmits: u32,
    /// Retransmission timeouts.
    pub rtos: u32,
    /// True while segments wait for the interface queue to become shorter.
    pub waits_for_ifq: bool,
}

/// An ICMP error about a segment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Host or network unreachable, time exceeded: may pass (a soft error, RFC 5927 5).
    Unreachable,
    /// Port or protocol unreachable, administratively prohibited: ends a connection attempt, nothing else (RFC 5927 5.2).
    Refused,
    /// Fragmentation needed, or packet too big.
    PacketTooBig {
        /// Bytes of the largest IP packet that gets through.
        mtu_bytes: usize,
    },
}

/// Counters of one core's TCP since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Segments received.
    pub rx_segments: u64,
    /// Bytes of payload received in order, each counted once.
    pub rx_bytes: u64,
    /// Segments that were not TCP: too short, a bad header length, a bad checksum.
    pub rx_malformed: u64,
    /// Segments outside of the window, or too old by their timestamp.
    pub rx_out_of_window: u64,
    /// Segments that arrived out of order and were kept.
    pub rx_out_of_order: u64,
    /// Segments with payload that could not be kept: the pool was empty, or there were too many gaps.
    pub rx_no_room: u64,
    /// Segments sent.
    pub tx_segments: u64,
    /// Bytes of payload sent for the first time.
    pub tx_bytes: u64,
    /// Segments with payload or FIN sent again.
    pub tx_retransmits: u64,
    /// Tail loss probes sent (RFC 8985 7).
    pub tx_probes: u64,
    /// Resets sent.
    pub tx_resets: u64,
    /// Challenge ACKs sent (RFC 5961).
    pub tx_challenges: u64,
    /// Replies to segments without a connection that found the table of such replies full.
    pub tx_replies_dropped: u64,
    /// Times that loss was found and the congestion window reduced.
    pub recoveries: u64,
    /// Retransmission timeouts.
    pub rtos: u64,
    /// Recoveries and timeouts that turned out to be unneeded (RFC 3522) and were undone.
    pub undone: u64,
    /// Times a connection had to wait because the interface queue was at its limit.
    pub ifq_waits: u64,
    /// Times the port had no frame free.
    pub port_full: u64,
    /// Handshakes completed.
    pub established: u64,
    /// SYN cookies sent.
    pub cookies_sent: u64,
    /// Connections made from a SYN cookie.
    pub cookies_accepted: u64,
    /// Connections dropped from TIME-WAIT before their time, for want of room.
    pub time_wait_dropped: u64,
}

/// Memory of one core's TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of a connection at rest: its place, and its share of the table, the rings and the wheel.
    pub per_connection_bytes: usize,
    /// Bytes of the pool for payload.
    pub payload_bytes: usize,
    /// Bytes of it that are free.
    pub payload_free_bytes: usize,
    /// Bytes for segments in flight, and for those that arrived out of order.
    pub segments_bytes: usize,
    /// Connections in all states, those that are over and not given back included.
    pub connections: usize,
}
