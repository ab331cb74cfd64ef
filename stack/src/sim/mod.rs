//! The [`Host`] seam in simulated time, deterministic from a seed.
//!
//! ```text
//! test ── inject(at_ns, ..) ─► receive(now) ─► engine ─► commit, flush(now) ─► link ─► take_sent(..) ─► test
//! test ── SimPeer ◄──────────────────────────────────── stream_send, flush_streams
//! ```
//!
//! No clock is read and nothing sleeps: [`SimHost::next_arrival_ns`] and [`SimHost::link_free_ns`] say when something happens by itself.
//! The link may have a rate and a bounded queue (then a flush takes only what fits: backpressure), and may fail datagrams at random.
//! Work may have a price ([`SimHost::charge`]): then the clock goes on while it is done. Sent datagrams lie in one flat log until they are taken, so that millions of them cost a copy each and no allocation.

mod pipe;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;

pub use self::pipe::{SimPeer, SimStream, stream_pair};

use pacing::{Clock, SimClock};

use crate::address::{self, LOCAL_PORTS};
use crate::host::{FlowId, FlowSpec, Flushed, Host, HostCounters, HostError, Received, StreamError, StreamId};
use crate::slots::Slots;
use crate::streams::Streams;

/// What a datagram occupies on Ethernet beside its payload: preamble, header, checksum and gap (38), IPv4 (20) and UDP (8) headers.
pub const LINK_OVERHEAD_BYTES: u64 = 66;

/// A link with a rate and a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimLink {
    /// Rate in bits per second, counting [`LINK_OVERHEAD_BYTES`] for each datagram. 0 lets nothing through.
    pub rate_bps: u64,
    /// Bytes that may wait for the wire, overhead counted. A datagram is taken when there is any room at all.
    pub queue_bytes: u64,
}

/// Settings of a [`SimHost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Local ports to report.
    pub ports: [u16; LOCAL_PORTS],
    /// IPv6 remotes can be reached.
    pub ipv6: bool,
    /// Flows that may be open at once.
    pub flows_max: u32,
    /// Streams that may be attached at once.
    pub streams_max: u32,
    /// Frames of the transmit queue.
    pub tx_frames: usize,
    /// Largest payload of a datagram, bytes.
    pub max_datagram_bytes: usize,
    /// Send queue of each byte stream, bytes.
    pub stream_queue_bytes: usize,
    /// `None`: everything leaves at once.
    pub link: Option<SimLink>,
    /// How many of a million datagrams fail for good, at random.
    pub failures_per_million: u32,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            ports: [6970, 6971],
            ipv6: true,
            flows_max: 4096,
            streams_max: 1024,
            tx_frames: 64,
            max_datagram_bytes: 1472,
            stream_queue_bytes: 256 << 10,
            link: None,
            failures_per_million: 0,
        }
    }
}

/// What work costs the processor that does it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimPrices {
    /// A datagram that is sent, nanoseconds.
    pub sent_ns: u64,
    /// A datagram that is received, nanoseconds.
    pub received_ns: u64,
    /// 1024 bytes that are written to a byte stream, nanoseconds.
    pub written_kib_ns: u64,
    /// A look at the counters, nanoseconds.
    pub counters_ns: u64,
}

/// A datagram that the host sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentDatagram<'a> {
    /// Flow it was committed on (which may be closed by now).
    pub flow: FlowId,
    /// Index of the local port.
    pub local_port: u8,
    /// Source address that the flow asked for.
    pub local_addr: Option<IpAddr>,
    /// Where it went.
    pub remote: SocketAddr,
    /// Time of the flush that handed it over.
    pub at_ns: u64,
    /// When its last bit left the link; `at_ns` without a link model.
    pub departed_ns: u64,
    /// Payload.
    pub bytes: &'a [u8],
}

#[derive(Clone, Copy)]
struct Tag {
    flow: FlowId,
    spec: FlowSpec,
    len: usize,
}

struct Sent {
    tag: Tag,
    at_ns: u64,
    departed_ns: u64,
    start: usize,
}

/// The simulated host.
pub struct SimHost {
    config: SimConfig,
    flows: Slots<FlowSpec>,
    frames: Box<[u8]>,
    tags: Box<[Option<Tag>]>,
    head: usize,
    queued: usize,
    open: bool,
    link_free_ns: u64,
    random: u64,
    sent: Vec<Sent>,
    sent_bytes: Vec<u8>,
    arrivals: BTreeMap<(u64, u64), (Received, Vec<u8>)>,
    listeners: u8,
    injected: u64,
    streams: Streams<SimStream>,
    counters: HostCounters,
    /// The clock of whoever pays.
    charged: Option<(SimClock, SimPrices)>,
}

impl SimHost {
    /// A host; equal settings, seed and calls give equal results.
    pub fn new(config: SimConfig, seed: u64) -> Self {
        Self {
            config,
            flows: Slots::new(config.flows_max),
            frames: vec![0; config.tx_frames * config.max_datagram_bytes].into_boxed_slice(),
            tags: vec![None; config.tx_frames].into_boxed_slice(),
            head: 0,
            queued: 0,
            open: false,
            link_free_ns: 0,
            random: seed,
            sent: Vec::new(),
            sent_bytes: Vec::new(),
            arrivals: BTreeMap::new(),
            listeners: 0,
            injected: 0,
            streams: Streams::new(config.streams_max, config.stream_queue_bytes),
            counters: HostCounters::default(),
            charged: None,
        }
    }

    /// From now on work has a price: this clock goes on while it is done.
    pub fn charge(&mut self, clock: SimClock, prices: SimPrices) {
        self.charged = Some((clock, prices));
    }

    fn pay(&self, count: u64, price_ns: impl Fn(&SimPrices) -> u64) {
        if let Some((clock, prices)) = &self.charged {
            clock.advance_to(clock.now_ns() + count * price_ns(prices));
        }
    }

    /// Shows what was sent since the last call, in order, and forgets it. Call it every turn or so: it is kept until then.
    pub fn take_sent(&mut self, mut f: impl FnMut(SentDatagram<'_>)) {
        for &Sent { tag: Tag { flow, spec, len }, at_ns, departed_ns, start } in &self.sent {
            let FlowSpec { local_port, local_addr, remote } = spec;
            let bytes = &self.sent_bytes[start..start + len];
            f(SentDatagram { flow, local_port, local_addr, remote, at_ns, departed_ns, bytes });
        }
        self.sent.clear();
        self.sent_bytes.clear();
    }

    /// Sends a datagram to the host, to arrive at `at_ns`. Those of equal time arrive in the order of these calls.
    pub fn inject(&mut self, at_ns: u64, received: Received, bytes: &[u8]) {
        let received = Received { remote: address::normal(received.remote), ..received };
        self.arrivals.insert((at_ns, self.injected), (received, bytes.to_vec()));
        self.injected += 1;
    }

    /// When the next injected datagram arrives.
    pub fn next_arrival_ns(&self) -> Option<u64> {
        self.arrivals.keys().next().map(|(at_ns, _)| *at_ns)
    }

    /// When the link has sent all that it took.
    pub fn link_free_ns(&self) -> u64 {
        self.link_free_ns
    }

    /// Changes the link from now on; what it took before keeps its times.
    pub fn set_link(&mut self, link: Option<SimLink>) {
        self.config.link = link;
    }

    /// Hands one datagram to the link; its time of departure, `None` when there is no room.
    fn depart(&mut self, now_ns: u64, len: usize) -> Option<u64> {
        let Some(SimLink { rate_bps, queue_bytes }) = self.config.link else { return Some(now_ns) };
        if rate_bps == 0 {
            return None;
        }
        let start_ns = self.link_free_ns.max(now_ns);
        let waiting_bytes = u128::from(start_ns - now_ns) * u128::from(rate_bps) / 8_000_000_000;
        if waiting_bytes >= u128::from(queue_bytes) {
            return None;
        }
        let wire_ns = (u128::from(len as u64 + LINK_OVERHEAD_BYTES) * 8_000_000_000).div_ceil(u128::from(rate_bps));
        self.link_free_ns = start_ns.saturating_add(u64::try_from(wire_ns).unwrap_or(u64::MAX));
        Some(self.link_free_ns)
    }

    fn fails(&mut self) -> bool {
        if self.config.failures_per_million == 0 {
            return false;
        }
        // splitmix64: one addition, then a mix that spreads it over all bits.
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % 1_000_000 < u64::from(self.config.failures_per_million)
    }

    fn at(&self, nth: usize) -> usize {
        (self.head + nth) % self.tags.len().max(1)
    }

    /// Hands the frame at the head over; false when the link is full.
    fn send_head(&mut self, now_ns: u64, flushed: &mut Flushed) -> bool {
        let Some(tag) = self.tags[self.head] else { return false };
        if self.fails() {
            flushed.failed += 1;
            self.counters.tx_failed += 1;
        } else {
            let Some(departed_ns) = self.depart(now_ns, tag.len) else { return false };
            let at = self.head * self.config.max_datagram_bytes;
            self.sent.push(Sent { tag, at_ns: now_ns, departed_ns, start: self.sent_bytes.len() });
            self.sent_bytes.extend_from_slice(&self.frames[at..at + tag.len]);
            self.counters.tx_datagrams += 1;
            self.counters.tx_bytes += tag.len as u64;
        }
        flushed.done += 1;
        self.head = self.at(1);
        self.queued -= 1;
        true
    }
}

impl Host for SimHost {
    type Stream = SimStream;

    fn local_ports(&self) -> &[u16] {
        &self.config.ports
    }

    fn max_datagram_bytes(&self) -> usize {
        self.config.max_datagram_bytes
    }

    fn open_flow(&mut self, spec: FlowSpec) -> Result<FlowId, HostError> {
        let spec = address::checked(spec, self.config.ipv6)?;
        self.flows.insert(spec).map(FlowId).map_err(|_| HostError::TableFull)
    }

    fn redirect_flow(&mut self, flow: FlowId, remote: SocketAddr) -> Result<(), HostError> {
        let spec = self.flows.get_mut(flow.0).ok_or(HostError::Unknown)?;
        *spec = address::checked(FlowSpec { remote, ..*spec }, self.config.ipv6)?;
        Ok(())
    }

    fn close_flow(&mut self, flow: FlowId) {
        self.flows.remove(flow.0);
    }

    fn datagram(&mut self, flow: FlowId) -> Option<&mut [u8]> {
        self.open = false;
        let spec = *self.flows.get(flow.0)?;
        if self.queued == self.tags.len() {
            return None;
        }
        let frame = self.at(self.queued);
        self.tags[frame] = Some(Tag { flow, spec, len: 0 });
        self.open = true;
        let at = frame * self.config.max_datagram_bytes;
        Some(&mut self.frames[at..at + self.config.max_datagram_bytes])
    }

    fn commit(&mut self, len: usize) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let frame = self.at(self.queued);
        if let Some(tag) = &mut self.tags[frame] {
            tag.len = len.min(self.config.max_datagram_bytes);
            self.queued += 1;
        }
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn flush(&mut self, now_ns: u64) -> Flushed {
        let mut flushed = Flushed::default();
        self.counters.tx_calls += u64::from(self.queued > 0);
        while self.queued > 0 {
            if !self.send_head(now_ns, &mut flushed) {
                self.counters.tx_backpressure += 1;
                break;
            }
        }
        self.pay(flushed.done.into(), |prices| prices.sent_ns);
        flushed
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(Received, &[u8])) -> usize {
        let mut shown = 0;
        while shown < limit {
            let Some(first) = self.arrivals.first_entry().filter(|entry| entry.key().0 <= now_ns) else { break };
            let (received, bytes) = first.remove();
            shown += 1;
            self.counters.rx_datagrams += 1;
            self.counters.rx_bytes += bytes.len() as u64;
            self.pay(1, |prices| prices.received_ns);
            sink(received, &bytes);
        }
        shown
    }

    fn listen(&mut self, _addr: SocketAddr) -> Result<u8, HostError> {
        self.listeners += 1;
        Ok(LOCAL_PORTS as u8 + self.listeners - 1)
    }

    fn attach_stream(&mut self, stream: SimStream) -> Result<StreamId, HostError> {
        self.streams.attach(stream).ok_or(HostError::TableFull)
    }

    fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<(), StreamError> {
        self.streams.send(stream, parts)
    }

    fn stream_queued_bytes(&self, stream: StreamId) -> usize {
        self.streams.queued_bytes(stream)
    }

    fn flush_streams(&mut self, now_ns: u64) {
        self.flush_streams_up_to(now_ns, true, usize::MAX);
        self.flush_streams_up_to(now_ns, false, usize::MAX);
    }

    fn prefer_stream(&mut self, stream: StreamId, preferred: bool) {
        self.streams.prefer(stream, preferred);
    }

    fn flush_streams_up_to(&mut self, now_ns: u64, preferred: bool, limit: usize) -> bool {
        let before = self.streams.tx_bytes();
        let more = self.streams.flush_up_to(now_ns, preferred, limit);
        self.pay((self.streams.tx_bytes() - before).div_ceil(1024), |prices| prices.written_kib_ns);
        more
    }

    fn detach_stream(&mut self, stream: StreamId) {
        self.streams.detach(stream);
    }

    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}

    fn counters(&self) -> HostCounters {
        self.pay(1, |prices| prices.counters_ns);
        HostCounters { stream_tx_bytes: self.streams.tx_bytes(), streams: self.streams.len(), flows: self.flows.len(), ..self.counters }
    }
}

#[cfg(test)]
mod tests;
