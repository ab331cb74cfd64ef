//! The calls of users: listening, connecting, bytes in and out, shutting down, asking.

use std::net::SocketAddr;

use super::Tcp;
use super::api::{ConnId, ConnInfo, Events, ListenerId, State, TcpError, TcpOption};
use super::conn::{Conn, Fin};
use super::handshake::Listener;
use super::wire::Tuple;

impl Tcp {
    /// Waits for connections to `local`; an unspecified address is any. `backlog` (at least 1) bounds the handshakes under way and the
    /// connections not yet accepted, together; beyond that SYN cookies are sent.
    pub fn listen(&mut self, local: SocketAddr, backlog: usize) -> Result<ListenerId, TcpError> {
        if local.port() == 0 {
            return Err(TcpError::BadAddress);
        }
        if self.listeners.iter().any(|listener| listener.local == Some(local)) {
            return Err(TcpError::AddressInUse);
        }
        let free = self.listeners.iter_mut().enumerate().find(|(_, listener)| listener.local.is_none());
        let Some((index, listener)) = free else { return Err(TcpError::TooMany) };
        listener.open(local, backlog.max(1));
        Ok(ListenerId { index: index as u32, generation: listener.generation })
    }

    fn listener_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.listeners.get_mut(id.index as usize).filter(|listener| listener.generation == id.generation && listener.local.is_some())
    }

    /// Ends a listener. Connections that were accepted live on, the others are reset.
    pub fn unlisten(&mut self, listener: ListenerId) {
        let Some(entry) = self.listener_mut(listener) else { return };
        entry.local = None;
        entry.queue.clear();
        for index in 0..self.conns.len() as u32 {
            if self.conns[index as usize].listener == Some(listener) {
                self.drive(index, Conn::abandon);
            }
        }
    }

    /// Opens a connection. Port 0 of `local` is chosen here (RFC 6056 3.3.3).
    pub fn connect(&mut self, now_ns: u64, local: SocketAddr, remote: SocketAddr) -> Result<ConnId, TcpError> {
        self.now_ns = self.now_ns.max(now_ns);
        let specified = !local.ip().is_unspecified() && !remote.ip().is_unspecified() && remote.port() != 0;
        if !specified || local.is_ipv4() != remote.is_ipv4() {
            return Err(TcpError::BadAddress);
        }
        let mut tuple = Tuple { local: local.ip(), remote: remote.ip(), local_port: local.port(), remote_port: remote.port() };
        if tuple.local_port == 0 {
            tuple.local_port = self.ephemeral_port(tuple).ok_or(TcpError::AddressInUse)?;
        } else if self.lookup(&tuple).is_some() {
            return Err(TcpError::AddressInUse);
        }
        let iss = self.shared.keys.isn(&tuple, self.now_ns);
        let index = self.open_place(tuple, iss).ok_or(TcpError::TooMany)?;
        let conn = self.conns.get_mut(index as usize).ok_or(TcpError::TooMany)?;
        conn.held = true;
        conn.syn_due = true;
        conn.wake(&mut self.shared);
        Ok(ConnId { index, generation: conn.generation })
    }

    fn ephemeral_port(&mut self, tuple: Tuple) -> Option<u16> {
        let (first, last) = self.shared.config.ephemeral_ports;
        let count = u32::from(last.max(first) - first) + 1;
        let offset = self.shared.keys.port_offset(&tuple);
        for _ in 0..count {
            self.port_counter = self.port_counter.wrapping_add(1);
            let port = first + (offset.wrapping_add(self.port_counter) % count) as u16;
            if self.lookup(&Tuple { local_port: port, ..tuple }).is_none() {
                return Some(port);
            }
        }
        None
    }

    /// The next established connection of a listener.
    pub fn accept(&mut self, listener: ListenerId) -> Option<ConnId> {
        loop {
            let entry = self.listener_mut(listener)?;
            let Some(id) = entry.queue.pop_front() else {
                entry.told = false;
                return None;
            };
            // One that was reset while it waited is gone.
            let Some(conn) = self.conns.get_mut(id.index as usize).filter(|conn| conn.generation == id.generation && conn.listed) else {
                continue;
            };
            conn.held = true;
            conn.listener = None;
            let mut events = Events::CONNECTED | Events::WRITABLE;
            if conn.rcv.queue.readable() > 0 {
                events.add(Events::READABLE);
            }
            if conn.peer_has_closed() {
                events.add(Events::PEER_CLOSED);
            }
            conn.tell(&mut self.shared, events);
            return Some(id);
        }
    }

    fn conn(&self, id: ConnId) -> Result<&Conn, TcpError> {
        let conn = self.conns.get(id.index as usize).ok_or(TcpError::NoConnection)?;
        hugepages::prefetch(conn);
        if conn.generation == id.generation && conn.held { Ok(conn) } else { Err(TcpError::NoConnection) }
    }

    /// Runs `call` on a connection that its user has.
    fn with<T>(&mut self, id: ConnId, call: impl FnOnce(&mut Conn, &mut super::Shared) -> T) -> Result<T, TcpError> {
        self.conn(id)?;
        self.drive(id.index, call).ok_or(TcpError::NoConnection)
    }

    /// Queues as much of `parts`, one after the other, as there is room for, and answers how many bytes that is. When it is less than all,
    /// [`Events::WRITABLE`] tells of new room.
    pub fn send(&mut self, conn: ConnId, parts: &[&[u8]]) -> Result<usize, TcpError> {
        self.conn(conn)?.may_send()?;
        self.with(conn, |conn, shared| {
            let limit = conn.send_limit(shared);
            let mut taken = 0;
            for part in parts {
                let room = conn.snd.queue.room(&shared.blocks, limit).min(part.len());
                let pushed = conn.snd.queue.push(&mut shared.blocks, &part[..room]);
                taken += pushed;
                if pushed < part.len() {
                    conn.snd.writer_waits = true;
                    if conn.snd.queue.len() < limit {
                        shared.starved.push(conn.index);
                    }
                    break;
                }
            }
            conn.wake(shared);
            taken
        })
    }

    /// Queues all of `parts` or nothing (false): for messages that must not be cut. After false, [`Events::WRITABLE`] tells of new room.
    pub fn send_all(&mut self, conn: ConnId, parts: &[&[u8]]) -> Result<bool, TcpError> {
        self.conn(conn)?.may_send()?;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.send_room(conn) >= len {
            return self.send(conn, parts).map(|_| true);
        }
        self.with(conn, |conn, shared| {
            conn.snd.writer_waits = true;
            if conn.snd.queue.len() + len <= conn.send_limit(shared) {
                shared.starved.push(conn.index);
            }
            false
        })
    }

    /// Bytes that `send` would take now; 0 for a connection that is gone or closed for sending.
    pub fn send_room(&self, conn: ConnId) -> usize {
        let Ok(conn) = self.conn(conn) else { return 0 };
        if conn.may_send().is_err() {
            return 0;
        }
        conn.snd.queue.room(&self.shared.blocks, conn.send_limit(&self.shared))
    }

    /// Bytes queued for sending that are not acknowledged.
    pub fn send_queued_bytes(&self, conn: ConnId) -> usize {
        self.conn(conn).map_or(0, |conn| conn.snd.queue.len())
    }

    /// Takes received bytes. `Ok(Some(0))` for a `buf` that is not empty: the peer has shut its direction down and everything was taken.
    /// `Ok(None)`: nothing there yet.
    pub fn recv(&mut self, conn: ConnId, buf: &mut [u8]) -> Result<Option<usize>, TcpError> {
        self.with(conn, |conn, shared| {
            let len = conn.rcv.queue.read(&mut shared.blocks, buf);
            if len > 0 {
                conn.update_window_if_worthwhile(shared);
                return Ok(Some(len));
            }
            if let Some(error) = conn.error {
                return Err(error);
            }
            if conn.rcv.queue.readable() == 0 && (conn.peer_has_closed() || conn.state == State::Closed) {
                return Ok(Some(0));
            }
            Ok(None)
        })?
    }

    /// Shuts our direction down: FIN follows what is queued. Receiving goes on.
    pub fn shutdown(&mut self, conn: ConnId) -> Result<(), TcpError> {
        self.with(conn, |conn, shared| conn.shutdown(shared))
    }

    /// The connection has left the table; its place waits for the name to be given back.
    fn is_over(&self, id: ConnId) -> bool {
        self.conn(id).is_ok_and(|conn| !conn.listed)
    }

    /// Gives the name back: what is queued is sent, then FIN; the rest happens unseen. With unread data, or when more arrives, the peer gets a
    /// reset (RFC 2525 2.17).
    pub fn close(&mut self, conn: ConnId) {
        let (now_ns, over) = (self.now_ns, self.is_over(conn));
        let worked = self.with(conn, |conn, shared| {
            let unread = conn.rcv.queue.readable() > 0;
            conn.held = false;
            conn.events = Events::default();
            if conn.state == State::SynSent {
                return conn.end(shared);
            }
            if unread && !matches!(conn.state, State::Closed | State::TimeWait) {
                return conn.abandon(shared);
            }
            conn.shutdown(shared);
            if conn.state == State::FinWait2 {
                conn.timers.state_ns = now_ns + shared.config.fin_wait_ns;
            }
        });
        if worked.is_ok() && over {
            self.vacate(conn.index);
        }
    }

    /// Resets the connection and gives the name back.
    pub fn abort(&mut self, conn: ConnId) {
        let over = self.is_over(conn);
        let worked = self.with(conn, |conn, shared| {
            conn.held = false;
            conn.events = Events::default();
            conn.abandon(shared);
        });
        if worked.is_ok() && over {
            self.vacate(conn.index);
        }
    }

    /// Sets an option.
    pub fn set_option(&mut self, conn: ConnId, option: TcpOption) -> Result<(), TcpError> {
        self.with(conn, |conn, shared| {
            match option {
                TcpOption::NoDelay(on) => conn.no_delay = on,
                TcpOption::KeepAlive(keep_alive) => {
                    conn.keep_alive = keep_alive;
                    conn.timers.probe_ns = super::conn::NEVER;
                }
                TcpOption::UserTimeoutNs(timeout_ns) => conn.user_timeout_ns = timeout_ns,
            }
            conn.wake(shared);
        })
    }

    /// What is known of a connection.
    pub fn info(&self, conn: ConnId) -> Option<ConnInfo> {
        let conn = self.conn(conn).ok()?;
        let (snd, tuple) = (&conn.snd, &conn.tuple);
        Some(ConnInfo {
            local: SocketAddr::new(tuple.local, tuple.local_port),
            remote: SocketAddr::new(tuple.remote, tuple.remote_port),
            state: conn.state,
            mss_bytes: snd.mss as usize,
            cwnd_bytes: snd.congestion.cwnd,
            ssthresh_bytes: snd.congestion.ssthresh,
            in_flight_bytes: snd.in_flight(),
            srtt_ns: snd.rtt.srtt_ns,
            min_rtt_ns: snd.rtt.min_ns,
            rto_ns: snd.rtt.base_rto_ns(),
            send_window_bytes: u64::from(snd.window),
            send_queued_bytes: snd.queue.len(),
            recv_queued_bytes: conn.rcv.queue.readable(),
            retransmits: snd.retransmits,
            rtos: snd.rtos,
            waits_for_ifq: self.shared.waiting.contains(conn.index),
        })
    }

    /// The next connection of which something is to be told. Bounded by the number of connections: what happens again before it is taken is
    /// told once.
    pub fn next_event(&mut self) -> Option<(ConnId, Events)> {
        while let Some(index) = self.shared.events.pop() {
            let Some(conn) = self.conns.get_mut(index as usize).filter(|conn| conn.held) else { continue };
            let events = std::mem::take(&mut conn.events);
            if events != Events::default() {
                return Some((ConnId { index, generation: conn.generation }, events));
            }
        }
        None
    }

    /// The next listener with a connection to accept. It is told of again only after [`Tcp::accept`] has answered `None`.
    pub fn next_acceptable(&mut self) -> Option<ListenerId> {
        while let Some(index) = self.acceptable.pop() {
            let listener = self.listeners.get(index as usize);
            if let Some(listener) = listener.filter(|listener| listener.local.is_some()) {
                return Some(ListenerId { index, generation: listener.generation });
            }
        }
        None
    }
}

impl Conn {
    fn may_send(&self) -> Result<(), TcpError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.state {
            State::SynSent | State::SynReceived => Err(TcpError::NotConnected),
            State::Established | State::CloseWait if self.snd.fin == Fin::No => Ok(()),
            _ => Err(TcpError::Closed),
        }
    }

    /// The peer's FIN has come, and everything before it.
    fn peer_has_closed(&self) -> bool {
        self.rcv.fin.is_some_and(|fin| fin.lt(self.rcv.nxt))
    }

    fn shutdown(&mut self, shared: &mut super::Shared) {
        self.state = match self.state {
            State::Established => State::FinWait1,
            State::CloseWait => State::LastAck,
            // FIN follows when the handshake is done.
            State::SynReceived => State::SynReceived,
            _ => return,
        };
        self.snd.fin = Fin::Queued;
        self.wake(shared);
    }

    /// The reader has made room: tells the peer if it is running out of window.
    fn update_window_if_worthwhile(&mut self, shared: &mut super::Shared) {
        let offered = self.rcv.edge.since(self.rcv.nxt) as usize;
        let open = matches!(self.state, State::Established | State::FinWait1 | State::FinWait2);
        if open && offered < self.recv_limit(shared) / 2 && self.space(shared) as usize > offered {
            self.ack_now(shared);
        }
    }
}
