//! The control core's side of the socket layer: listeners and connections for programs that wait by leaving a waker.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crossbeam_channel::{Receiver, Sender};
use hugepages::{ChunkPool, Slice};

use super::{BYTES_IN_MAX, CHUNKS_OUT_MAX, Call, Doorbell, Notice};
use crate::tcp::{ConnId, ListenerId, TcpError, TcpOption};

/// Read bytes are reported when they come to this much: a call for every line would cost more than it brings.
const READ_REPORT_BYTES: usize = BYTES_IN_MAX / 4;

/// The control core's half: makes listeners and connections, and hands out what the engine core tells. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Sockets {
    shared: Arc<Shared>,
    notices: Receiver<Notice>,
}

struct Shared {
    calls: Sender<Call>,
    pool: ChunkPool,
    doorbell: Doorbell,
    wake: Box<dyn Fn() + Send + Sync>,
    next_request: AtomicU32,
    tables: Mutex<Tables>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} calls wait)", self.calls.len())
    }
}

#[derive(Default)]
struct Tables {
    conns: HashMap<ConnId, Arc<Mutex<ConnState>>>,
    listeners: HashMap<ListenerId, Arc<Mutex<ListenerState>>>,
    answers: HashMap<u32, Arc<Mutex<Answer>>>,
    /// Calls that must not get lost and found the ring full, oldest first. While there are any, every other call waits behind them.
    backlog: VecDeque<Call>,
    /// Who waits for room in the ring, or for a free chunk.
    room: Vec<Waker>,
}

/// An answer that is awaited.
#[derive(Default)]
struct Answer {
    outcome: Option<Result<Answered, TcpError>>,
    waker: Option<Waker>,
}

enum Answered {
    Listening(ListenerId),
    Connected(Accepted),
}

/// A connection as it was announced.
#[derive(Clone, Copy)]
struct Accepted {
    conn: ConnId,
    local: SocketAddr,
    remote: SocketAddr,
}

#[derive(Default)]
struct ListenerState {
    waiting: VecDeque<Accepted>,
    waker: Option<Waker>,
}

struct ConnState {
    received: VecDeque<Slice>,
    /// Bytes of the first chunk that were read.
    read_at: usize,
    /// Bytes read that the engine core was not told of.
    unreported: usize,
    end_of_data: bool,
    failed: Option<TcpError>,
    /// Chunks that may be sent.
    credit: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Default for ConnState {
    fn default() -> Self {
        Self {
            received: VecDeque::new(),
            read_at: 0,
            unreported: 0,
            end_of_data: false,
            failed: None,
            credit: CHUNKS_OUT_MAX,
            reader: None,
            writer: None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// A TCP error in the terms of `std::io`.
fn io_error(why: TcpError) -> io::Error {
    let kind = match why {
        TcpError::Reset => io::ErrorKind::ConnectionReset,
        TcpError::Refused => io::ErrorKind::ConnectionRefused,
        TcpError::TimedOut => io::ErrorKind::TimedOut,
        TcpError::Unreachable => io::ErrorKind::HostUnreachable,
        TcpError::AddressInUse => io::ErrorKind::AddrInUse,
        TcpError::BadAddress => io::ErrorKind::AddrNotAvailable,
        TcpError::NoConnection | TcpError::NotConnected | TcpError::Closed => io::ErrorKind::NotConnected,
        TcpError::TooMany => io::ErrorKind::QuotaExceeded,
    };
    io::Error::new(kind, why)
}

impl Shared {
    /// Queues a call if there is room; gives it back otherwise.
    fn try_call(&self, tables: &Tables, call: Call) -> Result<(), Call> {
        if !tables.backlog.is_empty() {
            return Err(call);
        }
        self.calls.try_send(call).map_err(crossbeam_channel::TrySendError::into_inner)?;
        (self.wake)();
        Ok(())
    }

    /// Queues a call now or later; the number of those that wait is bounded by what each connection may ask for.
    fn call(&self, call: Call) {
        let mut tables = lock(&self.tables);
        if let Err(call) = self.try_call(&tables, call) {
            tables.backlog.push_back(call);
            (self.wake)();
        }
    }
}

impl Sockets {
    pub(super) fn new(
        calls: Sender<Call>,
        notices: Receiver<Notice>,
        pool: ChunkPool,
        doorbell: Doorbell,
        wake: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let tables = Mutex::new(Tables::default());
        let shared = Shared { calls, pool, doorbell, wake, next_request: AtomicU32::new(1), tables };
        Self { shared: Arc::new(shared), notices }
    }

    /// Asks to be told of the next notice, by the `told` that [`pair`](super::pair) was given; then [`Sockets::dispatch`] again, and wait.
    pub fn arm(&self) {
        self.shared.doorbell.arm();
    }

    /// True while calls wait for room in the ring: then dispatch again soon, without being told.
    pub fn is_crowded(&self) -> bool {
        let tables = lock(&self.shared.tables);
        !tables.backlog.is_empty() || !tables.room.is_empty()
    }

    /// Hands out all notices, and wakes who waited. Returns how many there were. One task calls it.
    pub fn dispatch(&self) -> usize {
        let mut count = 0;
        while let Ok(notice) = self.notices.try_recv() {
            count += 1;
            self.take(notice);
        }
        let mut tables = lock(&self.shared.tables);
        while let Some(call) = tables.backlog.pop_front() {
            match self.shared.calls.try_send(call) {
                Ok(()) => (self.shared.wake)(),
                Err(error) => {
                    tables.backlog.push_front(error.into_inner());
                    break;
                }
            }
        }
        let waiting = if tables.backlog.is_empty() { std::mem::take(&mut tables.room) } else { Vec::new() };
        drop(tables);
        waiting.into_iter().for_each(Waker::wake);
        count
    }

    fn take(&self, notice: Notice) {
        match notice {
            Notice::Listening { request, outcome } => self.answer(request, outcome.map(Answered::Listening)),
            Notice::Connected { request, conn, local, remote } => {
                self.enter(conn);
                self.answer(request, Ok(Answered::Connected(Accepted { conn, local, remote })));
            }
            Notice::Refused { request, why } => self.answer(request, Err(why)),
            Notice::Accepted { listener, conn, local, remote } => {
                let found = lock(&self.shared.tables).listeners.get(&listener).cloned();
                match found {
                    Some(state) => {
                        self.enter(conn);
                        let mut state = lock(&state);
                        state.waiting.push_back(Accepted { conn, local, remote });
                        wake(&mut state.waker);
                    }
                    // The listener was dropped meanwhile.
                    None => self.shared.call(Call::Abort(conn)),
                }
            }
            Notice::Data(conn, bytes) => self.of(conn, |state| {
                state.received.push_back(bytes);
                wake(&mut state.reader);
            }),
            Notice::EndOfData(conn) => self.of(conn, |state| {
                state.end_of_data = true;
                wake(&mut state.reader);
            }),
            Notice::Taken(conn, chunks) => self.of(conn, |state| {
                state.credit = (state.credit + chunks as usize).min(CHUNKS_OUT_MAX);
                wake(&mut state.writer);
            }),
            Notice::Failed(conn, why) => self.of(conn, |state| {
                state.failed = Some(why);
                wake(&mut state.reader);
                wake(&mut state.writer);
            }),
        }
    }

    fn of(&self, conn: ConnId, change: impl FnOnce(&mut ConnState)) {
        let found = lock(&self.shared.tables).conns.get(&conn).cloned();
        if let Some(state) = found {
            change(&mut lock(&state));
        }
    }

    fn enter(&self, conn: ConnId) {
        lock(&self.shared.tables).conns.insert(conn, Arc::default());
    }

    fn answer(&self, request: u32, outcome: Result<Answered, TcpError>) {
        let found = lock(&self.shared.tables).answers.remove(&request);
        match (found, outcome) {
            (Some(answer), outcome) => {
                let mut answer = lock(&answer);
                answer.outcome = Some(outcome);
                wake(&mut answer.waker);
            }
            // Nobody waits for it any more.
            (None, Ok(Answered::Listening(listener))) => self.shared.call(Call::Unlisten(listener)),
            (None, Ok(Answered::Connected(Accepted { conn, .. }))) => {
                lock(&self.shared.tables).conns.remove(&conn);
                self.shared.call(Call::Abort(conn));
            }
            (None, Err(_)) => {}
        }
    }

    /// Waits for connections to `local`.
    ///
    /// # Errors
    /// `AddrInUse`, `AddrNotAvailable`, `QuotaExceeded`.
    pub async fn listen(&self, local: SocketAddr, backlog: usize) -> io::Result<Listener> {
        match self.ask(|request| Call::Listen { request, local, backlog }).await.map_err(io_error)? {
            Answered::Listening(id) => {
                let state: Arc<Mutex<ListenerState>> = Arc::default();
                lock(&self.shared.tables).listeners.insert(id, Arc::clone(&state));
                Ok(Listener { sockets: self.clone(), id, local, state })
            }
            Answered::Connected(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Opens a connection; port 0 of `local` is any.
    ///
    /// # Errors
    /// As connecting with the operating system's sockets.
    pub async fn connect(&self, local: SocketAddr, remote: SocketAddr) -> io::Result<Stream> {
        match self.ask(|request| Call::Connect { request, local, remote }).await.map_err(io_error)? {
            Answered::Connected(accepted) => self.stream(accepted).ok_or_else(|| io::ErrorKind::NotConnected.into()),
            Answered::Listening(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    async fn ask(&self, call: impl FnOnce(u32) -> Call) -> Result<Answered, TcpError> {
        let request = self.shared.next_request.fetch_add(1, Ordering::Relaxed);
        let answer: Arc<Mutex<Answer>> = Arc::default();
        lock(&self.shared.tables).answers.insert(request, Arc::clone(&answer));
        let _forget = Forget { shared: &self.shared, request };
        self.shared.call(call(request));
        std::future::poll_fn(|context| {
            let mut answer = lock(&answer);
            match answer.outcome.take() {
                Some(outcome) => Poll::Ready(outcome),
                None => {
                    answer.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn stream(&self, Accepted { conn, local, remote }: Accepted) -> Option<Stream> {
        let state = lock(&self.shared.tables).conns.get(&conn).cloned()?;
        Some(Stream { shared: Arc::clone(&self.shared), state, conn, local, remote })
    }
}

/// Takes a question back whose asker went away.
struct Forget<'a> {
    shared: &'a Shared,
    request: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(&self.shared.tables).answers.remove(&self.request);
    }
}

/// Waits for connections; dropped, it waits no longer.
pub struct Listener {
    sockets: Sockets,
    id: ListenerId,
    local: SocketAddr,
    state: Arc<Mutex<ListenerState>>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listener({})", self.local)
    }
}

impl Listener {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection.
    pub async fn accept(&self) -> Stream {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Stream> {
        let mut state = lock(&self.state);
        while let Some(accepted) = state.waiting.pop_front() {
            if let Some(stream) = self.sockets.stream(accepted) {
                return Poll::Ready(stream);
            }
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        lock(&self.sockets.shared.tables).listeners.remove(&self.id);
        self.sockets.shared.call(Call::Unlisten(self.id));
        let waiting = std::mem::take(&mut lock(&self.state).waiting);
        for accepted in waiting {
            drop(self.sockets.stream(accepted));
        }
    }
}

/// A connection. Dropped, it is closed: what was written is delivered. Reading and writing may be done by two tasks at once, one each.
pub struct Stream {
    shared: Arc<Shared>,
    state: Arc<Mutex<ConnState>>,
    conn: ConnId,
    local: SocketAddr,
    remote: SocketAddr,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({} to {})", self.local, self.remote)
    }
}

impl Stream {
    /// Its name on the engine core.
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Reads what is there; `Ok(0)`: the peer sends nothing more.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there yet; why the connection failed.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.state);
        let mut count = 0;
        while let Some(chunk) = state.received.front() {
            let rest = chunk.get(state.read_at..).unwrap_or(&[]);
            let Some(place) = buffer.get_mut(count..).filter(|place| !place.is_empty()) else { break };
            let taken = rest.len().min(place.len());
            place[..taken].copy_from_slice(&rest[..taken]);
            count += taken;
            if taken == rest.len() {
                state.received.pop_front();
                state.read_at = 0;
            } else {
                state.read_at += taken;
            }
        }
        if count > 0 {
            state.unreported += count;
            if state.unreported >= READ_REPORT_BYTES || state.received.is_empty() {
                let bytes = u32::try_from(std::mem::take(&mut state.unreported)).unwrap_or(u32::MAX);
                drop(state);
                self.shared.call(Call::Read(self.conn, bytes));
            }
            return Ok(count);
        }
        match (state.end_of_data, state.failed) {
            (true, _) => Ok(0),
            (false, Some(why)) => Err(io_error(why)),
            (false, None) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Ready when `try_read` would not answer `WouldBlock`.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if !state.received.is_empty() || state.end_of_data || state.failed.is_some() {
            return Poll::Ready(());
        }
        state.reader = Some(context.waker().clone());
        Poll::Pending
    }

    /// Queues as much of `bytes` as there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; why the connection failed.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.state);
        if let Some(why) = state.failed {
            return Err(io_error(why));
        }
        let mut count = 0;
        while count < bytes.len() && state.credit > 0 {
            let Some(mut chunk) = self.shared.pool.take() else { break };
            let rest = bytes.get(count..).unwrap_or(&[]);
            let len = rest.len().min(chunk.len());
            chunk[..len].copy_from_slice(&rest[..len]);
            let call = Call::Send(self.conn, chunk.freeze(len));
            if self.shared.try_call(&lock(&self.shared.tables), call).is_err() {
                break;
            }
            state.credit -= 1;
            count += len;
        }
        if count == 0 && !bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }

    /// Ready when `try_write` is worth another try.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if state.failed.is_some() {
            return Poll::Ready(());
        }
        if state.credit == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut tables = lock(&self.shared.tables);
        if tables.backlog.is_empty() && !self.shared.calls.is_full() && self.shared.pool.free() > 0 {
            return Poll::Ready(());
        }
        tables.room.push(context.waker().clone());
        Poll::Pending
    }

    /// Ready when TCP has everything that was written (or never will).
    pub fn poll_flush(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.state);
        if let Some(why) = state.failed {
            return Poll::Ready(Err(io_error(why)));
        }
        if state.credit == CHUNKS_OUT_MAX {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Nothing more will be written; reading goes on.
    pub fn shutdown(&self) {
        self.shared.call(Call::Shutdown(self.conn));
    }

    /// Sets an option.
    pub fn set_option(&self, option: TcpOption) {
        self.shared.call(Call::SetOption(self.conn, option));
    }

    /// Small segments go out at once.
    pub fn set_nodelay(&self) {
        self.set_option(TcpOption::NoDelay(true));
    }

    /// What ends this connection whoever holds it.
    pub fn aborter(&self) -> Aborter {
        Aborter { shared: Arc::clone(&self.shared), conn: self.conn }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        lock(&self.shared.tables).conns.remove(&self.conn);
        self.shared.call(Call::Close(self.conn));
    }
}

/// Ends a connection that another part of the program holds.
#[derive(Clone, Debug)]
pub struct Aborter {
    shared: Arc<Shared>,
    conn: ConnId,
}

impl Aborter {
    /// Resets the connection; its holder reads an error.
    pub fn abort(&self) {
        let found = lock(&self.shared.tables).conns.get(&self.conn).cloned();
        self.shared.call(Call::Abort(self.conn));
        if let Some(state) = found {
            let mut state = lock(&state);
            state.failed = Some(TcpError::Closed);
            wake(&mut state.reader);
            wake(&mut state.writer);
        }
    }
}
