//! What a packet costs on its way through GDSL, by part, in nanoseconds of one core:
//!
//! ```text
//! wheel       who is due, and the turn around the upcalls
//! upcall      due times, the link, what is counted
//! packetise   headers, and the copy of the payload
//! frame       the host's part of a frame: where it goes
//! port        handing frames over
//! ```
//!
//! `cargo run --release -p dataplane --example gdsl_bench [streams]`
//!
//! Streams of 1.4 Mbps run in simulated time as a busy core would run them, from blocks in memory, over kernel sockets (to a socket on
//! loopback that nobody reads) and over our own stack with a port that sends nowhere. What reading the time costs is taken off.

use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::RawFd;
use std::sync::Arc;

use dataplane::delivery::{LagPolicy, Outlet, Source, StartPlan, Timeline, TrackSender, TrackSpec};
use dataplane::disks::Disk;
use dataplane::disks::sim::{SimDisk, SimDiskConfig, SimFile};
use dataplane::engine::modules::{SinkModule, SourceModule};
use dataplane::gdsl::{Class, End, Gdsl, GdslConfig, IoBatch, IssueModule, NextUpcall, Pair};
use dataplane::media::index::IndexBuilder;
use dataplane::media::{Codec, MediaDescription, Title, Track, TrackDescription, TrackKind};
use dataplane::payload::{Packetiser, SliceBytes, Step, format_of};
use hugepages::{Arena, ChunkPool};
use pacing::{Clock, SimClock, TscClock};
use stack::host::{FlowId, FlowSpec, Flushed, Host, HostCounters, HostError, Received, StreamError, StreamId};
use stack::host_port::{StackConfig, StackHost};
use stack::iface::{IfaceConfig, Route};
use stack::kernel::{KernelConfig, KernelHost};
use stack::port::{Port, PortCounters};

const ROUNDS: usize = 5;
const SECONDS: u32 = 8;
const PICTURE_BYTES: u32 = 7_000;
const PICTURE_MS: u32 = 40;
const CHUNK_BYTES: usize = 256 << 10;
/// A busy core comes round about this often: so many packets are due at once.
const TURN_NS: u64 = 200_000;
const FRAMES: usize = 1024;
const FRAME_BYTES: usize = 2048;

thread_local! {
    /// Nanoseconds spent in the parts that are measured from inside, and how often the time was read for it.
    static UPCALL: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static FRAME: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static PORT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static CLOCK: TscClock = TscClock::new();
}

fn now_ns() -> u64 {
    CLOCK.with(Clock::now_ns)
}

fn timed<R>(part: &'static std::thread::LocalKey<Cell<(u64, u64)>>, work: impl FnOnce() -> R) -> R {
    let begin_ns = now_ns();
    let result = work();
    let (ns, times) = part.get();
    part.set((ns + now_ns() - begin_ns, times + 1));
    result
}

/// A host whose frames and flushes are timed.
struct TimedHost<H>(H);

impl<H: Host> Host for TimedHost<H> {
    type Stream = H::Stream;

    fn local_ports(&self) -> &[u16] {
        self.0.local_ports()
    }
    fn max_datagram_bytes(&self) -> usize {
        self.0.max_datagram_bytes()
    }
    fn open_flow(&mut self, spec: FlowSpec) -> Result<FlowId, HostError> {
        self.0.open_flow(spec)
    }
    fn redirect_flow(&mut self, flow: FlowId, remote: SocketAddr) -> Result<(), HostError> {
        self.0.redirect_flow(flow, remote)
    }
    fn close_flow(&mut self, flow: FlowId) {
        self.0.close_flow(flow);
    }
    fn prefetch_flow(&self, flow: FlowId) {
        self.0.prefetch_flow(flow);
    }
    fn datagram(&mut self, flow: FlowId) -> Option<&mut [u8]> {
        timed(&FRAME, || self.0.datagram(flow))
    }
    fn commit(&mut self, len: usize) {
        timed(&FRAME, || self.0.commit(len));
    }
    fn queued(&self) -> usize {
        self.0.queued()
    }
    fn flush(&mut self, now_ns: u64) -> Flushed {
        timed(&PORT, || self.0.flush(now_ns))
    }
    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(Received, &[u8])) -> usize {
        self.0.receive(now_ns, limit, sink)
    }
    fn attach_stream(&mut self, stream: Self::Stream) -> Result<StreamId, HostError> {
        self.0.attach_stream(stream)
    }
    fn stream_send(&mut self, stream: StreamId, parts: &[&[u8]]) -> Result<(), StreamError> {
        self.0.stream_send(stream, parts)
    }
    fn stream_queued_bytes(&self, stream: StreamId) -> usize {
        self.0.stream_queued_bytes(stream)
    }
    fn flush_streams(&mut self, now_ns: u64) {
        self.0.flush_streams(now_ns);
    }
    fn flush_streams_up_to(&mut self, now_ns: u64, preferred: bool, limit: usize) -> bool {
        self.0.flush_streams_up_to(now_ns, preferred, limit)
    }
    fn detach_stream(&mut self, stream: StreamId) {
        self.0.detach_stream(stream);
    }
    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        self.0.wait(timeout_ns, wake);
    }
    fn counters(&self) -> HostCounters {
        self.0.counters()
    }
}

/// A module whose upcalls are timed.
struct Timed<M>(M);

impl<M: IssueModule<H, D>, H: Host, D: Disk> IssueModule<H, D> for Timed<M> {
    fn upcall(&mut self, now_ns: u64, io: &mut IoBatch<'_, H, D>) -> NextUpcall {
        timed(&UPCALL, || self.0.upcall(now_ns, io))
    }
    fn prefetch(&self, host: &H) {
        self.0.prefetch(host);
    }
}

/// A port whose frames go nowhere. It answers one ARP request, so that there is a way to the clients.
struct NullPort {
    frames: Vec<u8>,
    next: usize,
    queued: usize,
    counters: PortCounters,
    reply: Option<Vec<u8>>,
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 2];

impl Port for NullPort {
    fn mac(&self) -> [u8; 6] {
        MAC
    }
    fn mtu_bytes(&self) -> usize {
        1500
    }
    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }
    fn receive(&mut self, _now_ns: u64, _limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.reply.take().map_or(0, |reply| {
            sink(&reply);
            1
        })
    }
    fn frame(&mut self) -> Option<&mut [u8]> {
        let at = self.next * FRAME_BYTES;
        if self.queued == FRAMES { None } else { self.frames.get_mut(at..at + FRAME_BYTES) }
    }
    fn commit(&mut self, len: usize) {
        self.next = (self.next + 1) % FRAMES;
        self.queued += 1;
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += len as u64;
    }
    fn flush(&mut self, _now_ns: u64) -> usize {
        std::mem::take(&mut self.queued)
    }
    fn queued(&self) -> usize {
        self.queued
    }
    fn capacity(&self) -> usize {
        FRAMES
    }
    fn wait(&mut self, _timeout_ns: u64, _wake: RawFd) {}
    fn counters(&self) -> PortCounters {
        self.counters
    }
}

fn own_stack(flows: u32) -> Result<StackHost<NullPort>, Box<dyn Error>> {
    let mut reply = [&MAC[..], &PEER, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2], &PEER, &[10, 0, 0, 254], &MAC, &[10, 0, 0, 1]].concat();
    reply.resize(60, 0);
    let port =
        NullPort { frames: vec![0; FRAMES * FRAME_BYTES], next: 0, queued: 0, counters: PortCounters::default(), reply: Some(reply) };
    let routes = vec![Route { to: "0.0.0.0/0".parse()?, via: Some([10, 0, 0, 254].into()) }];
    let iface = IfaceConfig { addresses: vec!["10.0.0.1/24".parse()?], routes, ..IfaceConfig::default() };
    Ok(StackHost::new(StackConfig { iface, flows_max: flows, ..StackConfig::default() }, port, None, 1, 0))
}

/// A film of 1.4 Mbps: pictures of one NAL unit each, every 25th a sync sample.
fn film() -> Result<(Arc<Title>, SimFile), Box<dyn Error>> {
    let pictures = SECONDS * 1000 / PICTURE_MS;
    let mut bytes = vec![0x55u8; (pictures * PICTURE_BYTES) as usize];
    let mut index = IndexBuilder::default();
    for picture in 0..pictures {
        let at = (picture * PICTURE_BYTES) as usize;
        bytes[at..at + 4].copy_from_slice(&(PICTURE_BYTES - 4).to_be_bytes());
        bytes[at + 4] = if picture % 25 == 0 { 0x65 } else { 0x41 };
        index.push(at as u64, PICTURE_BYTES, i64::from(picture * PICTURE_MS), 0, picture % 25 == 0)?;
    }
    let codec = Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 0x64, 0, 0x28]], pps: vec![vec![0x68, 0xee]] };
    let track = Track { id: 1, kind: TrackKind::Video, codec, timescale: 1000, samples: index.finish(PICTURE_MS) };
    let format = format_of(&track.codec, track.kind, 0);
    let duration_ns = u64::from(SECONDS) * 1_000_000_000;
    let described = TrackDescription {
        id: 1,
        kind: track.kind,
        codec: format.codec_name,
        payload_type: format.payload_type,
        encoding: format.encoding.to_owned(),
        clock_rate: format.clock_rate,
        channels: format.channels,
        fmtp: format.fmtp,
        duration_ns,
        samples: track.samples.len(),
        sync_samples: track.samples.sync_samples(),
        mean_bps: 1_400_000,
        peak_1s_bps: 1_400_000,
        packets_per_second: 125.0,
        width: 0,
        height: 0,
    };
    let size_bytes = bytes.len() as u64;
    let description =
        MediaDescription { container: "memory".into(), duration_ns, size_bytes, tracks: vec![described], left_out: Vec::new() };
    Ok((Arc::new(Title { tracks: vec![track], left_out: Vec::new(), description }), SimFile::bytes(1, bytes.into())))
}

/// Nanoseconds per packet: wheel, upcall, packetise, frame, port.
fn round<H: Host>(host: H, streams: u32, remote: impl Fn(u32) -> SocketAddr, packetise_ns: f64) -> Result<[f64; 5], Box<dyn Error>> {
    let (title, file) = film()?;
    let start_ns = 1_000_000_000;
    let clock = SimClock::new(start_ns);
    let config = GdslConfig { pairs_max: streams, host_frames: FRAMES, ..GdslConfig::default() };
    let pool = ChunkPool::new(Arena::new(64 * CHUNK_BYTES)?, CHUNK_BYTES);
    let mut gdsl: Gdsl<TimedHost<H>, SimDisk, Source<SimFile>, Timed<TrackSender>> =
        Gdsl::new(config, TimedHost(host), SimDisk::new(SimDiskConfig::default()), pool, start_ns);
    for stream in 0..streams {
        let spec = TrackSpec {
            title: Arc::clone(&title),
            track: 0,
            file: file.clone(),
            file_key: 1,
            read_ahead_ns: 1_000_000_000,
            link_blocks: 8,
            stall_ns: 1_000_000_000,
            class: Class::Guaranteed,
            lag: LagPolicy::default(),
            cname: "bench".into(),
            random: (stream, 0, 0, 1),
        };
        let Pair { source, destination, link, class, lateness } = *spec.build().ok_or("no track")?;
        let (SourceModule::Track(mut source), SinkModule::Track(mut destination)) = (source, destination) else {
            return Err("not a track's modules".into());
        };
        let flow = gdsl.host_mut().open_flow(FlowSpec { local_port: 0, local_addr: None, remote: remote(stream) })?;
        destination.set_outlet(Outlet::Udp { rtp: flow, rtcp: flow });
        let plan = StartPlan::new(&title, &[0], 0, None);
        let part = plan.tracks[0];
        // Streams begin at different moments of a picture.
        let anchor_ns = start_ns + 500_000_000 + u64::from(stream) * u64::from(PICTURE_MS) * 1_000_000 / u64::from(streams);
        let timeline = Timeline { start_dts_ns: plan.start_dts_ns, anchor_ns: Some(anchor_ns) };
        source.prepare(part, plan.start_dts_ns);
        source.set_timeline(timeline);
        destination.prepare(part, plan.start_dts_ns, plan.from_ns, 0);
        destination.set_timeline(timeline);
        let id = gdsl.add(Box::new(Pair { source, destination: Timed(destination), link, class, lateness })).map_err(|_| "no room")?;
        gdsl.wake(id, End::Source, start_ns);
        gdsl.wake(id, End::Destination, anchor_ns);
    }
    for part in [&UPCALL, &FRAME, &PORT] {
        part.set((0, 0));
    }
    let end_ns = start_ns + 500_000_000 + u64::from(SECONDS - 1) * 1_000_000_000;
    let (mut all_ns, mut cycles) = (0, 0u64);
    while clock.now_ns() < end_ns {
        let begin_ns = now_ns();
        let next_ns = gdsl.cycle(&clock).next_ns.unwrap_or(end_ns);
        all_ns += now_ns() - begin_ns;
        cycles += 1;
        clock.advance_to(next_ns.max(clock.now_ns() + TURN_NS));
    }
    let reading_ns = reading_ns();
    let packets = gdsl.counters().packets as f64;
    if packets < f64::from(streams) * f64::from(SECONDS - 1) * 100.0 {
        return Err(format!("only {packets} packets were sent").into());
    }
    let [upcall, frame, port] = [&UPCALL, &FRAME, &PORT].map(|part| part.get());
    // What was timed contains one reading of the time; whatever is around it contains two.
    let net = |(ns, times): (u64, u64)| ns as f64 - times as f64 * reading_ns;
    let gross = |(ns, times): (u64, u64)| ns as f64 + times as f64 * reading_ns;
    let (frame_ns, port_ns) = (net(frame), net(port));
    let upcall_ns = net(upcall) - gross(frame);
    let wheel_ns = net((all_ns, cycles)) - gross(upcall) - gross(port);
    Ok([wheel_ns / packets, upcall_ns / packets - packetise_ns, packetise_ns, frame_ns / packets, port_ns / packets])
}

/// What a reading of the time costs.
fn reading_ns() -> f64 {
    let (begin_ns, times) = (now_ns(), 1_000_000);
    for _ in 0..times {
        black_box(now_ns());
    }
    (now_ns() - begin_ns) as f64 / f64::from(times)
}

/// What the packetiser takes for a packet of such a film by itself, RTP header not counted.
fn packetise_ns() -> f64 {
    let codec = Codec::H264 { length_bytes: 4, sps: vec![vec![0x67, 0x64, 0, 0x28]], pps: vec![vec![0x68, 0xee]] };
    let mut picture = vec![0x55; PICTURE_BYTES as usize];
    picture[..4].copy_from_slice(&(PICTURE_BYTES - 4).to_be_bytes());
    picture[4] = 0x41;
    let memory: Vec<Vec<u8>> = (0..150).map(|_| picture.clone()).collect();
    let mut packetiser = Packetiser::new(&codec, 1400);
    let mut frames = vec![0u8; FRAMES * FRAME_BYTES];
    let (mut packets, begin_ns) = (0u32, now_ns());
    for picture in memory.iter().cycle().take(200_000) {
        let mut source = SliceBytes::new(picture);
        packetiser.begin(PICTURE_BYTES, false);
        loop {
            let at = packets as usize % FRAMES * FRAME_BYTES;
            let Ok(Step::Packet(_)) = packetiser.next(&mut source, black_box(&mut frames[at..at + FRAME_BYTES])) else { break };
            packets += 1;
        }
    }
    (now_ns() - begin_ns) as f64 / f64::from(packets)
}

fn main() -> Result<(), Box<dyn Error>> {
    let streams: u32 = std::env::args().nth(1).map_or(Ok(1000), |text| text.parse())?;
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    let to = sink.local_addr()?;
    let (mut kernel, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let packetise_ns = packetise_ns();
        let config = KernelConfig { port: 0, flows_max: streams, streams_max: 1, tx_frames: FRAMES, ..KernelConfig::default() };
        let (host, _) = KernelHost::bind(config)?;
        kernel.push(round(host, streams, |_| to, packetise_ns)?);
        let mut host = own_stack(streams)?;
        let probe = host.open_flow(FlowSpec { local_port: 1, local_addr: None, remote: "198.51.100.1:9".parse()? })?;
        host.datagram(probe);
        host.commit(4);
        host.flush(0);
        host.flush_streams(0);
        host.receive(1, 64, &mut |_, _| {});
        host.close_flow(probe);
        let remote = |stream| SocketAddr::from(([198, 51, 100, 1], 10_000 + (stream % 50_000) as u16));
        own.push(round(host, streams, remote, packetise_ns)?);
    }
    println!("GDSL, {streams} streams of 1.4 Mbps: nanoseconds per packet by part, median of {ROUNDS} rounds");
    println!("{:<11} {:>15} {:>22}", "", "kernel sockets", "own stack, null port");
    for (part, name) in ["wheel", "upcall", "packetise", "frame", "port"].into_iter().enumerate() {
        println!("{name:<11} {:>15.0} {:>22.0}", median(&kernel, |round| round[part]), median(&own, |round| round[part]));
    }
    let all = |round: &[f64; 5]| round.iter().sum::<f64>();
    println!("{:<11} {:>15.0} {:>22.0}", "all", median(&kernel, all), median(&own, all));
    Ok(())
}

fn median(rounds: &[[f64; 5]], value: impl Fn(&[f64; 5]) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
