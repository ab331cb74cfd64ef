//! The engine's side of the socket layer: carries calls out on TCP and tells what becomes of connections.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender};
use hugepages::{ChunkPool, Slice};

use super::{BYTES_IN_MAX, CHUNKS_OUT_MAX, Call, Doorbell, Notice, SocketsConfig};
use crate::tcp::{ConnId, Events, ListenerId, State, Tcp, TcpError};

/// Calls carried out in one turn.
const CALLS_PER_TURN: usize = 64;
/// Connections seen to in one turn.
const CONNS_PER_TURN: usize = 64;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 32;
/// Chunks that one connection tells before the next one has its turn.
const CHUNKS_PER_CONN: usize = 2;

/// A connection that a program holds.
struct Conn {
    id: ConnId,
    /// Number of the call that is to be answered once it is established.
    request: Option<u32>,
    /// What TCP has not taken yet, and how much of the first chunk it has.
    out: VecDeque<Slice>,
    out_at: usize,
    /// Chunks taken that the program has not been told of.
    taken: u32,
    /// Bytes that may still be told.
    credit: usize,
    failed: Option<TcpError>,
    /// Nothing is told any more: the end of data, or a failure, was.
    over: bool,
    /// It waits in the queue of those to be seen to.
    queued: bool,
    shutdown: bool,
    closing: bool,
}

/// One entry of the table; the queue's memory stays when a connection goes.
#[derive(Default)]
struct Place {
    conn: Option<Conn>,
    spare: VecDeque<Slice>,
}

/// The engine's half.
pub struct EngineSockets {
    calls: Receiver<Call>,
    notices: Sender<Notice>,
    pool: ChunkPool,
    doorbell: Doorbell,
    places: Box<[Place]>,
    /// Connections to be seen to, each at most once.
    ready: VecDeque<ConnId>,
    /// Listeners with connections to be accepted.
    acceptable: VecDeque<ListenerId>,
    /// An answer that found the ring full; no call is carried out before it is told.
    answer: Option<Notice>,
    told: bool,
}

impl std::fmt::Debug for EngineSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EngineSockets({} calls wait, {} connections ready)", self.calls.len(), self.ready.len())
    }
}

impl EngineSockets {
    pub(super) fn new(config: SocketsConfig, calls: Receiver<Call>, notices: Sender<Notice>, pool: ChunkPool, doorbell: Doorbell) -> Self {
        let place = || Place { conn: None, spare: VecDeque::with_capacity(CHUNKS_OUT_MAX) };
        Self {
            calls,
            notices,
            pool,
            doorbell,
            places: (0..config.connections_max).map(|_| place()).collect(),
            ready: VecDeque::with_capacity(config.connections_max),
            acceptable: VecDeque::with_capacity(64),
            answer: None,
            told: false,
        }
    }

    /// True when a turn would find something to do that TCP does not know of: to be asked before the engine core sleeps.
    pub fn has_work(&self) -> bool {
        !self.calls.is_empty() || !self.ready.is_empty() || !self.acceptable.is_empty() || self.answer.is_some()
    }

    /// One turn: calls, then what TCP has to tell. Anything that was done is answered with true.
    pub fn turn(&mut self, now_ns: u64, tcp: &mut Tcp) -> bool {
        let mut worked = self.take_calls(now_ns, tcp);
        while let Some(listener) = tcp.next_acceptable() {
            if self.acceptable.len() < self.acceptable.capacity() {
                self.acceptable.push_back(listener);
            }
        }
        while let Some((id, events)) = tcp.next_event() {
            if let Some(conn) = conn_mut(&mut self.places, id) {
                if events.any(Events::FAILED) && conn.failed.is_none() {
                    conn.failed = Some(why(tcp, id));
                }
                enqueue(&mut self.ready, conn);
            }
        }
        worked |= self.accept(tcp);
        for _ in 0..CONNS_PER_TURN.min(self.ready.len()) {
            let Some(id) = self.ready.pop_front() else { break };
            worked = true;
            self.see_to(id, tcp);
        }
        if std::mem::take(&mut self.told) {
            self.doorbell.ring();
        }
        worked
    }

    fn take_calls(&mut self, now_ns: u64, tcp: &mut Tcp) -> bool {
        if let Some(answer) = self.answer.take() {
            self.tell_or_keep(answer);
        }
        let mut worked = false;
        for _ in 0..CALLS_PER_TURN {
            if self.answer.is_some() {
                break;
            }
            let Ok(call) = self.calls.try_recv() else { break };
            worked = true;
            self.carry_out(call, now_ns, tcp);
        }
        worked
    }

    fn carry_out(&mut self, call: Call, now_ns: u64, tcp: &mut Tcp) {
        match call {
            Call::Listen { request, local, backlog } => {
                let outcome = tcp.listen(local, backlog);
                self.tell_or_keep(Notice::Listening { request, outcome });
            }
            Call::Unlisten(listener) => {
                self.acceptable.retain(|&waiting| waiting != listener);
                tcp.unlisten(listener);
            }
            Call::Connect { request, local, remote } => match tcp.connect(now_ns, local, remote) {
                Ok(id) => {
                    if !self.enter(id, Some(request)) {
                        tcp.abort(id);
                        self.tell_or_keep(Notice::Refused { request, why: TcpError::TooMany });
                    }
                }
                Err(why) => self.tell_or_keep(Notice::Refused { request, why }),
            },
            Call::Send(id, bytes) => self.of(id, |conn| {
                // A program that sends more than it may breaks the rules; its bytes are not kept.
                if conn.out.len() < CHUNKS_OUT_MAX {
                    conn.out.push_back(bytes);
                }
            }),
            Call::Read(id, bytes) => self.of(id, |conn| conn.credit = (conn.credit + bytes as usize).min(BYTES_IN_MAX)),
            Call::Shutdown(id) => self.of(id, |conn| conn.shutdown = true),
            Call::SetOption(id, option) => {
                // A connection that is gone has told so.
                let _ = tcp.set_option(id, option);
            }
            Call::Close(id) => self.of(id, |conn| conn.closing = true),
            Call::Abort(id) => {
                tcp.abort(id);
                self.leave(id);
            }
        }
    }

    /// Does something to a connection and has it seen to.
    fn of(&mut self, id: ConnId, change: impl FnOnce(&mut Conn)) {
        if let Some(conn) = conn_mut(&mut self.places, id) {
            change(conn);
            enqueue(&mut self.ready, conn);
        }
    }

    /// Makes an entry for a connection; false when the table is smaller than TCP's.
    fn enter(&mut self, id: ConnId, request: Option<u32>) -> bool {
        let Some(place) = self.places.get_mut(id.index()) else { return false };
        let mut out = match place.conn.take() {
            // TCP has used the place again: what was there is gone.
            Some(gone) => gone.out,
            None => std::mem::take(&mut place.spare),
        };
        out.clear();
        let conn = Conn {
            id,
            request,
            out,
            out_at: 0,
            taken: 0,
            credit: BYTES_IN_MAX,
            failed: None,
            over: false,
            queued: false,
            shutdown: false,
            closing: false,
        };
        place.conn = Some(conn);
        true
    }

    fn leave(&mut self, id: ConnId) {
        let Some(place) = self.places.get_mut(id.index()) else { return };
        if let Some(conn) = place.conn.take_if(|conn| conn.id == id) {
            place.spare = conn.out;
            place.spare.clear();
        }
    }

    fn accept(&mut self, tcp: &mut Tcp) -> bool {
        let mut accepted = 0;
        while accepted < ACCEPTS_PER_TURN && !self.notices.is_full() {
            let Some(&listener) = self.acceptable.front() else { break };
            let Some(id) = tcp.accept(listener) else {
                self.acceptable.pop_front();
                continue;
            };
            accepted += 1;
            let Some(info) = tcp.info(id) else { continue };
            if !self.enter(id, None) {
                tcp.abort(id);
                continue;
            }
            self.tell(Notice::Accepted { listener, conn: id, local: info.local, remote: info.remote });
            self.of(id, |_| {});
        }
        accepted > 0
    }

    /// Moves what can be moved in both directions.
    fn see_to(&mut self, id: ConnId, tcp: &mut Tcp) {
        let Some(conn) = conn_mut(&mut self.places, id) else { return };
        conn.queued = false;
        conn.push(tcp);
        if conn.closing {
            if conn.out.is_empty() || conn.failed.is_some() {
                tcp.close(id);
                self.leave(id);
            }
            return;
        }
        if !self.tell_of(id, tcp)
            && let Some(conn) = conn_mut(&mut self.places, id)
        {
            enqueue(&mut self.ready, conn);
        }
    }

    /// Tells what there is to tell of a connection; false when there is more than fits now.
    fn tell_of(&mut self, id: ConnId, tcp: &mut Tcp) -> bool {
        for told in 0.. {
            if self.notices.is_full() {
                return false;
            }
            let Some(conn) = conn_mut(&mut self.places, id) else { return true };
            let next = if told < CHUNKS_PER_CONN { conn.next_notice(tcp, &self.pool) } else { Next::Later };
            match next {
                Next::Tell(notice) => self.tell(notice),
                Next::Leave(notice) => {
                    tcp.close(id);
                    self.leave(id);
                    self.tell(notice);
                    return true;
                }
                Next::Later => return false,
                Next::Nothing => return true,
            }
        }
        true
    }

    /// For notices that are made when there is room.
    fn tell(&mut self, notice: Notice) {
        // A control core that is gone needs to know nothing.
        let _ = self.notices.try_send(notice);
        self.told = true;
    }

    fn tell_or_keep(&mut self, notice: Notice) {
        if self.notices.is_full() {
            self.answer = Some(notice);
        } else {
            self.tell(notice);
        }
    }
}

/// What is to be told of a connection next.
enum Next {
    Tell(Notice),
    /// Told, and nothing is left of the connection.
    Leave(Notice),
    /// There is something, but not now.
    Later,
    Nothing,
}

impl Conn {
    /// Gives TCP what the program has sent.
    fn push(&mut self, tcp: &mut Tcp) {
        if self.request.is_some() || self.failed.is_some() {
            return;
        }
        while let Some(chunk) = self.out.front() {
            let rest = chunk.get(self.out_at..).unwrap_or(&[]);
            match tcp.send(self.id, &[rest]) {
                Ok(taken) if taken >= rest.len() => {
                    self.out.pop_front();
                    self.out_at = 0;
                    self.taken += 1;
                }
                Ok(taken) => {
                    self.out_at += taken;
                    return;
                }
                Err(why) => {
                    self.failed = Some(why);
                    return;
                }
            }
        }
        if std::mem::take(&mut self.shutdown) {
            // Of a connection that is over, the reader hears.
            let _ = tcp.shutdown(self.id);
        }
    }

    fn next_notice(&mut self, tcp: &mut Tcp, pool: &ChunkPool) -> Next {
        if let Some(request) = self.request {
            if let Some(why) = self.failed {
                return Next::Leave(Notice::Refused { request, why });
            }
            let established = tcp.info(self.id).filter(|info| !matches!(info.state, State::SynSent | State::SynReceived | State::Closed));
            let Some(info) = established else { return Next::Nothing };
            self.request = None;
            self.push(tcp);
            return Next::Tell(Notice::Connected { request, conn: self.id, local: info.local, remote: info.remote });
        }
        if self.taken > 0 {
            return Next::Tell(Notice::Taken(self.id, std::mem::take(&mut self.taken)));
        }
        if self.over {
            return Next::Nothing;
        }
        if self.credit > 0 {
            let Some(mut chunk) = pool.take() else { return Next::Later };
            let room = chunk.len().min(self.credit);
            match chunk.get_mut(..room).map_or(Ok(None), |buf| tcp.recv(self.id, buf)) {
                Ok(Some(0)) => {
                    self.over = true;
                    return Next::Tell(Notice::EndOfData(self.id));
                }
                Ok(Some(count)) => {
                    self.credit -= count.min(self.credit);
                    return Next::Tell(Notice::Data(self.id, chunk.freeze(count)));
                }
                Ok(None) => {}
                Err(why) => self.failed = Some(why),
            }
        }
        match self.failed {
            Some(why) => {
                self.over = true;
                Next::Tell(Notice::Failed(self.id, why))
            }
            None => Next::Nothing,
        }
    }
}

/// Why a connection failed, as `recv` tells it once nothing is left to read.
fn why(tcp: &mut Tcp, id: ConnId) -> TcpError {
    match tcp.send(id, &[]) {
        Err(why) => why,
        Ok(_) => TcpError::Closed,
    }
}

fn conn_mut(places: &mut [Place], id: ConnId) -> Option<&mut Conn> {
    places.get_mut(id.index())?.conn.as_mut().filter(|conn| conn.id == id)
}

/// Queues a connection once.
fn enqueue(ready: &mut VecDeque<ConnId>, conn: &mut Conn) {
    if !conn.queued && ready.len() < ready.capacity() {
        conn.queued = true;
        ready.push_back(conn.id);
    }
}
