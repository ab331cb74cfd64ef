//! The transfers: two that never end and short ones beside them, between threads in two network namespaces.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::super::{SHORT_BYTES, path};
use super::Window;
use crate::load::sys;
use crate::net::Net;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 1);
const LONG_PORT: u16 = 5001;
const SHORT_PORT: u16 = 5002;
/// Connections that never end.
const ENDLESS: usize = 2;
/// Nothing here waits longer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between looks at the round-trip times.
const SAMPLE: Duration = Duration::from_millis(10);
const WINDOW: Duration = Duration::from_nanos(path::WINDOW_NS);
const START: Duration = Duration::from_nanos(path::START_NS);
const BUFFER_BYTES: usize = 64 << 10;

/// What the threads share.
#[derive(Default)]
struct Shared {
    over: AtomicBool,
    delivered: [AtomicU64; ENDLESS],
    /// Short transfers that ended, and how long each took.
    short: Mutex<Vec<Duration>>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

fn io_error(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((SERVER, port)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Runs the transfers for a while, with this congestion control.
///
/// # Errors
/// A socket fails, or the kernel has no such congestion control.
pub fn run(net: &Net, congestion: &str, seconds: f64) -> io::Result<Vec<Window>> {
    let listen = |port| net.in_namespace("server", move || TcpListener::bind((SERVER, port))).map_err(io_error)?;
    let (long, short) = (listen(LONG_PORT)?, listen(SHORT_PORT)?);
    let shared = Shared::default();
    let client = || -> io::Result<Vec<TcpStream>> { (0..ENDLESS).map(|_| connect(LONG_PORT)).collect() };
    let receivers = net.in_namespace("client", client).map_err(io_error)??;
    let senders = (0..ENDLESS).map(|_| long.accept().map(|(stream, _)| stream)).collect::<io::Result<Vec<TcpStream>>>()?;
    for sender in &senders {
        // For each socket: a namespace of its own may not have every congestion control as its default.
        SockRef::from(sender).set_tcp_congestion(congestion.as_bytes())?;
        sender.set_write_timeout(Some(PATIENCE))?;
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let shared = &shared;
        for (receiver, delivered) in receivers.iter().zip(&shared.delivered) {
            scope.spawn(move || receive(receiver, delivered));
        }
        for sender in &senders {
            scope.spawn(move || send(sender, shared));
        }
        scope.spawn(|| serve_short(&short, congestion, shared));
        let asking = scope.spawn(|| net.in_namespace("client", || ask_short(start, shared)).map_err(io_error)?);
        let windows = watch(&senders, start, Duration::from_secs_f64(seconds), shared);
        shared.over.store(true, Ordering::Relaxed);
        for stream in senders.iter().chain(&receivers) {
            // Ends whoever waits for it; it may have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        let asked = asking.join().unwrap_or_else(|_| Err(io::Error::other("the short transfers failed")));
        // The acceptor waits for one more.
        let woken = net.in_namespace("client", || connect(SHORT_PORT).map(drop)).map_err(io_error)?;
        asked.and(woken).and(windows)
    })
}

fn receive(mut stream: &TcpStream, delivered: &AtomicU64) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        delivered.fetch_add(count as u64, Ordering::Relaxed);
    }
}

fn send(mut stream: &TcpStream, shared: &Shared) {
    let buffer = vec![0x5a; BUFFER_BYTES];
    while !shared.is_over() && stream.write_all(&buffer).is_ok() {}
}

fn serve_short(listener: &TcpListener, congestion: &str, shared: &Shared) {
    let buffer = vec![0x5a; SHORT_BYTES as usize];
    while let Ok((mut stream, _)) = listener.accept() {
        if shared.is_over() {
            return;
        }
        // A transfer that fails is one that the client does not count.
        let set = SockRef::from(&stream).set_tcp_congestion(congestion.as_bytes()).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        let _ = set.and_then(|()| stream.write_all(&buffer));
    }
}

/// One transfer in each window, from the end of start-up on.
fn ask_short(start: Instant, shared: &Shared) -> io::Result<()> {
    let mut next = start + START;
    let mut bytes = Vec::with_capacity(SHORT_BYTES as usize);
    loop {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if shared.is_over() {
            return Ok(());
        }
        let began = Instant::now();
        bytes.clear();
        let count = connect(SHORT_PORT)?.read_to_end(&mut bytes)?;
        if count as u64 == SHORT_BYTES {
            shared.short.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(began.elapsed());
        }
        next = (next + WINDOW).max(Instant::now());
    }
}

fn watch(senders: &[TcpStream], start: Instant, duration: Duration, shared: &Shared) -> io::Result<Vec<Window>> {
    let mut windows = Vec::new();
    let mut before = [0; ENDLESS];
    let mut window = Window::default();
    let (mut look, mut end) = (start + SAMPLE, start + WINDOW);
    while end <= start + duration {
        std::thread::sleep(look.saturating_duration_since(Instant::now()));
        look = (look + SAMPLE).max(Instant::now());
        for sender in senders {
            window.rtts_us.push(sys::tcp_rtt_us(sender)?);
        }
        if Instant::now() < end {
            continue;
        }
        let now = shared.delivered.each_ref().map(|bytes| bytes.load(Ordering::Relaxed));
        window.delivered = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        before = now;
        window.end_ms = (end - start).as_secs_f64() * 1e3;
        let short = shared.short.lock().unwrap_or_else(std::sync::PoisonError::into_inner).drain(..).next_back();
        window.short_ms = short.map(|took| took.as_secs_f64() * 1e3);
        windows.push(std::mem::take(&mut window));
        end += WINDOW;
    }
    Ok(windows)
}
