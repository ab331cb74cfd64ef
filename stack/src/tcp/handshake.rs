//! Listeners: SYNs, the backlog, SYN cookies when it is full (RFC 4987), and connections that wait to be accepted.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::Tcp;
use super::api::{ConnId, ListenerId, MS, State};
use super::conn::{Conn, own_mss, reply, window_scale};
use super::input::refuse;
use super::replies::Reply;
use super::wire::{Header, Incoming, Options, flag};

/// How long after the last cookie one may come back.
const COOKIE_LIFE_NS: u64 = 128_000 * MS;
/// In the low bits of the timestamp that goes with a cookie: the peer's window scale, and whether it knows SACK.
const COOKIE_BITS: u32 = 31;
const COOKIE_SACK: u32 = 16;
const COOKIE_NO_SCALE: u32 = 15;

#[derive(Debug)]
pub(super) struct Listener {
    pub generation: u32,
    /// `None`: a free place.
    pub local: Option<SocketAddr>,
    backlog: usize,
    /// Handshakes under way.
    half_open: usize,
    pub queue: VecDeque<ConnId>,
    cookies_until_ns: u64,
    /// It was told that there is something to accept.
    pub told: bool,
}

impl Listener {
    pub const VACANT: Self =
        Self { generation: 0, local: None, backlog: 0, half_open: 0, queue: VecDeque::new(), cookies_until_ns: 0, told: false };

    pub fn open(&mut self, local: SocketAddr, backlog: usize) {
        let generation = self.generation.wrapping_add(1);
        let queue = VecDeque::with_capacity(backlog);
        *self = Self { generation, local: Some(local), backlog, queue, ..Self::VACANT };
    }

    fn takes(&self, local: SocketAddr) -> bool {
        self.local.is_some_and(|own| {
            let family = own.is_ipv4() == local.is_ipv4();
            own.port() == local.port() && family && (own.ip() == local.ip() || own.ip().is_unspecified())
        })
    }
}

impl Tcp {
    /// The listener for that address; one for exactly that address before one for any.
    fn listener_for(&self, local: SocketAddr) -> Option<usize> {
        let fit = |(_, listener): &(usize, &Listener)| listener.takes(local);
        let exact = |listener: &Listener| listener.local.is_some_and(|own| own.ip() == local.ip());
        self.listeners.iter().enumerate().filter(fit).max_by_key(|(_, listener)| exact(listener)).map(|(index, _)| index)
    }

    /// A segment without a connection (RFC 9293 3.10.7.1 and 3.10.7.2).
    pub(super) fn segment_for_listener(&mut self, segment: &Incoming) {
        let header = &segment.header;
        let local = SocketAddr::new(segment.tuple.local, segment.tuple.local_port);
        if header.has(flag::RST) {
            return;
        }
        let Some(listener) = self.listener_for(local) else { return refuse(&mut self.shared, segment) };
        if header.has(flag::ACK) {
            return self.take_cookie(listener, segment);
        }
        if !header.has(flag::SYN) || header.has(flag::FIN) {
            return;
        }
        let Some(entry) = self.listeners.get(listener) else { return };
        let room = entry.half_open + entry.queue.len() < entry.backlog;
        if let Some(index) = room.then(|| self.open_half(listener, segment, None)).flatten() {
            self.drive(index, |conn, shared| {
                conn.syn_due = true;
                conn.wake(shared);
            });
            return;
        }
        self.send_cookie(listener, segment);
    }

    /// A connection in SYN-RECEIVED.
    fn open_half(&mut self, listener: usize, segment: &Incoming, cookie: Option<&Header>) -> Option<u32> {
        let now_ns = self.now_ns;
        let tuple = segment.tuple;
        let iss = match cookie {
            Some(_) => segment.header.ack - 1,
            None => self.shared.keys.isn(&tuple, now_ns),
        };
        let index = self.open_place(tuple, iss)?;
        let entry = self.listeners.get_mut(listener)?;
        let conn = self.conns.get_mut(index as usize)?;
        conn.learn_peer(&self.shared, now_ns, cookie.unwrap_or(&segment.header));
        conn.state = State::SynReceived;
        conn.via = segment.via;
        conn.listener = Some(ListenerId { index: listener as u32, generation: entry.generation });
        entry.half_open += 1;
        if cookie.is_some() {
            conn.snd.nxt = iss + 1;
            // The cookie came with a window, and the segment that brings it back may have payload.
            conn.offer_window(&self.shared);
        }
        Some(index)
    }

    fn send_cookie(&mut self, listener: usize, segment: &Incoming) {
        let (tuple, header, now_ns) = (segment.tuple, &segment.header, self.now_ns);
        let Some(entry) = self.listeners.get_mut(listener) else { return };
        entry.cookies_until_ns = now_ns + COOKIE_LIFE_NS;
        let config = &self.shared.config;
        let own = own_mss(config.mtu_bytes, tuple.local.is_ipv4());
        let iss = self.shared.keys.cookie(&tuple, header.seq, header.options.mss.unwrap_or(536), now_ns);
        let mut options = Options { mss: Some(own), ..Options::default() };
        if let Some((value, _)) = header.options.timestamps {
            // The clock as every other segment of this connection has it, but for the low bits; never ahead of it.
            let clock = ((now_ns / MS) as u32).wrapping_add(self.shared.keys.timestamp_offset(&tuple));
            let bits = header.options.window_scale.map_or(COOKIE_NO_SCALE, u32::from)
                | if header.options.sack_permitted { COOKIE_SACK } else { 0 };
            let back = if bits > clock & COOKIE_BITS { COOKIE_BITS + 1 } else { 0 };
            options.timestamps = Some(((clock & !COOKIE_BITS | bits).wrapping_sub(back), value));
            options.window_scale = header.options.window_scale.map(|_| window_scale(self.shared.recv_window_max()));
            options.sack_permitted = header.options.sack_permitted;
        }
        let window = config.recv_buffer_bytes.min(0xffff) as u16;
        let answer = Header { seq: iss, ack: header.seq + 1, flags: flag::SYN | flag::ACK, window, options };
        self.shared.counters.cookies_sent += 1;
        reply(&mut self.shared, Reply { tuple, header: answer, via: segment.via });
    }

    /// The third segment of a handshake that only the peer remembers.
    fn take_cookie(&mut self, listener: usize, segment: &Incoming) {
        let (header, now_ns) = (&segment.header, self.now_ns);
        let Some(entry) = self.listeners.get(listener) else { return };
        let good = if now_ns < entry.cookies_until_ns && !header.has(flag::SYN) {
            self.shared.keys.check_cookie(&segment.tuple, header.seq - 1, header.ack - 1, now_ns)
        } else {
            None
        };
        let Some(mss) = good else { return refuse(&mut self.shared, segment) };
        if entry.queue.len() >= entry.backlog {
            // The peer sends again.
            return;
        }
        let bits = header.options.timestamps.map(|(_, echo)| echo & COOKIE_BITS);
        let scale = bits.map(|bits| bits & COOKIE_NO_SCALE).filter(|scale| *scale < COOKIE_NO_SCALE).map(|scale| scale as u8);
        let options = Options {
            mss: Some(mss),
            window_scale: scale,
            sack_permitted: bits.is_some_and(|bits| bits & COOKIE_SACK != 0),
            timestamps: header.options.timestamps,
            ..Options::default()
        };
        let syn = Header { seq: header.seq - 1, ack: header.ack, flags: flag::SYN, window: header.window, options };
        let Some(index) = self.open_half(listener, segment, Some(&syn)) else { return };
        self.shared.counters.cookies_accepted += 1;
        self.drive(index, |conn, shared| conn.segment_arrives(shared, now_ns, segment));
    }

    /// A connection has left SYN-RECEIVED.
    pub(super) fn handshake_over(&mut self, index: u32) {
        let Some(conn) = self.conns.get(index as usize) else { return };
        let Some(id) = conn.listener else { return };
        let name = ConnId { index, generation: conn.generation };
        let lives = conn.state != State::Closed;
        let Some(entry) = self.listeners.get_mut(id.index as usize).filter(|entry| entry.generation == id.generation) else { return };
        entry.half_open = entry.half_open.saturating_sub(1);
        if lives && entry.queue.len() < entry.backlog {
            entry.queue.push_back(name);
            if !std::mem::replace(&mut entry.told, true) {
                self.acceptable.push(id.index);
            }
        } else if lives {
            self.drive(index, Conn::abandon);
        }
    }
}
