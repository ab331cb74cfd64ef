//! The RTSP server's sockets: accepting, limits, deadlines, stop.
//!
//! A silent connection costs a small task and no buffers: bytes are read onto the stack of whoever polls, and what deals with them is
//! allocated while there are any.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataplane::engine::net::Handover;
use rtsp_types::StatusCode;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::connection::{Closed, Connection, Wire};
use super::counters::RtspCounters;
use super::idle::{IdleClock, Patience};
use super::reply::Reply;
use super::service::{Service, SessionDirectory};
use crate::config::{ClassRules, RecordRules};
use crate::engine::Engine;
use crate::net::{Listener, Net, Stream};

/// Bytes taken from a socket at once.
const READ_BYTES: usize = 16 * 1024;
/// How often sessions are looked at for silence.
const REAP_INTERVAL: Duration = Duration::from_secs(2);
/// Wait after a failed accept (out of file descriptors), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long, and for how many bytes, a connection is read after an answer that refuses what is still coming. Closing with bytes unread
/// would reset the connection and take the answer with it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How the server behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtspConfig {
    /// Where it listens. `[::]` takes IPv4 as well.
    pub addr: SocketAddr,
    /// How long the client of a session may be silent. Told to clients in whole seconds.
    pub session_timeout: Duration,
    /// How long connections may be silent.
    pub patience: Patience,
    /// How long a client may refuse to take an answer.
    pub write_timeout: Duration,
    /// How long a stop may take.
    pub stop_timeout: Duration,
    /// Connections at once; more are told 503 and closed.
    pub connections_max: u32,
    /// Connections at once from one address; `None` for no limit of its own.
    pub connections_per_ip_max: Option<u32>,
    /// Which sessions are guaranteed.
    pub classes: ClassRules,
    /// Who may record where.
    pub record: RecordRules,
}

impl Default for RtspConfig {
    fn default() -> Self {
        Self {
            addr: SocketAddr::from(([0, 0, 0, 0], 8554)),
            session_timeout: Duration::from_secs(60),
            patience: Patience::default(),
            write_timeout: Duration::from_secs(10),
            stop_timeout: Duration::from_secs(2),
            connections_max: 10_240,
            connections_per_ip_max: None,
            classes: ClassRules::default(),
            record: RecordRules::default(),
        }
    }
}

/// A bound RTSP server.
#[derive(Debug)]
pub struct RtspServer<E: Engine> {
    config: Arc<RtspConfig>,
    listener: Listener,
    local_addr: SocketAddr,
    service: Arc<Service<E>>,
    per_ip: PerIp,
}

impl<E: Engine> RtspServer<E> {
    /// Listens on `net`.
    ///
    /// # Errors
    /// As binding and listening.
    pub async fn bind(config: RtspConfig, engine: Arc<E>, net: &Net) -> io::Result<Self> {
        let listener = net.listen(config.addr).await?;
        let local_addr = listener.local_addr()?;
        let service =
            Arc::new(Service::new(engine, config.session_timeout).with_classes(config.classes.clone()).with_record(config.record.clone()));
        Ok(Self { config: Arc::new(config), listener, local_addr, service, per_ip: PerIp::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Its counters.
    pub fn counters(&self) -> Arc<RtspCounters> {
        Arc::clone(&self.service.counters)
    }

    /// Its sessions.
    pub fn directory(&self) -> SessionDirectory {
        SessionDirectory(Arc::clone(&self.service.sessions))
    }

    /// Serves until `shutdown` is ready; then takes and answers nothing more, ends all sessions and returns.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let (stop, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut reap_timer = interval(REAP_INTERVAL.min(self.config.session_timeout / 4).max(Duration::from_millis(10)));
        reap_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reaper = {
            let service = Arc::clone(&self.service);
            async move {
                loop {
                    reap_timer.tick().await;
                    service.reap().await;
                }
            }
        };
        tokio::pin!(shutdown, reaper);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                () = &mut reaper => {}
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok(stream) => {
                        if let Some(admitted) = self.admit(stream) {
                            connections.spawn(serve(admitted, Arc::clone(&self.service), Arc::clone(&self.config), stopped.clone()));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accepting failed; raise the limit of open files if there are too many");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop((self.listener, stop));
        let ends = async {
            self.service.end_all("the server stops").await;
            while connections.join_next().await.is_some() {}
            // One that was being made while the others were ended.
            self.service.end_all("the server stops").await;
        };
        if timeout(self.config.stop_timeout, ends).await.is_err() {
            tracing::warn!("the engine did not end all sessions in time");
        }
    }

    /// Counts a new connection in, or tells it 503 and closes it.
    fn admit(&self, stream: Stream) -> Option<Admitted> {
        let counters = &self.service.counters;
        // A client that has gone already has no addresses.
        let (peer, local) = (canonical(stream.peer_addr().ok()?), canonical(stream.local_addr().ok()?));
        counters.connections_total.fetch_add(1, Relaxed);
        let too_many = counters.connections.load(Relaxed) >= u64::from(self.config.connections_max);
        let place = if too_many { None } else { self.per_ip.enter(peer.ip(), self.config.connections_per_ip_max) };
        let Some(place) = place else {
            counters.connections_refused.fetch_add(1, Relaxed);
            counters.response(StatusCode::ServiceUnavailable.into());
            stream.refuse(&Reply::refusal(StatusCode::ServiceUnavailable, "too many connections").encode(None));
            return None;
        };
        counters.connections.fetch_add(1, Relaxed);
        stream.set_nodelay();
        Some(Admitted { stream, peer, local, _counted: Counted { counters: Arc::clone(counters), _place: place } })
    }
}

/// A connection that may be served.
struct Admitted {
    stream: Stream,
    peer: SocketAddr,
    local: SocketAddr,
    _counted: Counted,
}

/// Takes the connection out of the count when it is done, however that happens.
struct Counted {
    counters: Arc<RtspCounters>,
    _place: Place,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Relaxed);
    }
}

/// Connections by client address.
#[derive(Clone, Debug, Default)]
struct PerIp(Arc<Mutex<HashMap<IpAddr, u32>>>);

/// One connection's place among those of its address.
struct Place {
    ip: IpAddr,
    table: PerIp,
}

impl PerIp {
    fn enter(&self, ip: IpAddr, max: Option<u32>) -> Option<Place> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = table.get(&ip).copied().unwrap_or(0);
        if max.is_some_and(|max| count >= max) {
            return None;
        }
        table.insert(ip, count + 1);
        Some(Place { ip, table: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = table.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.ip);
            }
        }
    }
}

/// IPv4 clients of an IPv6 socket appear under their IPv4 address. The scope of link-local IPv6 addresses is kept: RTP needs it.
fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

struct StreamWire<'a> {
    stream: &'a Stream,
    write_timeout: Duration,
}

impl Wire for StreamWire<'_> {
    async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let deadline = Instant::now() + self.write_timeout;
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    timeout_at(deadline, self.stream.writable()).await.map_err(|_| io::ErrorKind::TimedOut)??;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn hand_over(&self) -> io::Result<Handover> {
        timeout(self.write_timeout, self.stream.hand_over()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }
}

/// One connection from accept to close.
async fn serve<E: Engine>(admitted: Admitted, service: Arc<Service<E>>, config: Arc<RtspConfig>, mut stopped: watch::Receiver<()>) {
    let Admitted { stream, peer, local, _counted } = admitted;
    let mut connection = Connection::new(service, peer, local);
    connection.core = stream.core();
    let why = tokio::select! {
        why = converse(&stream, &mut connection, &config) => why,
        _ = stopped.changed() => Why::Stopped,
    };
    tracing::debug!(%peer, ?why, "connection closed");
    let attached = connection.stream.is_some();
    connection.close().await;
    if matches!(why, Why::Refused) && !attached {
        linger(stream).await;
    }
}

/// Why a connection was closed.
#[derive(Debug)]
enum Why {
    /// The client closed it.
    Client,
    /// It broke, or the client took no answer in time.
    Broken,
    /// It was silent.
    Silent,
    /// The client broke the protocol and was told so.
    Refused,
    /// The engine gave up what was delivered through it.
    Undeliverable,
    /// The server stops.
    Stopped,
}

async fn converse<E: Engine>(stream: &Stream, connection: &mut Connection<E>, config: &RtspConfig) -> Why {
    let mut clock = IdleClock::new(Instant::now());
    let hangup = Arc::clone(&connection.hangup);
    loop {
        let deadline = clock.deadline(&config.patience, Instant::now(), connection.has_session());
        let readable = tokio::select! {
            readable = timeout_at(deadline, stream.readable()) => readable,
            () = hangup.notified() => return Why::Undeliverable,
        };
        match readable {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Why::Broken,
            // A session that lived when the deadline was set may live still.
            Err(_) if clock.deadline(&config.patience, Instant::now(), connection.has_session()) > Instant::now() => continue,
            Err(_) => return Why::Silent,
        }
        match take(stream, connection, config) {
            Taken::Nothing => {}
            Taken::End => return Why::Client,
            Taken::Error => return Why::Broken,
            Taken::Bytes(dealing) => match dealing.await {
                Ok(progress) => clock.on_bytes(Instant::now(), progress.completed, progress.mid_item),
                Err(Closed::Protocol) => return Why::Refused,
                Err(Closed::Wire(_)) => return Why::Broken,
            },
        }
    }
}

type Dealing<'a> = std::pin::Pin<Box<dyn Future<Output = Result<super::connection::Progress, Closed>> + Send + 'a>>;

/// What a read brought.
enum Taken<'a> {
    Nothing,
    End,
    Error,
    /// Bytes, and what deals with them: on the heap, so that a silent connection's task stays small.
    Bytes(Dealing<'a>),
}

/// Reads what is there. Not async: the buffer must not become part of the task.
fn take<'a, E: Engine>(stream: &'a Stream, connection: &'a mut Connection<E>, config: &RtspConfig) -> Taken<'a> {
    let mut buffer = [0; READ_BYTES];
    match stream.try_read(&mut buffer) {
        Ok(0) => Taken::End,
        Ok(n) => {
            connection.push(buffer.get(..n).unwrap_or_default());
            let mut wire = StreamWire { stream, write_timeout: config.write_timeout };
            Taken::Bytes(Box::pin(async move { connection.process(&mut wire).await }))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Taken::Nothing,
        Err(_) => Taken::Error,
    }
}

/// Ends our side and reads on for a moment, so that the last answer arrives.
async fn linger(mut stream: Stream) {
    if stream.end_writing().await.is_err() {
        return;
    }
    let drain = async {
        let mut total = 0;
        while total < LINGER_BYTES_MAX && stream.readable().await.is_ok() {
            match discard(&stream) {
                Ok(0) => break,
                Ok(n) => total += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    let _ = timeout(LINGER, drain).await;
}

fn discard(stream: &Stream) -> io::Result<usize> {
    stream.try_read(&mut [0; READ_BYTES])
}
