//! `testbed send`: a sender of known pacing, to judge the judge. It serves RTSP clients, sends each a stream whose every packet has an exact
//! time, does wrong what it is asked to and nothing else, and says afterwards what a receiver must have found.
//!
//! ```text
//! server (RTSP, epoll) ── Start, Stop ─► pacing (own thread, own core): pacer ─► sendmmsg ─► histograms, log
//!    └─ rtsp (no I/O)                                                    └─ pattern: what goes wrong on purpose
//! ```
//!
//! Nothing of the server under test is used here. Streams go to IPv4 receivers over UDP; their payload is zeros.

pub mod pacer;
pub mod pacing;
pub mod pattern;
pub mod rtsp;
mod server;
pub mod sys;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::Sender as Commands;
use serde::Serialize;

use crate::load::sockets::Pair;
use crate::load::sys as load_sys;
pub use pacer::{Books, Media};
use pacing::{Command, Sent};
use pattern::Pattern;
use rtsp::Facts;
use server::Server;

/// Packets that `--log` writes at most.
const LOG_MAX: usize = 4_000_000;

/// What the sender is asked to do.
#[derive(clap::Args, Clone, Debug, Serialize)]
pub struct Options {
    /// Where to listen for RTSP; port 0 is the system's choice
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Payload rate of each stream
    #[arg(long, default_value = "1.4M", value_parser = crate::clip::parse_rate)]
    pub rate: u64,
    /// Frames per second; divides 90000
    #[arg(long, default_value_t = 25)]
    pub fps: u32,
    /// Clients at a time
    #[arg(long, default_value_t = 10_000)]
    pub clients: usize,
    /// Pin the sending thread to this core [default: the last]
    #[arg(long)]
    pub cpu: Option<usize>,
    /// End after so many seconds; otherwise SIGTERM or SIGINT ends it
    #[arg(long)]
    pub seconds: Option<f64>,
    /// Write each packet's due time and send time (monotonic ns) as CSV; the first 4,000,000
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// What is done wrong on purpose.
    #[command(flatten)]
    pub pattern: Pattern,
}

/// Why there is no sender.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The rate and the frames per second do not go together.
    #[error(
        "{rate} bit/s at {fps} frames per second cannot be sent: frames per second must divide 90000, and the rate be at most 1 Gbit/s"
    )]
    Media {
        /// Bits per second asked.
        rate: u64,
        /// Frames per second asked.
        fps: u32,
    },
    /// The address cannot be had.
    #[error("listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The log.
    #[error("{0}: {1}")]
    Log(PathBuf, io::Error),
}

/// A sender that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Sender {
    /// Where it listens.
    pub address: SocketAddr,
    media: Media,
    stop: Arc<AtomicBool>,
    commands: Commands<Command>,
    server: Option<JoinHandle<io::Result<(u32, u64)>>>,
    pacing: Option<JoinHandle<io::Result<Sent>>>,
}

impl Sender {
    /// Starts it.
    ///
    /// # Errors
    /// The options cannot be met, or the system refuses.
    pub fn start(options: &Options) -> Result<Self, SendError> {
        let media = Media::new(options.rate, options.fps).ok_or(SendError::Media { rate: options.rate, fps: options.fps })?;
        load_sys::raise_open_files(options.clients as u64 + 64);
        let listener = listen(options.listen).map_err(|e| SendError::Listen(options.listen, e))?;
        let address = listener.local_addr().map_err(|e| SendError::Listen(options.listen, e))?;
        let pair = Pair::new(false, false).map_err(|e| SendError::System("bind the UDP ports", e))?;
        let rtp = pair.rtp.try_clone().map_err(|e| SendError::System("duplicate a socket", e))?;
        let facts = Facts { sdp: sdp(), rtp_port: pair.port };
        let settings = pacing::Settings {
            media,
            pattern: options.pattern.clone(),
            slots: options.clients,
            cpu: options.cpu,
            log: if options.log.is_some() { LOG_MAX } else { 0 },
        };
        let (commands, pacing) = pacing::start(settings, rtp).map_err(|e| SendError::System("start a thread", e))?;
        let failed = |e| SendError::System("epoll", e);
        let mut server = Server::new(listener, facts, pair, commands.clone(), options.clients).map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let run = move || server.run(&told).map(|()| (server.sessions, server.reports));
        let server = std::thread::Builder::new().name("rtsp".into()).spawn(run).map_err(|e| SendError::System("start a thread", e))?;
        Ok(Self { address, media, stop, commands, server: Some(server), pacing: Some(pacing) })
    }

    /// Ends it: what was sent.
    ///
    /// # Errors
    /// It had ended before, for the reason given.
    pub fn stop(mut self) -> Result<Report, SendError> {
        self.end().map(|(sent, sessions, reports)| Report { media: self.media, sessions, reports, sent })
    }

    fn end(&mut self) -> Result<(Sent, u32, u64), SendError> {
        self.stop.store(true, Ordering::Relaxed);
        let gone = |_| io::Error::other("the thread failed");
        let served = self.server.take().map(|t| t.join().unwrap_or_else(|e| Err(gone(e))));
        let _ = self.commands.send(Command::End);
        let sent = self.pacing.take().map(|t| t.join().unwrap_or_else(|e| Err(gone(e))));
        match (served, sent) {
            (Some(Ok((sessions, reports))), Some(Ok(sent))) => Ok((sent, sessions, reports)),
            (_, Some(Err(e))) => Err(SendError::System("send", e)),
            (Some(Err(e)), _) => Err(SendError::System("serve", e)),
            _ => Err(SendError::System("stop", io::Error::other("stopped before"))),
        }
    }

    /// False once a thread has ended by itself.
    pub fn is_alive(&self) -> bool {
        let runs = |finished: Option<bool>| finished == Some(false);
        runs(self.server.as_ref().map(JoinHandle::is_finished)) && runs(self.pacing.as_ref().map(JoinHandle::is_finished))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if self.server.is_some() {
            let _ = self.end();
        }
    }
}

/// A thousand clients connect at once.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// One H.264 track of unknown length.
fn sdp() -> String {
    let payload_type = pacing::PAYLOAD_TYPE;
    format!(
        "v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\ns=known pacing\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\na=range:npt=0-\r\n\
         m=video 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} H264/{}\r\na=control:video\r\n",
        pacer::CLOCK_HZ
    )
}

/// What was sent.
#[derive(Debug)]
pub struct Report {
    /// The shape of the streams.
    pub media: Media,
    /// Sessions begun.
    pub sessions: u32,
    /// RTCP packets heard.
    pub reports: u64,
    /// Counts and times.
    pub sent: Sent,
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        let Self { media, sessions, reports, sent } = self;
        let Books { packets, lost, reordered, duplicates, late } = sent.books;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "sessions     {sessions}, of {} packets of {} + 12 bytes per frame, {} frames per second; {reports} RTCP packets heard",
            media.packets_per_frame, media.payload_bytes, media.fps
        );
        let _ = writeln!(
            text,
            "to be found  packets {packets}, lost {lost}, reordered {reordered}, duplicates {duplicates}; sent late on purpose {late}"
        );
        let _ = writeln!(text, "{:<24}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}", "sent, ms", "mean", "p50", "p90", "p99", "p99.9", "max");
        for (label, histogram) in [("  after the due time", &sent.late_ns), ("  after its own plan", &sent.own_ns)] {
            let quantiles = [0.5, 0.9, 0.99, 0.999, 1.0].map(|q| histogram.value_at_quantile(q) as f64 / 1e6);
            let quantiles: String = quantiles.iter().map(|v| format!("{v:>10.3}")).collect();
            let _ = writeln!(text, "{label:<24}{:>10.3}{quantiles}", histogram.mean() / 1e6);
        }
        let all = (packets + duplicates).max(1);
        let _ = writeln!(
            text,
            "thread       {:.0} ns of CPU per packet, {:.1} packets per call, {} packets refused by the kernel",
            sent.cpu_ns as f64 / all as f64,
            all as f64 / sent.calls.max(1) as f64,
            sent.refused
        );
        text
    }

    /// The log as CSV.
    pub fn log_csv(&self) -> String {
        let mut text = String::from("ssrc,seq,due_ns,sent_ns\n");
        for line in &self.sent.log {
            let _ = writeln!(text, "{},{},{},{}", line.ssrc, line.seq, line.due_ns, line.sent_ns);
        }
        text
    }
}

/// Runs `testbed send` until it is told to stop.
///
/// # Errors
/// The sender cannot start, or fails.
pub fn run(options: &Options) -> Result<(), SendError> {
    let stop = crate::player::signal::stop_flag();
    let last = std::thread::available_parallelism().map_or(0, |n| n.get() - 1);
    let options = Options { cpu: options.cpu.or(Some(last)), ..options.clone() };
    let sender = Sender::start(&options)?;
    println!("ready: rtsp={} pid={}", sender.address, std::process::id());
    let end_ns = options.seconds.map_or(u64::MAX, |s| load_sys::monotonic_ns().saturating_add((s.max(0.0) * 1e9) as u64));
    while !stop.load(Ordering::Relaxed) && load_sys::monotonic_ns() < end_ns && sender.is_alive() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let report = sender.stop()?;
    print!("{}", report.table());
    if let Some(path) = &options.log {
        std::fs::write(path, report.log_csv()).map_err(|e| SendError::Log(path.clone(), e))?;
    }
    Ok(())
}
