//! The engine's half: takes requests, watches connections, tells events. One turn does a bounded amount of work.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use super::table::{Role, Socket, Table};
use super::{Bell, Chunk, Event, Request, SocketConfig, SocketId};
use crate::tcp::{ConnId, ListenerId, State, Tcp, TcpError};

/// Events that one step may tell; a step is taken only when there is room for as many.
pub(super) const EVENTS_PER_STEP: usize = 2;
/// Connections that could not take a chunk and are tried again in one turn.
const RETRIES_PER_TURN: usize = 32;

/// The engine's half.
#[derive(Debug)]
pub struct SocketEngine {
    config: SocketConfig,
    requests: Receiver<Request>,
    events: Sender<Event>,
    own_bell: Arc<Bell>,
    control_bell: Arc<Bell>,
    table: Table,
    /// Which socket a connection belongs to, by the connection's index.
    by_conn: Vec<Option<(ConnId, SocketId)>>,
    /// Sockets to look after.
    list: VecDeque<SocketId>,
    /// Sockets whose connection had no room for the next chunk.
    blocked: VecDeque<SocketId>,
    told: bool,
}

/// Chooses the source address for a connection to a remote address.
pub type SourceOf<'a> = &'a dyn Fn(IpAddr) -> Option<IpAddr>;

impl SocketEngine {
    pub(super) fn new(
        config: SocketConfig,
        connections_max: usize,
        requests: Receiver<Request>,
        events: Sender<Event>,
        (own_bell, control_bell): (Arc<Bell>, Arc<Bell>),
    ) -> Self {
        let sockets = config.sockets_max as usize;
        Self {
            config,
            requests,
            events,
            own_bell,
            control_bell,
            table: Table::new(config.sockets_max),
            by_conn: vec![None; connections_max],
            list: VecDeque::with_capacity(sockets),
            blocked: VecDeque::with_capacity(sockets),
            told: false,
        }
    }

    /// To be called before the engine core sleeps: from now on requests wake it. True when there is none and it may sleep.
    pub fn lie_down(&self) -> bool {
        self.own_bell.lie_down();
        self.requests.is_empty() && self.list.is_empty()
    }

    /// To be called when the engine core is up again.
    pub fn get_up(&self) {
        self.own_bell.get_up();
    }

    /// One turn. True when there was anything to do.
    pub fn poll(&mut self, now_ns: u64, tcp: &mut Tcp, source: SourceOf<'_>) -> bool {
        self.take_readiness(tcp);
        let mut worked = self.take_requests(now_ns, tcp, source, self.config.work_per_turn);
        for _ in 0..self.blocked.len().min(RETRIES_PER_TURN) {
            let Some(id) = self.blocked.pop_front() else { break };
            if let Some(socket) = self.table.get_mut(id) {
                socket.blocked = false;
                self.enlist(id);
            }
        }
        for _ in 0..self.config.work_per_turn {
            if !self.has_room() {
                break;
            }
            let Some(id) = self.list.pop_front() else { break };
            worked = true;
            self.look_after(tcp, id);
        }
        if std::mem::take(&mut self.told) {
            self.control_bell.ring();
        }
        worked
    }

    /// The connection of a socket that was lent to the engine's users, who now take it. Requests that were made before are obeyed first.
    pub fn borrow(&mut self, now_ns: u64, tcp: &mut Tcp, source: SourceOf<'_>, socket: SocketId) -> Option<ConnId> {
        let waiting = self.requests.len();
        self.take_requests(now_ns, tcp, source, waiting);
        self.table.get(socket).filter(|socket| socket.lent > 0)?.conn()
    }

    /// The engine's users are done with it.
    pub fn give_back(&mut self, socket: SocketId) {
        if let Some(entry) = self.table.get_mut(socket) {
            entry.lent = entry.lent.saturating_sub(1);
            self.enlist(socket);
        }
    }

    /// Sockets to look after, and blocked ones.
    #[cfg(test)]
    pub(super) fn lists(&self) -> (usize, usize) {
        (self.list.len(), self.blocked.len())
    }

    fn has_room(&self) -> bool {
        let capacity = self.events.capacity().unwrap_or(usize::MAX);
        capacity - self.events.len().min(capacity) >= EVENTS_PER_STEP
    }

    fn tell(&mut self, event: Event) {
        // There is room: it was looked for before the step, and nobody else tells.
        self.told |= self.events.try_send(event).is_ok();
    }

    fn enlist(&mut self, id: SocketId) {
        if let Some(socket) = self.table.get_mut(id)
            && !socket.listed
        {
            socket.listed = true;
            self.list.push_back(id);
        }
    }

    fn take_readiness(&mut self, tcp: &mut Tcp) {
        for _ in 0..self.config.work_per_turn {
            let Some((conn, _)) = tcp.next_event() else { break };
            let owner = self.by_conn.get(conn.index()).copied().flatten();
            if let Some((_, socket)) = owner.filter(|(own, _)| *own == conn) {
                self.enlist(socket);
            }
        }
        while let Some(listener) = tcp.next_acceptable() {
            let socket = self.table.iter().find(|socket| socket.role == Role::Listener(listener)).map(|socket| socket.id);
            if let Some(socket) = socket {
                self.enlist(socket);
            }
        }
    }

    fn take_requests(&mut self, now_ns: u64, tcp: &mut Tcp, source: SourceOf<'_>, limit: usize) -> bool {
        let mut any = false;
        for _ in 0..limit {
            if !self.has_room() {
                break;
            }
            let Ok(request) = self.requests.try_recv() else { break };
            any = true;
            self.obey(now_ns, tcp, source, request);
        }
        any
    }

    fn obey(&mut self, now_ns: u64, tcp: &mut Tcp, source: SourceOf<'_>, request: Request) {
        match request {
            Request::Listen { socket, local, backlog } => self.listen(tcp, socket, local, backlog),
            Request::Accept { listener, socket } => self.name(listener, socket),
            Request::Connect { socket, local, remote } => self.connect(now_ns, tcp, source, socket, (local, remote)),
            Request::Send { socket, chunk } => self.post(socket, chunk, |socket| &mut socket.to_send),
            Request::Receive { socket, chunk } => self.post(socket, chunk, |socket| &mut socket.empty),
            Request::Shutdown { socket } => {
                if let Some(entry) = self.table.get_mut(socket) {
                    entry.shut = true;
                    self.enlist(socket);
                }
            }
            Request::SetOption { socket, option } => {
                if let Some(conn) = self.table.get(socket).and_then(Socket::conn) {
                    // A connection that is gone has been told of already.
                    let _ = tcp.set_option(conn, option);
                }
            }
            Request::Lend { socket } => {
                if let Some(entry) = self.table.get_mut(socket) {
                    entry.lent += 1;
                }
            }
            Request::Return { socket } => self.give_back(socket),
            Request::Abort { socket } => {
                if let Some(conn) = self.table.get(socket).and_then(Socket::conn) {
                    tcp.abort(conn);
                    self.fail(tcp, socket, TcpError::Closed);
                }
            }
            Request::Close { socket } => self.close(tcp, socket),
        }
    }

    fn listen(&mut self, tcp: &mut Tcp, socket: SocketId, local: SocketAddr, backlog: u32) {
        let (role, event) = match tcp.listen(local, backlog as usize) {
            Ok(listener) => (Role::Listener(listener), Event::Listening { socket }),
            Err(error) => (Role::Failed, Event::Failed { socket, error }),
        };
        if self.table.insert(Socket::new(socket, role)) {
            self.tell(event);
        } else if let Role::Listener(listener) = role {
            tcp.unlisten(listener);
        }
    }

    fn name(&mut self, listener: SocketId, socket: SocketId) {
        let listens = self.table.get(listener).is_some_and(|entry| matches!(entry.role, Role::Listener(_)));
        if !self.table.insert(Socket::new(socket, if listens { Role::Named } else { Role::Failed })) {
            return;
        }
        match self.table.get_mut(listener) {
            Some(entry) if listens => {
                entry.names.push_back(socket);
                self.enlist(listener);
            }
            _ => self.tell(Event::Failed { socket, error: TcpError::NoConnection }),
        }
    }

    fn connect(
        &mut self,
        now_ns: u64,
        tcp: &mut Tcp,
        source: SourceOf<'_>,
        socket: SocketId,
        (local, remote): (Option<SocketAddr>, SocketAddr),
    ) {
        let local = local.filter(|local| !local.ip().is_unspecified()).or_else(|| {
            let port = local.map_or(0, |local| local.port());
            source(remote.ip()).map(|from| SocketAddr::new(from, port))
        });
        let connected = match local {
            Some(local) => tcp.connect(now_ns, local, remote),
            None => Err(TcpError::Unreachable),
        };
        let role = connected.map_or(Role::Failed, Role::Opening);
        if !self.table.insert(Socket::new(socket, role)) {
            if let Ok(conn) = connected {
                tcp.abort(conn);
            }
            return;
        }
        match connected {
            Ok(conn) => self.own(conn, socket),
            Err(error) => self.tell(Event::Failed { socket, error }),
        }
    }

    fn own(&mut self, conn: ConnId, socket: SocketId) {
        if let Some(owner) = self.by_conn.get_mut(conn.index()) {
            *owner = Some((conn, socket));
        }
    }

    /// Queues a chunk; more than a connection may have under way are not kept.
    fn post(&mut self, socket: SocketId, chunk: Box<Chunk>, queue: impl FnOnce(&mut Socket) -> &mut VecDeque<Box<Chunk>>) {
        let Some(entry) = self.table.get_mut(socket) else { return };
        let queue = queue(entry);
        if queue.len() < self.config.chunks {
            queue.push_back(chunk);
            self.enlist(socket);
        }
    }

    fn close(&mut self, tcp: &mut Tcp, socket: SocketId) {
        let Some(entry) = self.table.get_mut(socket) else { return };
        entry.held = false;
        entry.empty.clear();
        if let Role::Listener(listener) = entry.role {
            entry.role = Role::Failed;
            self.end_listener(tcp, socket, listener);
        }
        self.finish(tcp, socket);
    }

    /// A listener ends; connections that it had names for will not come, and their names are to be closed like any.
    fn end_listener(&mut self, tcp: &mut Tcp, socket: SocketId, listener: ListenerId) {
        tcp.unlisten(listener);
        let Some(entry) = self.table.get_mut(socket) else { return };
        for name in std::mem::take(&mut entry.names) {
            if let Some(entry) = self.table.get_mut(name) {
                entry.role = Role::Failed;
            }
        }
    }

    /// Ends a socket that nobody holds, once all is sent.
    fn finish(&mut self, tcp: &mut Tcp, id: SocketId) {
        let Some(socket) = self.table.get(id) else { return };
        if socket.held || socket.lent > 0 {
            return;
        }
        if let Some(conn) = socket.conn() {
            if !socket.to_send.is_empty() {
                return self.enlist(id);
            }
            tcp.close(conn);
            if let Some(owner) = self.by_conn.get_mut(conn.index()) {
                *owner = None;
            }
        }
        self.table.remove(id);
        self.tell(Event::Closed { socket: id });
    }

    /// One step for one socket; it is listed again if there is more to do.
    fn look_after(&mut self, tcp: &mut Tcp, id: SocketId) {
        let Some(socket) = self.table.get_mut(id) else { return };
        socket.listed = false;
        match socket.role {
            Role::Listener(listener) => self.accept(tcp, id, listener),
            Role::Opening(conn) => self.opening(tcp, id, conn),
            Role::Open(conn) => match self.transfer(tcp, id, conn) {
                Ok(true) => self.enlist(id),
                Ok(false) => {}
                Err(error) => self.fail(tcp, id, error),
            },
            Role::Named | Role::Failed => self.finish(tcp, id),
        }
    }

    fn accept(&mut self, tcp: &mut Tcp, id: SocketId, listener: ListenerId) {
        let Some(&name) = self.table.get(id).and_then(|socket| socket.names.front()) else { return };
        let Some(conn) = tcp.accept(listener) else { return };
        if let Some(socket) = self.table.get_mut(id) {
            socket.names.pop_front();
        }
        self.enlist(id);
        let Some(socket) = self.table.get_mut(name).filter(|socket| socket.role == Role::Named && socket.held) else {
            // The name was closed before its connection came.
            tcp.abort(conn);
            return self.finish(tcp, name);
        };
        socket.role = Role::Opening(conn);
        self.own(conn, name);
        self.enlist(name);
    }

    fn opening(&mut self, tcp: &mut Tcp, id: SocketId, conn: ConnId) {
        match tcp.info(conn) {
            Some(info) if !matches!(info.state, State::SynSent | State::SynReceived | State::Closed) => {
                if let Some(socket) = self.table.get_mut(id) {
                    socket.role = Role::Open(conn);
                }
                self.tell(Event::Connected { socket: id, local: info.local, remote: info.remote });
                self.enlist(id);
            }
            Some(info) if info.state != State::Closed => {
                // Nobody waits for it any more: it need not be opened.
                if self.table.get(id).is_some_and(|socket| !socket.held && socket.lent == 0) {
                    tcp.abort(conn);
                    self.forget(id, conn);
                    self.finish(tcp, id);
                }
            }
            _ => {
                let error = tcp.recv(conn, &mut [0]).err().unwrap_or(TcpError::Closed);
                self.fail(tcp, id, error);
            }
        }
    }

    /// Moves one chunk each way; `Ok(true)`: there may be more.
    fn transfer(&mut self, tcp: &mut Tcp, id: SocketId, conn: ConnId) -> Result<bool, TcpError> {
        let Some(socket) = self.table.get_mut(id) else { return Ok(false) };
        let mut more = false;
        if let Some(chunk) = socket.to_send.front() {
            // Whole or not at all: others may write to the connection between two chunks.
            if tcp.send_all(conn, &[chunk.bytes()])? {
                if let Some(chunk) = socket.to_send.pop_front() {
                    more = true;
                    self.tell(Event::Sent { socket: id, chunk });
                }
            } else if !std::mem::replace(&mut socket.blocked, true) {
                self.blocked.push_back(id);
            }
        }
        let Some(socket) = self.table.get_mut(id) else { return Ok(false) };
        if socket.to_send.is_empty() && std::mem::take(&mut socket.shut) {
            tcp.shutdown(conn)?;
        }
        if !socket.held {
            if socket.to_send.is_empty() {
                self.finish(tcp, id);
            }
            return Ok(more);
        }
        if socket.ended {
            // Only to learn of a failure.
            return tcp.recv(conn, &mut [0]).map(|_| more);
        }
        let Some(mut chunk) = socket.empty.pop_front() else { return Ok(more) };
        match chunk.fill_with(|space| tcp.recv(conn, space)) {
            Ok(Some(0)) => {
                socket.ended = true;
                self.tell(Event::PeerClosed { socket: id });
            }
            Ok(Some(_)) => {
                more = true;
                self.tell(Event::Received { socket: id, chunk });
            }
            Ok(None) => socket.empty.push_front(chunk),
            Err(error) => return Err(error),
        }
        Ok(more)
    }

    fn fail(&mut self, tcp: &mut Tcp, id: SocketId, error: TcpError) {
        let Some(conn) = self.table.get(id).and_then(Socket::conn) else { return };
        tcp.close(conn);
        self.forget(id, conn);
        let Some(socket) = self.table.get_mut(id) else { return };
        if socket.held {
            self.tell(Event::Failed { socket: id, error });
        }
        self.finish(tcp, id);
    }

    /// The socket has no connection any more.
    fn forget(&mut self, id: SocketId, conn: ConnId) {
        if let Some(owner) = self.by_conn.get_mut(conn.index()) {
            *owner = None;
        }
        if let Some(socket) = self.table.get_mut(id) {
            socket.role = Role::Failed;
            socket.to_send.clear();
            socket.empty.clear();
        }
    }
}
