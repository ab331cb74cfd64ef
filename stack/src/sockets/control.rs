//! The control side's half: listeners and streams with wakers. May lock and allocate; never blocks.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{Bell, Chunk, Event, Request, SocketConfig, SocketId};
use crate::slots::Slots;
use crate::tcp::{TcpError, TcpOption};

/// What the control side knows of a socket.
#[derive(Default)]
struct Socket {
    /// A listener, with connections to be handed out and names that were given in advance.
    arrived: VecDeque<SocketId>,
    names: Vec<SocketId>,
    listener: Option<SocketId>,
    ready: bool,
    ends: Option<(SocketAddr, SocketAddr)>,
    received: VecDeque<Box<Chunk>>,
    /// Bytes of the first that were read.
    read_bytes: usize,
    /// Chunks under way to be sent, and those that came back.
    sending: usize,
    empty: Vec<Box<Chunk>>,
    ended: bool,
    shut: bool,
    error: Option<TcpError>,
    readers: Option<Waker>,
    writers: Option<Waker>,
}

struct Inner {
    requests: Sender<Request>,
    events: Receiver<Event>,
    /// Requests that found the ring full. No more than a few for each socket.
    overflow: VecDeque<Request>,
    sockets: Slots<Socket>,
    listeners: Vec<SocketId>,
    config: SocketConfig,
}

struct Shared {
    inner: Mutex<Inner>,
    own_bell: Arc<Bell>,
    engine_bell: Arc<Bell>,
}

/// The control side's half, for as many users as want a clone.
#[derive(Clone)]
pub struct SocketControl(Arc<Shared>);

/// A socket that closes itself.
struct Handle {
    shared: Arc<Shared>,
    id: SocketId,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Handle").field(&self.id).finish()
    }
}

impl std::fmt::Debug for SocketControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketControl").finish_non_exhaustive()
    }
}

/// Waits for connections.
#[derive(Debug)]
pub struct Listener(Handle);

/// A connection.
#[derive(Debug)]
pub struct Stream(Handle);

/// Ends a connection that another part of the program holds. Holds nothing itself.
#[derive(Clone)]
pub struct Aborter {
    shared: Arc<Shared>,
    id: SocketId,
}

/// A connection's sending side, for a user on the engine core. Whoever has one keeps the connection open.
pub struct Lent {
    /// `None`: it was taken.
    shared: Option<Arc<Shared>>,
    id: SocketId,
}

impl std::fmt::Debug for Lent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lent").field(&self.id).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the state whole, so a panic elsewhere does no harm.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something that makes requests, and wakes the engine.
    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let result = f(&mut self.lock());
        self.engine_bell.ring();
        result
    }
}

impl SocketControl {
    pub(super) fn new(
        config: SocketConfig,
        requests: Sender<Request>,
        events: Receiver<Event>,
        (engine_bell, own_bell): (Arc<Bell>, Arc<Bell>),
    ) -> Self {
        let inner =
            Inner { requests, events, overflow: VecDeque::new(), sockets: Slots::new(config.sockets_max), listeners: Vec::new(), config };
        Self(Arc::new(Shared { inner: Mutex::new(inner), own_bell, engine_bell }))
    }

    /// Takes what the engine told and wakes those who wait for it. To be called whenever the engine has rung.
    pub fn pump(&self) {
        let mut woken = Vec::new();
        self.0.with(|inner| inner.pump(&mut woken));
        for waker in woken {
            waker.wake();
        }
    }

    /// To be called before the task that pumps sleeps: from now on the engine rings. True when nothing came meanwhile.
    pub fn lie_down(&self) -> bool {
        self.0.own_bell.lie_down();
        let inner = self.0.lock();
        inner.events.is_empty() && inner.overflow.is_empty()
    }

    /// The connection was lent by this socket layer, so only its engine can use it.
    pub fn has_lent(&self, lent: &Lent) -> bool {
        lent.shared.as_ref().is_some_and(|shared| Arc::ptr_eq(shared, &self.0))
    }

    /// Names in use: listeners, connections, and those named in advance.
    pub fn in_use(&self) -> u32 {
        self.0.lock().sockets.len()
    }

    /// Begins to listen; [`Listener::poll_accept`] tells if that failed.
    ///
    /// # Errors
    /// [`TcpError::TooMany`] when all sockets are in use.
    pub fn listen(&self, local: SocketAddr, backlog: u32) -> Result<Listener, TcpError> {
        let id = self.0.with(|inner| {
            let id = inner.add(Socket::default())?;
            inner.listeners.push(id);
            inner.request(Request::Listen { socket: id, local, backlog });
            inner.name_ahead(id);
            Ok(id)
        })?;
        Ok(Listener(Handle { shared: Arc::clone(&self.0), id }))
    }

    /// Begins to open a connection; [`Stream::poll_connected`] tells when it is open. Port 0 of `local` leaves the port to the engine,
    /// `None` the address too.
    ///
    /// # Errors
    /// [`TcpError::TooMany`] when all sockets are in use.
    pub fn connect(&self, local: Option<SocketAddr>, remote: SocketAddr) -> Result<Stream, TcpError> {
        let id = self.0.with(|inner| {
            let id = inner.add(Socket::default())?;
            inner.request(Request::Connect { socket: id, local, remote });
            Ok(id)
        })?;
        Ok(Stream(Handle { shared: Arc::clone(&self.0), id }))
    }
}

impl Listener {
    /// The next connection.
    ///
    /// # Errors
    /// Why the listener cannot listen.
    pub fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Result<Stream, TcpError>> {
        let Handle { shared, id } = &self.0;
        let accepted = shared.with(|inner| {
            let Some(socket) = inner.sockets.get_mut(id.0) else { return Poll::Ready(Err(TcpError::NoConnection)) };
            match (socket.arrived.pop_front(), socket.error) {
                (Some(name), _) => {
                    inner.name_ahead(*id);
                    Poll::Ready(Ok(name))
                }
                (None, Some(error)) => Poll::Ready(Err(error)),
                (None, None) => {
                    socket.readers = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        accepted.map_ok(|name| Stream(Handle { shared: Arc::clone(shared), id: name }))
    }
}

impl Stream {
    /// Ready when the connection is open.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn poll_connected(&self, context: &mut Context<'_>) -> Poll<Result<(), TcpError>> {
        self.0.with_socket(|socket| match (socket.ready, socket.error) {
            (true, _) => Poll::Ready(Ok(())),
            (false, Some(error)) => Poll::Ready(Err(error)),
            (false, None) => {
                socket.writers = Some(context.waker().clone());
                Poll::Pending
            }
        })
    }

    /// Our end and the peer's, once the connection is open.
    pub fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.0.shared.lock().sockets.get(self.0.id.0)?.ends
    }

    /// Reads what has come, 0 bytes at the end.
    ///
    /// # Errors
    /// Why the connection failed; what came before is read first.
    pub fn poll_read(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, TcpError>> {
        let Handle { shared, id } = &self.0;
        shared.with(|inner| {
            let count = inner.read(*id, buffer);
            let Some(socket) = inner.sockets.get_mut(id.0) else { return Poll::Ready(Err(TcpError::NoConnection)) };
            match (count, socket.error) {
                (1.., _) => Poll::Ready(Ok(count)),
                _ if socket.ended || buffer.is_empty() => Poll::Ready(Ok(0)),
                (0, Some(error)) => Poll::Ready(Err(error)),
                (0, None) => {
                    socket.readers = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
    }

    /// Ready when [`Stream::poll_read`] would be. Only the last waker that was left is woken.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let ready = self.0.with_socket(|socket| {
            if !socket.received.is_empty() || socket.ended || socket.error.is_some() {
                return Poll::Ready(Ok(()));
            }
            socket.readers = Some(context.waker().clone());
            Poll::Pending
        });
        ready.map(|_| ())
    }

    /// Ready when [`Stream::poll_write`] would take something.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        let chunks = self.0.shared.lock().config.chunks;
        let ready = self.0.with_socket(|socket| {
            if socket.sending < chunks || socket.shut || socket.error.is_some() {
                return Poll::Ready(Ok(()));
            }
            socket.writers = Some(context.waker().clone());
            Poll::Pending
        });
        ready.map(|_| ())
    }

    /// Takes as much as there are chunks for.
    ///
    /// # Errors
    /// Why nothing can be sent any more.
    pub fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, TcpError>> {
        let Handle { shared, id } = &self.0;
        shared.with(|inner| {
            let Some(socket) = inner.sockets.get_mut(id.0) else { return Poll::Ready(Err(TcpError::NoConnection)) };
            if let Some(error) = socket.error.or(socket.shut.then_some(TcpError::Closed)) {
                return Poll::Ready(Err(error));
            }
            let mut count = 0;
            while let Some((rest, Some(mut chunk))) =
                bytes.get(count..).filter(|rest| !rest.is_empty()).map(|rest| (rest, inner.empty(*id)))
            {
                count += chunk.fill(rest);
                inner.request(Request::Send { socket: *id, chunk });
            }
            if count == 0 && !bytes.is_empty() {
                if let Some(socket) = inner.sockets.get_mut(id.0) {
                    socket.writers = Some(context.waker().clone());
                }
                return Poll::Pending;
            }
            Poll::Ready(Ok(count))
        })
    }

    /// Sends nothing more after what was written. Reading goes on.
    pub fn shutdown(&self) {
        let Handle { shared, id } = &self.0;
        shared.with(|inner| {
            let fresh = inner.sockets.get_mut(id.0).is_some_and(|socket| !std::mem::replace(&mut socket.shut, true));
            if fresh {
                inner.request(Request::Shutdown { socket: *id });
            }
        });
    }

    /// Sets an option.
    pub fn set_option(&self, option: TcpOption) {
        let Handle { shared, id } = &self.0;
        shared.with(|inner| inner.request(Request::SetOption { socket: *id, option }));
    }

    /// What ends this connection whoever holds it.
    pub fn aborter(&self) -> Aborter {
        Aborter { shared: Arc::clone(&self.0.shared), id: self.0.id }
    }

    /// Lends the connection to a user on the engine core, who writes to it directly. `None`: the ring is full, try again.
    pub fn lend(&self) -> Option<Lent> {
        let Handle { shared, id } = &self.0;
        let lent = shared.with(|inner| inner.overflow.is_empty() && inner.requests.try_send(Request::Lend { socket: *id }).is_ok());
        lent.then(|| Lent { shared: Some(Arc::clone(shared)), id: *id })
    }
}

impl std::fmt::Debug for Aborter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Aborter").field(&self.id).finish()
    }
}

impl Aborter {
    /// Resets the connection; whoever reads it learns that it failed. Without effect when it is gone.
    pub fn abort(&self) {
        self.shared.with(|inner| inner.request(Request::Abort { socket: self.id }));
    }
}

impl Lent {
    /// The socket's name. Whoever takes it gives it back to the [`SocketEngine`](super::SocketEngine).
    pub fn take(mut self) -> SocketId {
        self.shared = None;
        self.id
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.with(|inner| inner.request(Request::Return { socket: self.id }));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.with(|inner| inner.close(self.id));
    }
}

impl Handle {
    fn with_socket<R>(&self, f: impl FnOnce(&mut Socket) -> Poll<Result<R, TcpError>>) -> Poll<Result<R, TcpError>> {
        match self.shared.lock().sockets.get_mut(self.id.0) {
            Some(socket) => f(socket),
            None => Poll::Ready(Err(TcpError::NoConnection)),
        }
    }
}

impl Inner {
    fn add(&mut self, socket: Socket) -> Result<SocketId, TcpError> {
        self.sockets.insert(socket).map(SocketId).map_err(|_| TcpError::TooMany)
    }

    /// Puts a request into the ring, behind those that found it full.
    fn request(&mut self, request: Request) {
        self.overflow.push_back(request);
        self.pass_on();
    }

    fn pass_on(&mut self) {
        while let Some(request) = self.overflow.pop_front() {
            if let Err(TrySendError::Full(request)) = self.requests.try_send(request) {
                self.overflow.push_front(request);
                return;
            }
        }
    }

    /// Gives a listener names for its next connections.
    fn name_ahead(&mut self, listener: SocketId) {
        loop {
            let ahead = self.config.accepts_ahead;
            let Some(socket) = self.sockets.get(listener.0).filter(|socket| socket.error.is_none()) else { return };
            if socket.names.len() + socket.arrived.len() >= ahead {
                return;
            }
            let Ok(name) = self.add(Socket { listener: Some(listener), ..Socket::default() }) else { return };
            if let Some(socket) = self.sockets.get_mut(listener.0) {
                socket.names.push(name);
            }
            self.request(Request::Accept { listener, socket: name });
        }
    }

    fn pump(&mut self, woken: &mut Vec<Waker>) {
        for _ in 0..self.events.len() {
            let Ok(event) = self.events.try_recv() else { break };
            self.take(event, woken);
        }
        self.pass_on();
    }

    fn take(&mut self, event: Event, woken: &mut Vec<Waker>) {
        match event {
            Event::Listening { socket } => self.change(socket, woken, |socket| socket.ready = true),
            Event::Connected { socket, local, remote } => self.connected(socket, (local, remote), woken),
            Event::Received { socket, chunk } => self.change(socket, woken, |socket| socket.received.push_back(chunk)),
            Event::Sent { socket, chunk } => self.change(socket, woken, |socket| {
                socket.sending = socket.sending.saturating_sub(1);
                socket.empty.push(chunk);
            }),
            Event::PeerClosed { socket } => self.change(socket, woken, |socket| socket.ended = true),
            Event::Failed { socket, error } => self.failed(socket, error, woken),
            Event::Closed { socket } => {
                self.sockets.remove(socket.0);
                // A name is free: perhaps a listener was short of names.
                for at in 0..self.listeners.len() {
                    if let Some(&listener) = self.listeners.get(at) {
                        self.name_ahead(listener);
                    }
                }
            }
        }
    }

    fn change(&mut self, id: SocketId, woken: &mut Vec<Waker>, f: impl FnOnce(&mut Socket)) {
        if let Some(socket) = self.sockets.get_mut(id.0) {
            f(socket);
            woken.extend(socket.readers.take());
            woken.extend(socket.writers.take());
        }
    }

    fn connected(&mut self, id: SocketId, ends: (SocketAddr, SocketAddr), woken: &mut Vec<Waker>) {
        self.change(id, woken, |socket| (socket.ready, socket.ends) = (true, Some(ends)));
        for _ in 0..self.config.chunks {
            self.request(Request::Receive { socket: id, chunk: Box::default() });
        }
        let Some(listener) = self.sockets.get_mut(id.0).and_then(|socket| socket.listener.take()) else { return };
        self.change(listener, woken, |socket| {
            socket.names.retain(|name| *name != id);
            socket.arrived.push_back(id);
        });
        // Only so many connections wait here; the rest wait in the engine's backlog.
        self.name_ahead(listener);
    }

    fn failed(&mut self, id: SocketId, error: TcpError, woken: &mut Vec<Waker>) {
        self.change(id, woken, |socket| socket.error = socket.error.or(Some(error)));
        // A connection to come that will not come: nobody has a handle of it.
        let listener = self.sockets.get_mut(id.0).and_then(|socket| socket.listener.take());
        if let Some(listener) = listener {
            if let Some(socket) = self.sockets.get_mut(listener.0) {
                socket.names.retain(|name| *name != id);
            }
            self.request(Request::Close { socket: id });
        }
    }

    /// Copies what has come; chunks that were read go back to be filled again.
    fn read(&mut self, id: SocketId, buffer: &mut [u8]) -> usize {
        let mut count = 0;
        while let Some(socket) = self.sockets.get_mut(id.0) {
            let Some(chunk) = socket.received.front() else { break };
            let (Some(from), Some(to)) = (chunk.bytes().get(socket.read_bytes..), buffer.get_mut(count..)) else { break };
            let len = from.len().min(to.len());
            if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
                to.copy_from_slice(from);
            }
            (count, socket.read_bytes) = (count + len, socket.read_bytes + len);
            if socket.read_bytes < chunk.bytes().len() {
                break;
            }
            socket.read_bytes = 0;
            if let Some(chunk) = socket.received.pop_front() {
                self.request(Request::Receive { socket: id, chunk });
            }
        }
        count
    }

    /// A chunk to send from, unless too many are under way.
    fn empty(&mut self, id: SocketId) -> Option<Box<Chunk>> {
        let chunks = self.config.chunks;
        let socket = self.sockets.get_mut(id.0).filter(|socket| socket.sending < chunks)?;
        socket.sending += 1;
        Some(socket.empty.pop().unwrap_or_default())
    }

    fn close(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get_mut(id.0) else { return };
        let others: Vec<SocketId> = socket.names.drain(..).chain(socket.arrived.drain(..)).collect();
        *socket = Socket::default();
        self.listeners.retain(|listener| *listener != id);
        self.request(Request::Close { socket: id });
        for other in others {
            self.close(other);
        }
    }
}
