//! `tactus serve`: the appliance in one process.
//!
//! ```text
//! plan ─► control threads off the engine's CPUs ─► engine ─► RTSP, monitor ─► ready ─► signal ─► STOPPING ─► BYE to all ─► exit 0
//! ```
//!
//! [`start`] is the only place that names an implementation of the engine and of the RTSP server.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::plan::{Plan, reachable, url};
use super::{Failure, print, printable, version};
use crate::config::{HttpListen, Poll};
use crate::engine::{Engine, MediaEntry};
use crate::http::server::Limits;
use crate::http::{Ages, Monitor, RtspSource, server};
use crate::local::{LocalConfig, LocalEngine};
use crate::rtsp::{RtspConfig, RtspServer};
use crate::units::{ByteSize, duration};

/// How long saying goodbye to every client may take.
const GOODBYE_MAX: Duration = Duration::from_millis(2_000);
/// How long tasks that still run after that may take.
const LEFTOVERS_MAX: Duration = Duration::from_millis(500);
/// How long the start waits for the media folder's first listing; a folder that takes longer is listed later by the monitor.
const LISTING_MAX: Duration = Duration::from_secs(5);
/// Titles that the start prints.
const TITLES_SHOWN: usize = 20;
/// Threads of the control core.
const CONTROL_THREADS_MAX: usize = 4;

/// A running RTSP server, as far as this module is concerned.
pub struct Rtsp {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its counters.
    pub totals: RtspSource,
    /// Ends every session with a BYE and closes every connection.
    pub stop: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Runs the appliance until a signal ends it.
///
/// # Errors
/// [`Failure::Runtime`].
pub fn run(plan: Plan) -> Result<(), Failure> {
    log_plan(&plan);
    if let Err(error) = super::os::stay_on(&plan.cpus.control) {
        tracing::warn!("control threads stay on all CPUs, where they can disturb the engine: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.cpus.control.len().clamp(1, CONTROL_THREADS_MAX))
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start the control core: {error}")))?;
    let outcome = runtime.block_on(async { start(&plan, Stop::on_signals()?).await });
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    outcome
}

/// Starts the engine of this process and the RTSP server, and runs the appliance over them.
async fn start(plan: &Plan, stop: Stop) -> Result<(), Failure> {
    log_plan(plan);
    let config = local_config(plan);
    let engine = tokio::task::spawn_blocking(move || LocalEngine::start(config))
        .await
        .map_err(|error| Failure::Runtime(error.to_string()))?
        .map_err(|why| Failure::Runtime(format!("the engine cannot start: {why}")))?;
    for facts in engine.facts() {
        for note in &facts.notes {
            tracing::info!("engine: {note}");
        }
    }
    tokio::spawn(Arc::clone(&engine).poll_cores());
    let address = plan.config.rtsp;
    let session_timeout = Duration::from_secs(plan.config.session_timeout_s.into());
    let rtsp_config = RtspConfig { addr: address, session_timeout, ..RtspConfig::default() };
    let server =
        RtspServer::bind(rtsp_config, Arc::clone(&engine)).map_err(|error| cannot_listen("the RTSP server", address, &error, "--rtsp"))?;
    let (address, counters) = (server.local_addr(), server.counters());
    let (ask_to_stop, asked_to_stop) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async move {
        // A sender that is gone asks for the stop as well.
        let _ = asked_to_stop.await;
    }));
    let leaving = Arc::clone(&engine);
    let rtsp = Rtsp {
        address,
        totals: Arc::new(move || counters.snapshot()),
        stop: Box::pin(async move {
            drop(ask_to_stop);
            let _ = serving.await;
            let _ = tokio::task::spawn_blocking(move || leaving.shut_down(GOODBYE_MAX)).await;
        }),
    };
    appliance(engine, rtsp, plan, stop).await
}

/// The engine's part of the configuration.
fn local_config(plan: &Plan) -> LocalConfig {
    let config = &plan.config;
    let bytes = |size: ByteSize| usize::try_from(size.0).unwrap_or(usize::MAX);
    LocalConfig {
        media: plan.media.clone(),
        index_cache: plan.index_cache.clone(),
        cpus: plan.cpus.engine.iter().map(|&cpu| usize::try_from(cpu).ok()).collect(),
        poll: match config.poll {
            Poll::Busy => dataplane::engine::Poll::Busy,
            Poll::Adaptive => dataplane::engine::Poll::Adaptive,
        },
        rtp_port: config.rtp_port,
        sessions_max: config.max_sessions,
        memory_bytes: bytes(config.memory),
        chunk_bytes: bytes(config.chunk),
        read_ahead_ns: u64::from(config.read_ahead_ms) * 1_000_000,
        stall_ns: u64::from(config.stall_timeout_s) * 1_000_000_000,
    }
}

/// The failure to listen somewhere, with what to do about it; `option` chooses another address.
pub fn cannot_listen(what: &str, address: SocketAddr, error: &std::io::Error, option: &str) -> Failure {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("; another program has this port: choose another with {option}"),
        std::io::ErrorKind::PermissionDenied => format!("; ports below 1024 need privileges: choose another with {option}"),
        std::io::ErrorKind::AddrNotAvailable => format!("; this machine does not have this address: choose another with {option}"),
        _ => String::new(),
    };
    Failure::Runtime(format!("{what} cannot listen on {address}: {error}{advice}"))
}

/// What ends the appliance.
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The first SIGTERM or SIGINT stops; the second one exits on the spot.
    ///
    /// # Errors
    /// [`Failure::Runtime`] when the system refuses handlers.
    pub fn on_signals() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::Runtime(format!("cannot listen for signals: {error}")));
        let mut signals = [on(SignalKind::terminate())?, on(SignalKind::interrupt())?];
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(async move {
            next_of(&mut signals).await;
            tracing::info!("stopping; a second signal stops at once");
            // Nobody may be left to hear it: then the process is ending already.
            let _ = stop.send(true);
            next_of(&mut signals).await;
            std::process::exit(1);
        });
        Ok(Self(stopped))
    }

    async fn wait(&mut self) {
        // A sender that is gone will never stop us by itself; treat it as a stop rather than hang.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

async fn next_of(signals: &mut [Signal; 2]) {
    let [terminate, interrupt] = signals;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Serves until `stop`: the monitor, the announcement, the goodbye.
///
/// # Errors
/// [`Failure::Runtime`] when the monitor cannot listen.
pub async fn appliance<E: Engine>(engine: Arc<E>, rtsp: Rtsp, plan: &Plan, mut stop: Stop) -> Result<(), Failure> {
    let http = match plan.config.http {
        HttpListen::Off => None,
        HttpListen::On(address) => {
            let refused = |error| cannot_listen("the monitor", address, &error, "--http (or --http off)");
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            let bound = listener.local_addr().map_err(refused)?;
            let monitor = Monitor::new(Arc::clone(&engine), Arc::clone(&rtsp.totals), version(), Ages::default());
            tokio::spawn(server::serve(listener, monitor.router(), Limits::default(), stop.0.clone()));
            Some(bound)
        }
    };

    log_engine(&*engine).await;
    let own = super::os::first_ipv4();
    let servers = reachable(rtsp.address, own);
    let announcement = tokio::select! {
        () = stop.wait() => None,
        media = tokio::time::timeout(LISTING_MAX, engine.media()) => Some(listing(media.ok().as_deref(), plan, &servers)),
    };
    if let Some(announcement) = announcement {
        if let Some(address) = http {
            print(&format!("{announcement}Status: http://{}/api/v1/status\n", reachable(address, own).first().unwrap_or(&address)));
        } else {
            print(&announcement);
        }
        print(&ready_line(rtsp.address, http));
        notify(&[sd_notify::NotifyState::Ready]);
        stop.wait().await;
    }

    notify(&[sd_notify::NotifyState::Stopping]);
    if tokio::time::timeout(GOODBYE_MAX, rtsp.stop).await.is_err() {
        tracing::warn!("not every client could be told goodbye within {GOODBYE_MAX:?}");
    }
    Ok(())
}

/// The line that programs wait for: `ready: rtsp=ADDRESS http=ADDRESS|off pid=N`.
fn ready_line(rtsp: SocketAddr, http: Option<SocketAddr>) -> String {
    let http = http.map_or_else(|| "off".to_owned(), |address| address.to_string());
    format!("ready: rtsp={rtsp} http={http} pid={}\n", std::process::id())
}

/// Tells the service manager, if there is one.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!("the service manager cannot be told: {error}");
    }
}

/// What was decided before anything is started.
fn log_plan(plan: &Plan) {
    let cpus = |cpus: &[u32]| cpus.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let shared = if plan.cpus.engine.iter().any(|cpu| plan.cpus.control.contains(cpu)) { " (shared: expect more lateness)" } else { "" };
    tracing::info!(
        "tactus {}: engine on CPU {}, control on CPU {}{shared}; network: {}; poll: {}; indexes kept in {}",
        super::VERSION.as_str(),
        cpus(&plan.cpus.engine),
        cpus(&plan.cpus.control),
        plan.config.net,
        plan.config.poll,
        plan.index_cache.as_ref().map_or_else(|| "memory only".to_owned(), |dir| dir.display().to_string())
    );
    tracing::debug!("effective configuration:\n{}", plan.config.to_toml());
}

/// What the engine made of the configuration.
async fn log_engine(engine: &impl Engine) {
    let status = engine.engine_status().await;
    for core in &status.cores {
        let place = match core.cpu {
            Some(cpu) => format!("pinned to CPU {cpu}"),
            None => "not pinned (the kernel refused): expect more lateness".to_owned(),
        };
        let (rtp, rtcp) = core.ports;
        let memory = crate::units::about_bytes(core.chunks.saturating_mul(core.chunk_bytes));
        tracing::info!(
            "engine core {}: {place}; {}, RTP port {rtp}, RTCP port {rtcp}; buffers {memory} on {}; disk: {}",
            core.core,
            status.net,
            core.memory,
            core.disk
        );
    }
}

/// What is served, for people; `None` when the folder is still being read.
fn listing(media: Option<&[MediaEntry]>, plan: &Plan, servers: &[SocketAddr]) -> String {
    let folder = printable(&plan.media.display().to_string());
    let bases: Vec<String> = servers.iter().map(|server| url(*server, "")).collect();
    let Some(media) = media else {
        return format!("Serving {folder} at {}; its files are still being read\n", bases.join(" and "));
    };
    let servable = media.iter().filter(|entry| entry.media.is_some()).count();
    for entry in media {
        if let Some(reason) = &entry.error {
            tracing::warn!("not served: {}: {}", printable(&entry.path), printable(reason));
        }
        for left_out in entry.media.iter().flat_map(|media| &media.left_out) {
            let (path, format, reason) = (printable(&entry.path), printable(&left_out.format), printable(&left_out.reason));
            tracing::info!("{path}: track {} ({format}) is left out: {reason}", left_out.id);
        }
    }
    if servable == 0 {
        tracing::warn!("there is nothing to serve in {folder}: put MP4 or QuickTime files there; they are found without a restart");
    }
    let mut out = format!("Serving {servable} of {} files in {folder} at {}\n", media.len(), bases.join(" and "));
    let Some(server) = servers.first() else { return out };
    for entry in media.iter().filter(|entry| entry.media.is_some()).take(TITLES_SHOWN) {
        let what = entry.media.as_ref().map(|media| {
            let codecs: Vec<&str> = media.tracks.iter().map(|track| track.codec.as_str()).collect();
            format!("{}  {}", duration(media.duration_ns), printable(&codecs.join(", ")))
        });
        out += &format!("  {}  {}\n", url(*server, &entry.path), what.unwrap_or_default());
    }
    if servable > TITLES_SHOWN {
        out += &format!("  and {} more: see /api/v1/media\n", servable - TITLES_SHOWN);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plan::Cpus;
    use crate::config::Config;
    use crate::http::fake::FakeEngine;
    use crate::rtsp::RtspCountersSnapshot;

    fn plan(http: &str) -> Plan {
        Plan {
            config: Config { http: http.parse().unwrap(), ..Config::default() },
            media: "/srv/films".into(),
            cpus: Cpus { engine: vec![0], control: vec![0] },
            index_cache: None,
        }
    }

    fn rtsp(goodbye: watch::Sender<bool>) -> Rtsp {
        Rtsp {
            address: "0.0.0.0:8554".parse().unwrap(),
            totals: Arc::new(RtspCountersSnapshot::default),
            stop: Box::pin(async move {
                goodbye.send_replace(true);
            }),
        }
    }

    #[tokio::test]
    async fn a_stop_says_goodbye() {
        let (stop, stopped) = watch::channel(false);
        let (goodbye, said) = watch::channel(false);
        let running =
            tokio::spawn(
                async move { appliance(Arc::new(FakeEngine::default()), rtsp(goodbye), &plan("127.0.0.1:0"), Stop(stopped)).await },
            );
        tokio::task::yield_now().await;
        assert!(!*said.borrow());
        stop.send(true).unwrap();
        assert!(running.await.unwrap().is_ok());
        assert!(*said.borrow());
    }

    #[tokio::test]
    async fn a_taken_port_says_which_option_to_change() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        let plan = plan(&taken.local_addr().unwrap().to_string());
        let (goodbye, _) = watch::channel(false);
        let error = appliance(Arc::new(FakeEngine::default()), rtsp(goodbye), &plan, Stop(stopped)).await.unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("--http"), "{error}");
    }

    #[tokio::test]
    async fn titles_are_listed_with_urls() {
        let media = FakeEngine::default().media().await;
        let servers = ["192.0.2.1:8554".parse().unwrap(), "127.0.0.1:8554".parse().unwrap()];
        assert_eq!(
            listing(Some(&media), &plan("off"), &servers),
            "Serving 1 of 2 files in /srv/films at rtsp://192.0.2.1:8554/ and rtsp://127.0.0.1:8554/\n  \
             rtsp://192.0.2.1:8554/a.mp4  1:00.0  H.264 High@4.0, AAC-LC\n"
        );
        let many: Vec<_> = (0..50).flat_map(|_| media.clone()).collect();
        assert!(listing(Some(&many), &plan("off"), &servers).ends_with("  and 30 more: see /api/v1/media\n"));
        assert!(listing(None, &plan("off"), &servers).contains("still being read"));
    }

    #[test]
    fn the_ready_line_is_for_programs() {
        let line = ready_line("[::]:8554".parse().unwrap(), None);
        assert_eq!(line, format!("ready: rtsp=[::]:8554 http=off pid={}\n", std::process::id()));
    }
}
