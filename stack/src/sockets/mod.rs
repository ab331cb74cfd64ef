//! The socket layer between cores: TCP connections of an engine core, used from a control core as if they were at hand.
//!
//! ```text
//! control core                                     engine core
//! Listener, Stream ── Request (bounded ring) ────► SocketEngine ── calls ──► Tcp
//!    ▲ wakers      ◄── Event (bounded ring) ─────      ▲── readiness ──────────┘
//!    └ SocketControl::pump, called when the bell has rung
//! ```
//!
//! - Messages are plain data: names, addresses, numbers and chunks of bytes. They can as well be sent over a network.
//! - Stop and go: a stream lends the engine a few empty chunks to receive into and has a few to send from. A chunk travels one way full
//!   and comes back empty; without chunks there is no way to send, so no queue can overflow and no reader can be overrun.
//! - Nobody blocks and there is no thread per socket. Waiting is a waker on the control core and a readiness event on the engine core.
//! - A side that sleeps is woken by one call of its [`Bell`], at most once per turn of the other side.
//!
//! The names of sockets are chosen by the control side, also those of connections to come: [`Request::Accept`] says how the next one will be
//! called, and how many are wanted.

mod bell;
mod control;
mod engine;
mod table;

pub use bell::Bell;
pub use control::{Aborter, Lent, Listener, SocketControl, Stream};
pub use engine::SocketEngine;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::tcp::{TcpError, TcpOption};

/// Bytes of a [`Chunk`].
pub const CHUNK_BYTES: usize = 4096;

/// A socket's name. It is used again for another one only with another generation in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// Bytes under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    len: u16,
    bytes: [u8; CHUNK_BYTES],
}

impl Default for Chunk {
    fn default() -> Self {
        Self { len: 0, bytes: [0; CHUNK_BYTES] }
    }
}

impl Chunk {
    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// Holds as much of `bytes` as fits in place of what it held; how much that is.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let len = bytes.len().min(CHUNK_BYTES);
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..len), bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        self.len = len as u16;
        len
    }

    /// Lets `write` write into all of it and say how many bytes that were.
    fn fill_with<E>(&mut self, write: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>) -> Result<Option<usize>, E> {
        let len = write(&mut self.bytes)?;
        self.len = len.unwrap_or(0).min(CHUNK_BYTES) as u16;
        Ok(len)
    }
}

/// What the control side asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Wait for connections. Answered by [`Event::Listening`] or [`Event::Failed`].
    Listen {
        /// The name of the listener to be.
        socket: SocketId,
        /// Where.
        local: SocketAddr,
        /// Connections that may wait to be accepted.
        backlog: u32,
    },
    /// The next connection of a listener is to be called so; answered by [`Event::Connected`] when there is one.
    Accept {
        /// The listener.
        listener: SocketId,
        /// The name of the connection to be.
        socket: SocketId,
    },
    /// Open a connection. Answered by [`Event::Connected`] or [`Event::Failed`].
    Connect {
        /// The name of the connection to be.
        socket: SocketId,
        /// From which address; port 0 leaves the port to the engine, `None` the address too.
        local: Option<SocketAddr>,
        /// To which.
        remote: SocketAddr,
    },
    /// Send the chunk's bytes. The chunk comes back with [`Event::Sent`].
    Send {
        /// The connection.
        socket: SocketId,
        /// The bytes.
        chunk: Box<Chunk>,
    },
    /// Receive into this chunk. It comes back with [`Event::Received`].
    Receive {
        /// The connection.
        socket: SocketId,
        /// An empty chunk.
        chunk: Box<Chunk>,
    },
    /// Nothing more will be sent.
    Shutdown {
        /// The connection.
        socket: SocketId,
    },
    /// Set an option.
    SetOption {
        /// The connection.
        socket: SocketId,
        /// Which and how.
        option: TcpOption,
    },
    /// The engine's own users hold the connection too, until [`Request::Return`].
    Lend {
        /// The connection.
        socket: SocketId,
    },
    /// Ends [`Request::Lend`].
    Return {
        /// The connection.
        socket: SocketId,
    },
    /// Reset the connection, whoever uses it. Answered by [`Event::Failed`].
    Abort {
        /// The connection.
        socket: SocketId,
    },
    /// The control side is done with the socket. Answered by [`Event::Closed`]; then the name is free.
    Close {
        /// The socket.
        socket: SocketId,
    },
}

/// What the engine side tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A listener listens.
    Listening {
        /// The listener.
        socket: SocketId,
    },
    /// A connection is established.
    Connected {
        /// The connection.
        socket: SocketId,
        /// Our end.
        local: SocketAddr,
        /// The peer's.
        remote: SocketAddr,
    },
    /// Bytes came.
    Received {
        /// The connection.
        socket: SocketId,
        /// The bytes.
        chunk: Box<Chunk>,
    },
    /// What was in the chunk is in the connection's send queue.
    Sent {
        /// The connection.
        socket: SocketId,
        /// The chunk, for further use.
        chunk: Box<Chunk>,
    },
    /// The peer will send nothing more.
    PeerClosed {
        /// The connection.
        socket: SocketId,
    },
    /// The socket is of no use any more. It is still to be closed.
    Failed {
        /// The socket.
        socket: SocketId,
        /// Why.
        error: TcpError,
    },
    /// The socket is gone.
    Closed {
        /// It had this name.
        socket: SocketId,
    },
}

/// Sizes, the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketConfig {
    /// Listeners and connections at once, those to come counted.
    pub sockets_max: u32,
    /// Messages in each ring.
    pub ring_messages: usize,
    /// Chunks that a connection may have under way in each direction.
    pub chunks: usize,
    /// Requests that the engine takes in one turn, and sockets that it looks after.
    pub work_per_turn: usize,
    /// Connections that a listener has names for in advance.
    pub accepts_ahead: usize,
}

impl Default for SocketConfig {
    fn default() -> Self {
        Self { sockets_max: 8192, ring_messages: 4096, chunks: 4, work_per_turn: 64, accepts_ahead: 16 }
    }
}

/// Both halves. `wake_engine` is called from the control side when the engine sleeps, `wake_control` from the engine side when the
/// control side does; both have to be quick and must not block (write an eventfd).
pub fn socket_pair(
    config: SocketConfig,
    connections_max: usize,
    wake_engine: Box<dyn Fn() + Send + Sync>,
    wake_control: Box<dyn Fn() + Send + Sync>,
) -> (SocketEngine, SocketControl) {
    let messages = config.ring_messages.max(engine::EVENTS_PER_STEP * 2);
    let (request_out, request_in) = crossbeam_channel::bounded(messages);
    let (event_out, event_in) = crossbeam_channel::bounded(messages);
    let (engine_bell, control_bell) = (Arc::new(Bell::new(wake_engine)), Arc::new(Bell::new(wake_control)));
    let engine = SocketEngine::new(config, connections_max, request_in, event_out, (Arc::clone(&engine_bell), Arc::clone(&control_bell)));
    let control = SocketControl::new(config, request_out, event_in, (engine_bell, control_bell));
    (engine, control)
}

#[cfg(test)]
mod tests;
