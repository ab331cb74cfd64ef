//! `tactus serve`: the appliance in one process.
//!
//! ```text
//! plan ─► control threads off the engine's CPUs ─► engine ─► RTSP, monitor ─► ready ─► signal ─► STOPPING ─► BYE to all ─► exit 0
//! ```
//!
//! [`start`] is the only place that names an implementation of the engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::delivery::LagPolicy;
use dataplane::engine::own::{Driver, OwnNetConfig};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::plan::{Plan, reachable, url};
use super::{Failure, print, printable, version};
use crate::config::{Config, HttpListen, LagAction, LiveLost, Poll};
use crate::engine::{Engine, MediaEntry};
use crate::http::server::Limits;
use crate::http::{Ages, Monitor, server};
use crate::local::{LiveRules, LiveSourceAt, LocalConfig, LocalEngine};
use crate::net::Net;
use crate::rtsp::{RtspConfig, RtspServer};
use crate::units::{ByteSize, duration};

/// How long ending every session may take. With the limits below it makes the 3 seconds within which a stop is promised.
const GOODBYE_MAX: Duration = Duration::from_millis(1_500);
/// How long recordings may take to become whole files.
const RECORDINGS_MAX: Duration = Duration::from_millis(1_500);
/// How long the engine cores may take to send what is queued and end.
const ENGINE_STOP_MAX: Duration = Duration::from_millis(700);
/// How long tasks that still run after that may take.
const LEFTOVERS_MAX: Duration = Duration::from_millis(300);
/// How long the start waits for the media folder's first listing; a folder that takes longer is listed later by the monitor.
const LISTING_MAX: Duration = Duration::from_secs(5);
/// Titles that the start prints.
const TITLES_SHOWN: usize = 20;
/// RTSP connections at once, whatever the number of sessions: silent ones must not shut out the others.
const CONNECTIONS_MIN: u32 = 10_240;
/// Files that are open besides those of connections: media, rings, listeners.
const OTHER_FILES: u64 = 1024;
/// Threads of the control core.
const CONTROL_THREADS_MAX: usize = 4;
/// Threads for what blocks: looking titles up on disk.
const BLOCKING_THREADS_MAX: usize = 16;

/// Runs the appliance until a signal ends it.
///
/// # Errors
/// [`Failure::Runtime`].
pub fn run(plan: Plan) -> Result<(), Failure> {
    log_plan(&plan);
    provide_files(&plan.config);
    if let Err(error) = super::os::stay_on(&plan.cpus.control) {
        tracing::warn!("control threads stay on all CPUs, where they can disturb the engine: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plan.cpus.control.len().clamp(1, CONTROL_THREADS_MAX))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start the control core: {error}")))?;
    let outcome = runtime.block_on(async { start(&plan, Stop::on_signals()?).await });
    runtime.shutdown_timeout(LEFTOVERS_MAX);
    outcome
}

/// Starts the engine of this process, and runs the appliance over it.
async fn start(plan: &Plan, stop: Stop) -> Result<(), Failure> {
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
    let poller = tokio::spawn(Arc::clone(&engine).poll_cores());
    let carrier = tokio::spawn(Arc::clone(&engine).carry_sockets());
    let sources = tokio::spawn(Arc::clone(&engine).fill_sources());
    let recordings = tokio::spawn({
        let (engine, mut stop) = (Arc::clone(&engine), Stop(stop.0.clone()));
        async move {
            stop.wait().await;
            // While the clients are told goodbye.
            engine.end_recordings(RECORDINGS_MAX).await;
        }
    });
    let outcome = appliance(Arc::clone(&engine), &engine.net(), plan, stop).await;
    if outcome.is_ok() {
        let _ = recordings.await;
    }
    poller.abort();
    carrier.abort();
    sources.abort();
    if let Err(error) = tokio::task::spawn_blocking(move || engine.shut_down(ENGINE_STOP_MAX)).await {
        tracing::warn!("the engine did not stop cleanly: {error}");
    }
    outcome
}

/// What the engine is told of the configuration.
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
        own_net: own_net(config),
        disk_share_permille: u64::from(config.disk_share_percent) * 10,
        disk_profiles: config.disk_profiles(|name| std::env::var(name).ok()),
        cpu_share_permille: u64::from(config.cpu_share_percent) * 10,
        cache: config.cache,
        realtime: config.realtime,
        live: LiveRules {
            latency_ns: u64::from(config.live.latency_ms) * 1_000_000,
            silence_ns: u64::from(config.live.timeout_s) * 1_000_000_000,
            hold: (config.live.lost == LiveLost::Hold).then(|| Duration::from_secs(config.live.hold_s.into())),
            memory_bytes: bytes(config.live.memory),
        },
        sources: config.live.sources.0.iter().map(|source| LiveSourceAt { path: source.path.clone(), addr: source.addr }).collect(),
        import_from: config.import_from.dir().map(Into::into),
        recordings_to: config.recordings_to.clone(),
        lag: LagPolicy {
            max_ns: u64::from(config.lag_max_ms) * 1_000_000,
            action: match config.lag_action {
                LagAction::Skip => dataplane::delivery::LagAction::Skip,
                LagAction::End => dataplane::delivery::LagAction::End,
            },
        },
    }
}

/// What the engine is told of a stack of our own.
fn own_net(config: &Config) -> Option<OwnNetConfig> {
    let driver = match &config.net {
        crate::config::Net::Kernel => return None,
        crate::config::Net::AfXdp(interface) => Driver::AfXdp(interface.clone()),
        crate::config::Net::Tap(name) => Driver::Tap(name.clone()),
    };
    let addresses = config.ip.0.iter().map(|own| (own.ip, own.prefix)).collect();
    Some(OwnNetConfig { driver, addresses, gateways: config.gateway.0.clone() })
}

/// What the RTSP server is told of the configuration.
fn rtsp_config(config: &Config) -> RtspConfig {
    RtspConfig {
        addr: config.rtsp,
        session_timeout: Duration::from_secs(config.session_timeout_s.into()),
        write_timeout: Duration::from_secs(config.stall_timeout_s.into()),
        stop_timeout: GOODBYE_MAX,
        connections_max: connections_max(config),
        classes: config.classes.clone(),
        record: config.live.record.clone(),
        ..RtspConfig::default()
    }
}

fn connections_max(config: &Config) -> u32 {
    config.max_sessions.saturating_mul(2).max(CONNECTIONS_MIN)
}

/// Sees to it that there are file descriptors for all connections, or says that there are not.
fn provide_files(config: &Config) {
    // A connection whose sending side an engine core has is two descriptors.
    let wanted = u64::from(connections_max(config)) + u64::from(config.max_sessions) + OTHER_FILES;
    match super::os::raise_open_files() {
        Ok(files) if files < wanted => {
            tracing::warn!("this process may open {files} files, but {wanted} can be needed: raise `ulimit -Hn` (systemd: LimitNOFILE=)");
        }
        Ok(_) => {}
        Err(error) => tracing::warn!("the limit of open files stays as it is: {error}"),
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

/// Serves until `stop`: RTSP, the monitor, the announcement, the goodbye. The engine is running, and runs on afterwards.
///
/// # Errors
/// [`Failure::Runtime`] when RTSP or the monitor cannot listen.
pub async fn appliance<E: Engine>(engine: Arc<E>, net: &Net, plan: &Plan, mut stop: Stop) -> Result<(), Failure> {
    let config = &plan.config;
    let rtsp = RtspServer::bind(rtsp_config(config), Arc::clone(&engine), net)
        .await
        .map_err(|error| cannot_listen("RTSP", config.rtsp, &error, "--rtsp"))?;
    let rtsp_address = rtsp.local_addr();
    let http_address = match config.http {
        HttpListen::Off => None,
        HttpListen::On(address) => {
            let refused = |error| cannot_listen("the monitor", address, &error, "--http (or --http off)");
            let listener = net.listen(address).await.map_err(refused)?;
            let bound = listener.local_addr().map_err(refused)?;
            let monitor = Monitor::new(Arc::clone(&engine), rtsp.counters(), version(), Ages::default());
            tokio::spawn(server::serve(listener, monitor.router(), Limits::default(), stop.0.clone()));
            Some(bound)
        }
    };
    let mut rtsp_stop = Stop(stop.0.clone());
    let rtsp = tokio::spawn(rtsp.run(async move { rtsp_stop.wait().await }));

    let own = super::os::first_ipv4();
    let servers = reachable(rtsp_address, own);
    let announce = async {
        log_engine(&*engine).await;
        let media = tokio::time::timeout(LISTING_MAX, engine.media()).await;
        listing(media.ok().as_deref(), plan, &servers)
    };
    let announcement = tokio::select! {
        () = stop.wait() => None,
        announcement = announce => Some(announcement),
    };
    if let Some(announcement) = announcement {
        if let Some(address) = http_address {
            print(&format!("{announcement}Status: http://{}/api/v1/status\n", reachable(address, own).first().unwrap_or(&address)));
        } else {
            print(&announcement);
        }
        print(&ready_line(rtsp_address, http_address));
        notify(&[sd_notify::NotifyState::Ready]);
        stop.wait().await;
    }

    notify(&[sd_notify::NotifyState::Stopping]);
    // It limits itself to GOODBYE_MAX; this is for the moment after.
    match tokio::time::timeout(GOODBYE_MAX + LEFTOVERS_MAX, rtsp).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::Runtime(format!("the RTSP server broke: {error}"))),
        Err(_) => {
            tracing::warn!("not every client could be told goodbye in time");
            Ok(())
        }
    }
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
            core.net,
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
    use tokio::net::TcpListener;

    use super::*;
    use crate::cli::plan::Cpus;
    use crate::http::fake::FakeEngine;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn plan(rtsp: &str, http: &str) -> Plan {
        Plan {
            config: Config { rtsp: rtsp.parse().unwrap(), http: http.parse().unwrap(), ..Config::default() },
            media: "/srv/films".into(),
            cpus: Cpus { engine: vec![0], control: vec![0] },
            index_cache: None,
        }
    }

    /// An address that nothing listens on: found by listening there a moment ago.
    async fn free_address() -> String {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
    }

    #[tokio::test]
    async fn rtsp_is_served_until_the_stop() {
        let (stop, stopped) = watch::channel(false);
        let rtsp = free_address().await;
        let plan = plan(&rtsp, "127.0.0.1:0");
        let running = tokio::spawn(async move { appliance(Arc::new(FakeEngine::default()), &Net::kernel(), &plan, Stop(stopped)).await });
        let mut client = loop {
            match tokio::net::TcpStream::connect(&rtsp).await {
                Ok(client) => break client,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        client.write_all(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"RTSP/1.0 200");
        stop.send(true).unwrap();
        assert!(running.await.unwrap().is_ok());
        assert!(client.read_to_end(&mut Vec::new()).await.is_ok(), "the connection is closed");
        assert!(tokio::net::TcpStream::connect(&rtsp).await.is_err());
    }

    #[tokio::test]
    async fn a_taken_port_says_which_option_to_change() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        let (_stop, stopped) = watch::channel(false);
        for (rtsp, http, option) in [(taken.as_str(), "off", "--rtsp"), ("127.0.0.1:0", taken.as_str(), "--http")] {
            let plan = plan(rtsp, http);
            let error =
                appliance(Arc::new(FakeEngine::default()), &Net::kernel(), &plan, Stop(stopped.clone())).await.unwrap_err().to_string();
            assert!(error.contains("in use") && error.contains(option), "{error}");
        }
    }

    #[test]
    fn connections_outnumber_sessions() {
        assert_eq!(connections_max(&Config::default()), CONNECTIONS_MIN);
        assert_eq!(connections_max(&Config { max_sessions: 1_000_000, ..Config::default() }), 2_000_000);
    }

    #[tokio::test]
    async fn titles_are_listed_with_urls() {
        let media = FakeEngine::default().media().await;
        let servers = ["192.0.2.1:8554".parse().unwrap(), "127.0.0.1:8554".parse().unwrap()];
        assert_eq!(
            listing(Some(&media), &plan("0.0.0.0:0", "off"), &servers),
            "Serving 1 of 2 files in /srv/films at rtsp://192.0.2.1:8554/ and rtsp://127.0.0.1:8554/\n  \
             rtsp://192.0.2.1:8554/a.mp4  1:00.0  H.264 High@4.0, AAC-LC\n"
        );
        let many: Vec<_> = (0..50).flat_map(|_| media.clone()).collect();
        assert!(listing(Some(&many), &plan("0.0.0.0:0", "off"), &servers).ends_with("  and 30 more: see /api/v1/media\n"));
        assert!(listing(None, &plan("0.0.0.0:0", "off"), &servers).contains("still being read"));
    }

    #[test]
    fn the_ready_line_is_for_programs() {
        let line = ready_line("[::]:8554".parse().unwrap(), None);
        assert_eq!(line, format!("ready: rtsp=[::]:8554 http=off pid={}\n", std::process::id()));
    }
}
