//! TCP: a sans-I/O state machine for all connections and listeners of one engine core.
//!
//! ```text
//! ingress(now, src, dst, segment)    takes what has arrived; answers nothing, notes what is to be said
//! egress(now, out)                   timers, acknowledgments, data; to be called in each turn of the core
//! next_ns()                          when egress has to be called again at the latest, completions and ingress apart
//! ```

mod api;
mod congestion;

pub use api::{
    ConnId, ConnInfo, Events, IcmpError, IfqLimit, KeepAlive, ListenerId, SegmentOut, SendOutcome, State, TcpConfig, TcpCounters, TcpError,
    TcpOption,
};
pub use congestion::Algorithm;

use std::net::{IpAddr, SocketAddr};

/// All connections and listeners of one engine core.
#[derive(Debug)]
pub struct Tcp {
    config: TcpConfig,
    counters: TcpCounters,
}

impl Tcp {
    /// Allocates everything. `seed` is the source of the keys of initial sequence numbers, table hashes, cookies and ports: secret and
    /// random in earnest, chosen in tests.
    pub fn new(config: TcpConfig, seed: u64, now_ns: u64) -> Self {
        let _ = (seed, now_ns);
        Self { config, counters: TcpCounters::default() }
    }

    /// Waits for connections to `local`; an unspecified address is any. `backlog` bounds the handshakes under way and the connections
    /// not yet accepted; beyond that SYN cookies are sent.
    pub fn listen(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, TcpError> {
        let _ = (local, backlog, &self.config);
        Err(TcpError::TooMany)
    }

    /// Ends a listener. Connections that were accepted live on, the others are reset.
    pub fn unlisten(&mut self, listener: ListenerId) {
        let _ = listener;
    }

    /// Opens a connection. Port 0 of `local` is chosen here (RFC 6056).
    pub fn connect(&mut self, now_ns: u64, local: SocketAddr, remote: SocketAddr) -> Result<ConnId, TcpError> {
        let _ = (now_ns, local, remote);
        Err(TcpError::TooMany)
    }

    /// The next established connection of a listener.
    pub fn accept(&mut self, listener: ListenerId) -> Option<ConnId> {
        let _ = listener;
        None
    }

    /// Queues as much of `parts`, one after the other, as there is room for, and answers how many bytes that is. When it is less than all,
    /// [`Events::WRITABLE`] tells of new room.
    pub fn send(&mut self, conn: ConnId, parts: &[&[u8]]) -> Result<usize, TcpError> {
        let _ = (conn, parts);
        Err(TcpError::NoConnection)
    }

    /// Queues all of `parts` or nothing (false): for messages that must not be cut.
    pub fn send_all(&mut self, conn: ConnId, parts: &[&[u8]]) -> Result<bool, TcpError> {
        let _ = (conn, parts);
        Err(TcpError::NoConnection)
    }

    /// Bytes that `send` would take now; 0 for a connection that is gone or closed for sending.
    pub fn send_room(&self, conn: ConnId) -> usize {
        let _ = conn;
        0
    }

    /// Bytes queued for sending that are not acknowledged.
    pub fn send_queued_bytes(&self, conn: ConnId) -> usize {
        let _ = conn;
        0
    }

    /// Takes received bytes. `Ok(0)` for a `buf` that is not empty: the peer has shut its direction down and everything was taken.
    /// `Ok(None)`: nothing there yet.
    pub fn recv(&mut self, conn: ConnId, buf: &mut [u8]) -> Result<Option<usize>, TcpError> {
        let _ = (conn, buf);
        Err(TcpError::NoConnection)
    }

    /// Shuts our direction down: FIN follows what is queued. Receiving goes on.
    pub fn shutdown(&mut self, conn: ConnId) -> Result<(), TcpError> {
        let _ = conn;
        Err(TcpError::NoConnection)
    }

    /// Gives the name back: what is queued is sent, then FIN; the rest happens unseen. With unread data, or when more arrives, the peer gets a
    /// reset (RFC 2525 2.17).
    pub fn close(&mut self, conn: ConnId) {
        let _ = conn;
    }

    /// Resets the connection and gives the name back.
    pub fn abort(&mut self, conn: ConnId) {
        let _ = conn;
    }

    /// Sets an option.
    pub fn set_option(&mut self, conn: ConnId, option: TcpOption) -> Result<(), TcpError> {
        let _ = (conn, option);
        Err(TcpError::NoConnection)
    }

    /// What is known of a connection.
    pub fn info(&self, conn: ConnId) -> Option<ConnInfo> {
        let _ = conn;
        None
    }

    /// Takes a segment from `src` to `dst` (one of our unicast addresses). Sends nothing.
    pub fn ingress(&mut self, now_ns: u64, src: IpAddr, dst: IpAddr, segment: &[u8]) {
        let _ = (now_ns, src, dst, segment);
    }

    /// Takes an ICMP error about a segment of ours from `local` to `remote`; `header` are the bytes of that segment that came with it, at
    /// least 8 (ports and sequence number). Believed only if the sequence number is in flight (RFC 5927 4.1).
    pub fn icmp_error(&mut self, now_ns: u64, local: IpAddr, remote: IpAddr, header: &[u8], error: IcmpError) {
        let _ = (now_ns, local, remote, header, error);
    }

    /// Runs timers and sends what is to be sent. Returns how many segments went out.
    pub fn egress(&mut self, now_ns: u64, out: &mut impl SegmentOut) -> usize {
        let _ = (now_ns, out);
        0
    }

    /// When [`Tcp::egress`] has to be called at the latest. Besides, it wants a call in each turn in which something arrived, a call was
    /// made, or frames were completed.
    pub fn next_ns(&self) -> Option<u64> {
        None
    }

    /// The next connection of which something is to be told. Bounded by the number of connections: what happens again before it is taken is
    /// told once.
    pub fn next_event(&mut self) -> Option<(ConnId, Events)> {
        None
    }

    /// The next listener with a connection to accept; told once for each time its queue went from empty to not empty.
    pub fn next_acceptable(&mut self) -> Option<ListenerId> {
        None
    }

    /// Counters since start.
    pub fn counters(&self) -> TcpCounters {
        self.counters
    }
}
