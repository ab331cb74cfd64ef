//! The load generator's clients and their sockets: one thread, one epoll instance, all clients.
//!
//! RTSP connections wake the loop at once, since their answer times are measured here. UDP sockets do not: their packets carry the kernel's
//! receive time, so they are taken in sweeps of a few milliseconds, hundreds of packets per system call. That keeps the generator cheap, and
//! spares the sender the wake-up that it would pay for on loopback with each packet.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;

use socket2::Socket;

use super::client::{Client, Transport};
use super::options::{Options, TransportKind};
use super::rtcp;
use super::session::{MeterSettings, Outcome, Session};
use super::sockets::{self, Addresses, Pair};
use super::sys::{self, Batch, Epoll};
use super::totals::Totals;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000 * MS;
/// A connection that is not open after this time has failed.
const CONNECT_MAX_NS: u64 = 10 * SECOND;
/// Between the end of a session and the next one of the same client: late packets must not be taken for the next session's.
const PAUSE_NS: u64 = 300 * MS;
/// Records kept among all streams before they are judged (16 bytes each).
const RECORDS_MAX: usize = 12 << 20;
const READ_BYTES: usize = 256 << 10;

const TOKEN_TCP: u64 = 0;
const TOKEN_UDP: u64 = 1 << 40;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An address that is no RTSP URL.
    #[error("{0}: not an RTSP URL; write rtsp://HOST[:PORT]/PATH")]
    Url(String),
    /// The host has no address.
    #[error("{0}: {1}")]
    Resolve(String, io::Error),
    /// More clients than one run can have.
    #[error("{0} clients are more than one run on this machine can tell apart ({max})", max = sockets::SHARED_CLIENTS_MAX)]
    TooMany(usize),
    /// Not enough open files.
    #[error("{clients} clients need {needed} open files, and the limit is {limit}; raise it (ulimit -n {needed})")]
    OpenFiles {
        /// Asked.
        clients: usize,
        /// Files needed.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// Not begun, or between two sessions.
    Idle,
    Connecting,
    Open,
}

/// One client with its connection.
struct Slot {
    link: Link,
    client: Client,
    session: Session,
    socket: Option<Socket>,
    pairs: Vec<Pair>,
    server: SocketAddr,
    url: Rc<str>,
    connect_ns: u64,
    wants_write: bool,
    seek_ns: u64,
    leave_ns: u64,
    again_ns: u64,
    /// It is counted as one that the ramp waits for.
    unsettled: bool,
}

/// All clients and what they share.
pub(super) struct Runner<'a> {
    pub(super) options: &'a Options,
    slots: Vec<Slot>,
    pub(super) totals: Totals,
    wheel: pacing::Wheel,
    epoll: Epoll,
    /// One pair per track, when clients share sockets.
    pub(super) shared: Vec<Pair>,
    addresses: Option<Addresses>,
    batch: Batch,
    buffer: Vec<u8>,
    settings: MeterSettings,
    pub(super) playing: u64,
    pub(super) unsettled: usize,
    pub(super) stopping: bool,
    /// What to subtract from the kernel's receive times to get monotonic time.
    realtime_offset_ns: u64,
    sweep_at_ns: u64,
    ready: Vec<(u64, bool)>,
    random: u64,
}

/// Takes an RTSP URL apart.
fn server_of(url: &str) -> Result<SocketAddr, LoadError> {
    let bad = || LoadError::Url(url.to_owned());
    let rest = url.strip_prefix("rtsp://").ok_or_else(bad)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if has_port { authority.to_owned() } else { format!("{authority}:554") };
    let mut addresses = with_port.to_socket_addrs().map_err(|e| LoadError::Resolve(with_port.clone(), e))?;
    addresses.next().ok_or_else(bad)
}

impl<'a> Runner<'a> {
    pub(super) fn new(options: &'a Options) -> Result<Self, LoadError> {
        let mut servers: Vec<(String, SocketAddr)> = Vec::new();
        let mut slots = Vec::with_capacity(options.clients);
        let mut settings = MeterSettings { drift_ppm: 0.0, settle_ns: (options.settle * 1e9) as u64, block: 0 };
        settings.block = (RECORDS_MAX / options.clients.max(1)).clamp(1024, 16_384);
        for n in 0..options.clients {
            let url = options.url_of(n);
            let authority = url.split('/').nth(2).unwrap_or_default().to_owned();
            let server = match servers.iter().find(|(known, _)| *known == authority) {
                Some((_, server)) => *server,
                None => {
                    let server = server_of(&url)?;
                    servers.push((authority, server));
                    server
                }
            };
            slots.push((Rc::<str>::from(url), server));
        }
        let local = servers.iter().all(|(_, s)| s.ip().is_loopback());
        let loopback = (local && servers.iter().all(|(_, s)| s.is_ipv4())).then(Addresses::loopback);
        let addresses = options.from.map(Addresses::from).or(loopback);
        settings.drift_ppm = options.drift_ppm.unwrap_or(if local { 0.0 } else { 100.0 });
        if addresses.is_some() && options.clients > sockets::SHARED_CLIENTS_MAX {
            return Err(LoadError::TooMany(options.clients));
        }
        let files_each = if addresses.is_some() || options.transport == TransportKind::Tcp { 1 } else { 5 };
        let needed = options.clients as u64 * files_each + 64;
        let limit = sys::raise_open_files(needed);
        if limit < needed {
            return Err(LoadError::OpenFiles { clients: options.clients, needed, limit });
        }
        let mut shared = Vec::new();
        if addresses.is_some() && options.transport == TransportKind::Udp {
            for _ in 0..sockets::SHARED_TRACKS {
                shared.push(Pair::new(false, true).map_err(|e| LoadError::System("bind the UDP ports", e))?);
            }
        }
        let now_ns = sys::monotonic_ns();
        let slots: Vec<Slot> = slots
            .into_iter()
            .map(|(url, server)| Slot {
                link: Link::Idle,
                client: Client::new(url.clone(), options.video_only),
                session: Session::new(settings, now_ns, None),
                socket: None,
                pairs: Vec::new(),
                server,
                url,
                connect_ns: 0,
                wants_write: false,
                seek_ns: u64::MAX,
                leave_ns: u64::MAX,
                again_ns: u64::MAX,
                unsettled: false,
            })
            .collect();
        Ok(Self {
            options,
            wheel: pacing::Wheel::new(slots.len() as u32, MS, now_ns),
            slots,
            totals: Totals::telling(options.per_stream),
            epoll: Epoll::new().map_err(|e| LoadError::System("epoll", e))?,
            shared,
            addresses,
            batch: Batch::new(),
            buffer: vec![0; READ_BYTES],
            settings,
            playing: 0,
            unsettled: 0,
            stopping: false,
            realtime_offset_ns: 0,
            sweep_at_ns: 0,
            ready: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// How many clients there are.
    pub(super) fn clients(&self) -> usize {
        self.slots.len()
    }

    /// True when no connection is open.
    pub(super) fn all_idle(&self) -> bool {
        self.slots.iter().all(|s| s.link == Link::Idle)
    }

    /// Counts streams that starve.
    pub(super) fn note_starving(&mut self, now: u64) {
        let starve_ns = (self.options.starve * 1e9) as u64;
        self.slots.iter_mut().for_each(|s| s.session.note_starving(now, starve_ns, &mut self.totals));
    }

    /// Ends what is still open, without asking.
    pub(super) fn close_all(&mut self, now: u64) {
        (0..self.slots.len()).for_each(|n| self.close(n, now));
    }

    /// Does what is due, waits for input (for some milliseconds at most) and takes it.
    pub(super) fn turn(&mut self) -> Result<(), LoadError> {
        let now = sys::monotonic_ns();
        while let Some((key, _)) = self.wheel.pop_due(now) {
            self.on_time(key as usize, now);
        }
        let sweep_ms = u64::from(self.options.sweep_ms.max(1));
        let timeout_ms = self.sweep_at_ns.saturating_sub(now).div_ceil(MS).min(sweep_ms);
        let mut ready = std::mem::take(&mut self.ready);
        self.epoll.wait(timeout_ms as u32, &mut ready).map_err(|e| LoadError::System("epoll_wait", e))?;
        self.realtime_offset_ns = sys::realtime_ns().wrapping_sub(sys::monotonic_ns());
        for &(token, writable) in &ready {
            if token >= TOKEN_UDP {
                self.sweep_own(token);
            } else {
                self.on_ready((token - TOKEN_TCP) as usize, writable);
            }
        }
        self.ready = ready;
        let now = sys::monotonic_ns();
        if now >= self.sweep_at_ns {
            self.sweep_shared();
            self.sweep_at_ns = now + sweep_ms * MS;
        }
        Ok(())
    }

    /// A number below `below` (xorshift; the same in every run).
    fn random(&mut self, below: f64) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64 * below
    }

    pub(super) fn begin(&mut self, n: usize, first: bool) {
        let now = sys::monotonic_ns();
        let Some(slot) = self.slots.get_mut(n) else { return };
        self.totals.asked += 1;
        slot.client = Client::new(slot.url.clone(), self.options.video_only);
        slot.session = Session::new(self.settings, now, Some(&slot.session));
        slot.unsettled = first;
        self.unsettled += usize::from(first);
        slot.link = Link::Connecting;
        slot.connect_ns = now;
        (slot.seek_ns, slot.leave_ns, slot.again_ns) = (u64::MAX, u64::MAX, u64::MAX);
        let from = self.addresses.map(|addresses| addresses.of(n));
        let opened = sockets::connect(slot.server, from).and_then(|socket| {
            self.epoll.add(&socket, TOKEN_TCP + n as u64, true)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => {
                slot.wants_write = true;
                slot.socket = Some(socket);
                self.wheel.schedule(n as u32, now + CONNECT_MAX_NS);
            }
            Err(_) => self.fail(n, "connect", now),
        }
    }

    /// Ends a session that went wrong.
    fn fail(&mut self, n: usize, reason: &'static str, now: u64) {
        let Some(slot) = self.slots.get_mut(n) else { return };
        if !self.stopping {
            if slot.session.accepted && reason == "closed" {
                if slot.session.is_finished(now) {
                    self.totals.finished += 1;
                } else {
                    self.totals.dropped += 1;
                }
            } else {
                *self.totals.failed.entry(reason).or_default() += 1;
            }
        }
        self.close(n, now);
    }

    /// Gives everything of a session back.
    fn close(&mut self, n: usize, now: u64) {
        let Some(slot) = self.slots.get_mut(n) else { return };
        if slot.session.accepted {
            self.playing = self.playing.saturating_sub(1);
        }
        self.unsettled -= usize::from(std::mem::take(&mut slot.unsettled));
        slot.session.finish(n, now, &mut self.totals);
        slot.socket = None;
        slot.pairs.clear();
        slot.link = Link::Idle;
        self.wheel.cancel(n as u32);
        if !self.stopping && slot.again_ns != u64::MAX {
            slot.again_ns = now + PAUSE_NS;
            self.wheel.schedule(n as u32, slot.again_ns);
        }
    }

    pub(super) fn leave(&mut self, n: usize, now: u64) {
        let Some(slot) = self.slots.get_mut(n) else { return };
        if slot.link == Link::Open && slot.client.leave(now) {
            slot.leave_ns = u64::MAX;
            self.after(n, now);
        } else if slot.link != Link::Idle {
            self.close(n, now);
        }
    }

    fn on_time(&mut self, n: usize, now: u64) {
        let Some(slot) = self.slots.get_mut(n) else { return };
        match slot.link {
            Link::Idle => {
                if now >= slot.again_ns && !self.stopping {
                    self.begin(n, false);
                }
                return;
            }
            Link::Connecting => return self.fail(n, "connect", now),
            Link::Open => {}
        }
        if !slot.client.on_time(now) {
            return self.fail(n, "timeout", now);
        }
        if now >= slot.session.report_ns {
            slot.session.report_ns = now + super::session::REPORT_NS;
            self.report(n, now);
        }
        let Some(slot) = self.slots.get_mut(n) else { return };
        if slot.client.is_playing() && slot.session.is_finished(now) {
            // The next session of this client keeps the load up.
            self.totals.finished += 1;
            slot.again_ns = now;
            return self.leave(n, now);
        }
        if now >= slot.leave_ns {
            slot.again_ns = now;
            return self.leave(n, now);
        }
        if now >= slot.seek_ns {
            slot.seek_ns = now + (self.options.seek_every.unwrap_or(1.0) * 1e9) as u64;
            // The last fifth of a title is left out, so that there is something to play.
            let place = slot.session.duration_s.unwrap_or(0.0) * 0.8;
            let place = self.random(place);
            let Some(slot) = self.slots.get_mut(n) else { return };
            if slot.client.seek(place, now) {
                slot.session.seeking(place);
            }
        }
        self.after(n, now);
    }

    /// Sends each stream's receiver report.
    fn report(&mut self, n: usize, now: u64) {
        let Some(slot) = self.slots.get_mut(n) else { return };
        let Slot { client, session, pairs, server, .. } = slot;
        for (track, (flow, granted)) in session.streams().enumerate() {
            let Some(block) = flow.report(now) else { continue };
            let packet = rtcp::write_report(n as u32 + 1, &block);
            match (self.options.transport, granted.server_rtcp_port) {
                (TransportKind::Tcp, _) => client.send_frame(granted.channel.unwrap_or(2 * track as u8) | 1, &packet),
                (TransportKind::Udp, Some(port)) => {
                    let to = SocketAddr::new(server.ip(), port);
                    // A report that does not go out is as good as a lost one.
                    let _ = match (self.shared.get(track).zip(self.addresses), to, pairs.get(track)) {
                        (Some((pair, addresses)), SocketAddr::V4(to), _) => sys::send_from(&pair.rtcp, addresses.of(n), to, &packet),
                        (_, _, Some(pair)) => pair.rtcp.send_to(&packet, &to.into()).map(drop),
                        _ => Ok(()),
                    };
                }
                (TransportKind::Udp, None) => {}
            }
        }
    }

    fn on_ready(&mut self, n: usize, writable: bool) {
        let now = sys::monotonic_ns();
        let Some(slot) = self.slots.get_mut(n) else { return };
        if slot.link == Link::Connecting {
            let Some(socket) = &slot.socket else { return };
            match socket.take_error() {
                Ok(None) if writable => {}
                Ok(None) => return,
                _ => return self.fail(n, "connect", now),
            }
            self.totals.connect_ns.saturating_record(now - slot.connect_ns);
            slot.link = Link::Open;
            slot.client.begin(now);
            return self.after(n, now);
        }
        self.read(n, now);
    }

    fn read(&mut self, n: usize, now: u64) {
        let Some(slot) = self.slots.get_mut(n) else { return };
        let Slot { client, session, socket: Some(socket), .. } = slot else { return };
        let (count, received_ns) = match sys::read_stream(socket, &mut self.buffer) {
            Ok((0, _)) => return self.fail(n, "closed", now),
            Ok(read) => read,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return self.after(n, now),
            Err(_) => return self.fail(n, "closed", now),
        };
        let arrival = received_ns.map_or(now, |t| t.wrapping_sub(self.realtime_offset_ns)).min(now);
        let (mut plays, mut refused, mut left) = (false, false, false);
        let bytes = self.buffer.get(..count).unwrap_or_default();
        let totals = &mut self.totals;
        let result = client.on_bytes(bytes, now, &mut |event| match session.on_event(&event, now, arrival, totals) {
            Outcome::Nothing => {}
            Outcome::Playing => plays = true,
            Outcome::Refused => refused = true,
            Outcome::Left => left = true,
        });
        if plays {
            self.playing += 1;
            self.unsettled -= usize::from(std::mem::take(&mut slot.unsettled));
            slot.seek_ns = self.options.seek_every.map_or(u64::MAX, |s| now + (s * 1e9) as u64);
            let churn = self.options.churn;
            let leave_ns = churn.map_or(u64::MAX, |s| now + ((0.5 * s + self.random(s)) * 1e9) as u64);
            if let Some(slot) = self.slots.get_mut(n) {
                slot.leave_ns = leave_ns;
            }
        }
        if result.is_err() {
            self.fail(n, "broken", now);
        } else if refused || left {
            self.close(n, now);
        } else {
            self.after(n, now);
        }
    }

    /// What follows every event of a client: transports for its tracks, output, its next time.
    fn after(&mut self, n: usize, now: u64) {
        while let Some(track) = self.slots.get(n).and_then(|s| s.client.wants_transport()) {
            match self.transport(n, track) {
                Some(transport) => {
                    if let Some(slot) = self.slots.get_mut(n) {
                        slot.client.setup(transport, now);
                    }
                }
                None => return self.fail(n, "ports", now),
            }
        }
        let Some(slot) = self.slots.get_mut(n) else { return };
        let Some(socket) = &slot.socket else { return };
        let output = slot.client.output();
        while !output.is_empty() {
            match socket.send_with_flags(output, libc::MSG_NOSIGNAL) {
                Ok(sent) => drop(output.drain(..sent)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.fail(n, "closed", now),
            }
        }
        let wants_write = !output.is_empty();
        if wants_write != slot.wants_write {
            slot.wants_write = wants_write;
            if self.epoll.modify(socket, TOKEN_TCP + n as u64, wants_write).is_err() {
                return self.fail(n, "system", now);
            }
        }
        let mut next = slot.client.next_time_ns().min(slot.seek_ns).min(slot.leave_ns);
        if slot.client.is_playing() {
            // BYE may come before the end, so look twice a second.
            next = next.min(slot.session.report_ns).min(now + SECOND / 2);
        }
        if next != u64::MAX {
            self.wheel.schedule(n as u32, next);
        }
    }

    fn transport(&mut self, n: usize, track: usize) -> Option<Transport> {
        if self.options.transport == TransportKind::Tcp {
            return u8::try_from(2 * track).ok().map(Transport::Interleaved);
        }
        if self.addresses.is_some() {
            return self.shared.get(track).map(|pair| Transport::Udp(pair.port));
        }
        let slot = self.slots.get_mut(n)?;
        let pair = Pair::new(slot.server.is_ipv6(), false).ok()?;
        let token = TOKEN_UDP | (track as u64) << 33 | n as u64;
        self.epoll.add(&pair.rtp, token, false).ok()?;
        self.epoll.add(&pair.rtcp, token | 1 << 32, false).ok()?;
        slot.pairs.push(pair);
        slot.pairs.last().map(|pair| Transport::Udp(pair.port))
    }

    /// Takes what waits at the shared sockets.
    fn sweep_shared(&mut self) {
        let Self { shared, addresses, batch, slots, totals, realtime_offset_ns, .. } = self;
        let Some(addresses) = *addresses else { return };
        for (track, pair) in shared.iter().enumerate() {
            for (rtcp, socket) in [(false, &pair.rtp), (true, &pair.rtcp)] {
                // Bounded: a flood must not keep the loop from its other work.
                for _ in 0..64 {
                    let Ok(count) = batch.receive(socket) else { break };
                    let now = sys::monotonic_ns();
                    for datagram in (0..count).filter_map(|place| batch.get(place)) {
                        let owner = datagram.to.and_then(|to| addresses.owner(to)).and_then(|n| slots.get_mut(n));
                        let Some(slot) = owner else {
                            totals.strays += 1;
                            continue;
                        };
                        let arrival = datagram.received_ns.map_or(now, |t| t.wrapping_sub(*realtime_offset_ns));
                        if rtcp {
                            slot.session.on_rtcp(track, arrival, datagram.head, totals);
                        } else {
                            slot.session.on_rtp(track, arrival, datagram.head, datagram.length, totals);
                        }
                    }
                    if count < sys::BATCH {
                        break;
                    }
                }
            }
        }
    }

    /// Takes what waits at one socket of one client.
    fn sweep_own(&mut self, token: u64) {
        let (track, rtcp, n) = ((token >> 33 & 0x7f) as usize, token & 1 << 32 != 0, (token & 0xffff_ffff) as usize);
        let Self { batch, slots, totals, realtime_offset_ns, .. } = self;
        let Some(Slot { session, pairs, .. }) = slots.get_mut(n) else { return };
        let Some(pair) = pairs.get(track) else { return };
        let Ok(count) = batch.receive(if rtcp { &pair.rtcp } else { &pair.rtp }) else { return };
        let now = sys::monotonic_ns();
        for datagram in (0..count).filter_map(|place| batch.get(place)) {
            let arrival = datagram.received_ns.map_or(now, |t| t.wrapping_sub(*realtime_offset_ns));
            if rtcp {
                session.on_rtcp(track, arrival, datagram.head, totals);
            } else {
                session.on_rtp(track, arrival, datagram.head, datagram.length, totals);
            }
        }
    }
}
