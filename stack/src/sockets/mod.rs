//! The socket layer between cores: programs on the control core use connections that an engine core's [`Tcp`](crate::tcp::Tcp) has.
//!
//! ```text
//! control core                                             engine core
//! Listener, Stream  ── Call ──────────────────────────►  EngineSockets ─► Tcp
//!        ▲                                                      │
//!        └── wakers ◄── Sockets::dispatch ◄── Notice ───────────┘
//! ```
//!
//! Calls and notices are plain data: numbers, addresses, and bytes in counted chunks, so that the same layer can be spoken over a network
//! (SYSTEMS: SAPS, the transfer protocol). Nobody has a thread per socket: who waits leaves a [`std::task::Waker`].
//!
//! Flow is controlled by stop and go in both directions. The control side may have [`CHUNKS_OUT_MAX`] chunks of a connection under way
//! to the engine, which gives them back one by one as TCP takes them; the engine side may have [`BYTES_IN_MAX`] bytes of a connection
//! under way to the control core, and leaves what is beyond in TCP's own buffer, where it closes the peer's window. So both rings and all
//! memory are bounded, and one connection that is not read holds up no other.
//!
//! All work of the engine side is done in [`EngineSockets::turn`], a bounded number of calls and notices each.

mod control;
mod engine;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam_channel::bounded;
use hugepages::{ArenaError, ChunkPool, Slice};

pub use control::{Aborter, Listener, Sockets, Stream};
pub use engine::EngineSockets;

use crate::tcp::{ConnId, ListenerId, TcpError, TcpOption};

/// Bytes of a chunk that carries data between the cores.
pub const CHUNK_BYTES: usize = 4096;
/// Chunks of one connection that the control core may have under way.
pub const CHUNKS_OUT_MAX: usize = 8;
/// Received bytes of one connection that may be under way to the control core, or wait there.
pub const BYTES_IN_MAX: usize = 32 * 1024;

/// What a program asks of the engine core.
#[derive(Debug)]
pub enum Call {
    /// Wait for connections; answered by [`Notice::Listening`].
    Listen {
        /// Comes back in the answer.
        request: u32,
        /// Where; an unspecified address is any of ours.
        local: SocketAddr,
        /// Connections that may wait to be accepted.
        backlog: usize,
    },
    /// Wait no longer.
    Unlisten(ListenerId),
    /// Open a connection; answered by [`Notice::Connected`] or [`Notice::Refused`].
    Connect {
        /// Comes back in the answer.
        request: u32,
        /// From where; port 0 is any.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
    },
    /// Send these bytes; [`Notice::Taken`] follows when TCP has them.
    Send(ConnId, Slice),
    /// So many received bytes were read: as many more may come.
    Read(ConnId, u32),
    /// Nothing more will be sent.
    Shutdown(ConnId),
    /// Set an option.
    SetOption(ConnId, TcpOption),
    /// The program lets go of the connection; what it has sent is delivered.
    Close(ConnId),
    /// Reset the connection.
    Abort(ConnId),
}

/// What the engine core tells.
#[derive(Debug)]
pub enum Notice {
    /// Answer to [`Call::Listen`].
    Listening {
        /// That of the call.
        request: u32,
        /// The listener, or why there is none.
        outcome: Result<ListenerId, TcpError>,
    },
    /// A listener has a new connection.
    Accepted {
        /// The listener.
        listener: ListenerId,
        /// The connection.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// The connection asked for is established.
    Connected {
        /// That of the call.
        request: u32,
        /// The connection.
        conn: ConnId,
        /// Our end.
        local: SocketAddr,
        /// The peer's end.
        remote: SocketAddr,
    },
    /// The connection asked for could not be made.
    Refused {
        /// That of the call.
        request: u32,
        /// Why.
        why: TcpError,
    },
    /// Received bytes, in order.
    Data(ConnId, Slice),
    /// The peer sends nothing more.
    EndOfData(ConnId),
    /// So many chunks were taken by TCP: as many more may be sent.
    Taken(ConnId, u32),
    /// The connection is over before its time.
    Failed(ConnId, TcpError),
}

/// Sizes of a socket layer; everything is allocated at start.
#[derive(Clone, Copy, Debug)]
pub struct SocketsConfig {
    /// Connections that TCP may have ([`TcpConfig::connections_max`](crate::tcp::TcpConfig::connections_max)).
    pub connections_max: usize,
    /// Calls and notices that may be under way, in each direction.
    pub ring: usize,
    /// Chunks for all connections, in each direction.
    pub chunks: usize,
}

impl Default for SocketsConfig {
    fn default() -> Self {
        Self { connections_max: 1024, ring: 1024, chunks: 1024 }
    }
}

/// Tells the control core that there are notices, at most once until it has looked.
#[derive(Clone)]
struct Doorbell {
    sleeps: Arc<AtomicBool>,
    ring: Arc<dyn Fn() + Send + Sync>,
}

impl Doorbell {
    /// Of the control core: from now on it wants to be told. What it looks at after this call cannot be missed.
    fn arm(&self) {
        self.sleeps.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`: either the notice is seen, or the arm is.
        fence(Ordering::SeqCst);
    }

    /// Of the engine core, after it has put notices into the ring.
    fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            (self.ring)();
        }
    }
}

impl std::fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Doorbell(sleeps: {})", self.sleeps.load(Ordering::Relaxed))
    }
}

/// Both halves of a socket layer. `told` is called, on the engine core, when there is something to [dispatch](Sockets::dispatch) and
/// [`Sockets::arm`] was called since the last time. `wake` is called when a call was queued, to wake an engine core that sleeps.
///
/// # Errors
/// There is no memory for the chunks.
pub fn pair(
    config: SocketsConfig,
    told: impl Fn() + Send + Sync + 'static,
    wake: impl Fn() + Send + Sync + 'static,
) -> Result<(Sockets, EngineSockets), ArenaError> {
    let pool = || hugepages::Arena::new(config.chunks.max(1) * CHUNK_BYTES).map(|arena| ChunkPool::new(arena, CHUNK_BYTES));
    let (calls_tx, calls_rx) = bounded(config.ring.max(1));
    let (notices_tx, notices_rx) = bounded(config.ring.max(1));
    let doorbell = Doorbell { sleeps: Arc::new(AtomicBool::new(false)), ring: Arc::new(told) };
    let control = Sockets::new(calls_tx, notices_rx, pool()?, doorbell.clone(), Box::new(wake));
    let engine = EngineSockets::new(config, calls_rx, notices_tx, pool()?, doorbell);
    Ok((control, engine))
}
