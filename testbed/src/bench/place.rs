//! Where a server that is measured runs: on this machine's loopback, or on its own stack at one end of a cable.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{BenchError, Observed, observe};
use crate::load::Options;
use crate::net::{Net, Topology};
use crate::peers::{Peer, PeerError, Running};
use crate::serve::http_get;

/// The clients' network: all of it belongs to the client's host.
const CLIENTS: &str = "10.99.0.0/16";
/// The first of them.
const FIRST_CLIENT: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 99, 0, 1);
/// Between two questions how busy the server is.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// What the server says may be as old as this.
const OLD_MAX: Duration = Duration::from_secs(2);
const CABLE: &str = "\
    [hosts.server]\n[hosts.client]\n[[links]]\nname = \"cable\"\nends = [\n\
    { host = \"server\", addresses = [\"10.77.0.1/24\"], interface = \"eth0\" },\n\
    { host = \"client\", addresses = [\"10.77.0.2/24\"], interface = \"eth0\" } ]\n";
/// The server's own stack has an address that the kernel there does not have.
const OWN_STACK: [(&str, &str); 6] = [
    ("--net", "af_xdp:eth0"),
    ("--ip", "10.77.0.3/24"),
    ("--gateway", "10.77.0.2"),
    ("--rtsp", "10.77.0.3:8554"),
    ("--http", "10.77.0.3:8080"),
    ("--rtp-port", "6970"),
];

/// Where servers and clients are.
#[derive(Debug)]
pub enum Place {
    /// On loopback, kernel sockets.
    Loopback,
    /// At two ends of a pair of virtual interfaces; the server has its own stack.
    Cable(Box<Net>),
}

impl Place {
    /// A cable between two new hosts.
    ///
    /// # Errors
    /// Not root, or what failed.
    pub fn cable() -> Result<Self, BenchError> {
        let topology = Topology::parse(CABLE, Path::new("cable.toml")).map_err(crate::net::NetError::from)?;
        let net = topology.up()?;
        // Whole networks can be local: each client gets an address of its own without an interface knowing them one by one.
        let mut ip = net.command("client", "ip")?;
        let added = ip.args(["route", "add", "local", CLIENTS, "dev", "lo"]).stdin(Stdio::null()).status();
        match added {
            Ok(status) if status.success() => Ok(Self::Cable(Box::new(net))),
            Ok(status) => Err(BenchError::File("ip route add local".into(), io::Error::other(status.to_string()))),
            Err(error) => Err(BenchError::File("ip".into(), error)),
        }
    }

    /// Starts the server.
    ///
    /// # Errors
    /// As of [`Peer::start`].
    pub fn start(&self, peer: &Peer, media: &Path, sessions: usize, log: &Path) -> Result<Running, PeerError> {
        match self {
            Self::Loopback => peer.start(media, sessions, log),
            Self::Cable(net) => {
                let command = |program: &str| net.command("server", program).map_err(io::Error::other);
                peer.with_options(&OWN_STACK).start_by(media, sessions, log, &command)
            }
        }
    }

    /// Loads it from where the clients are. Beside what was found: the share of its time in which the server's engine core was busy, where it
    /// tells.
    ///
    /// # Errors
    /// As of [`observe`].
    pub fn observe(&self, server: &mut Running, options: Options) -> Result<(Observed, Option<f64>), BenchError> {
        let watched = |server: &mut Running, options: Options| -> Result<_, BenchError> {
            let http = server.http;
            if let Some(cpu) = options.cpu.filter(|&cpu| {
                std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) && engine_cpu(http) == Some(cpu as u64)
            }) {
                return Err(BenchError::SharedCore(cpu));
            }
            std::thread::scope(|scope| {
                let (done, over) = mpsc::channel();
                // A thread begins in the network namespace of the one that starts it.
                let busy = scope.spawn(move || busy_while(http, &over));
                let observed = observe(server, options);
                drop(done);
                let (busy, observed) = (busy.join().unwrap_or_default(), observed?);
                let steady = observed.steady.and_then(|(from, to)| median_within(&busy, from, to));
                Ok((observed, steady))
            })
        };
        match self {
            Self::Loopback => Ok(watched(server, options)?),
            Self::Cable(net) => {
                let options = Options { from: Some(FIRST_CLIENT), drift_ppm: Some(0.0), ..options };
                Ok(net.in_namespace("client", || watched(server, options))??)
            }
        }
    }
}

fn status_of(http: SocketAddr) -> Option<serde_json::Value> {
    http_get(http, "/api/v1/status").ok().and_then(|(_, body)| serde_json::from_str(&body).ok())
}

/// Where the server's engine core is pinned, if it tells.
fn engine_cpu(http: Option<SocketAddr>) -> Option<u64> {
    status_of(http?)?.pointer("/cores/0/cpu")?.as_u64()
}

/// Asks the server how busy its engine core is, until `over`.
fn busy_while(http: Option<SocketAddr>, over: &mpsc::Receiver<()>) -> Vec<(Instant, f64)> {
    let mut busy = Vec::new();
    let Some(http) = http else { return busy };
    while let Err(mpsc::RecvTimeoutError::Timeout) = over.recv_timeout(ASK_EVERY) {
        busy.extend(status_of(http).and_then(|status| Some((Instant::now(), status.pointer("/cores/0/busy")?.as_f64()?))));
    }
    busy
}

/// The median of what was heard from `from` to `to`, without what is older than that when it is heard.
fn median_within(busy: &[(Instant, f64)], from: Instant, to: Instant) -> Option<f64> {
    let heard = |from: Instant| busy.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, busy)| *busy).collect::<Vec<f64>>();
    let mut steady = heard(from + OLD_MAX);
    if steady.is_empty() {
        steady = heard(from);
    }
    steady.sort_by(f64::total_cmp);
    steady.get(steady.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_of_the_steady_part_counts() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let busy: Vec<(Instant, f64)> =
            [0.1, 0.2, 0.5, 0.9, 0.6, 0.7, 0.0].into_iter().enumerate().map(|(n, b)| (at(n as u64), b)).collect();
        assert_eq!(median_within(&busy, at(1), at(5)), Some(0.7));
        assert_eq!(median_within(&busy, at(4), at(5)), Some(0.7));
        assert_eq!(median_within(&busy, at(9), at(12)), None);
    }

    #[test]
    fn the_cable_can_be_read() {
        assert_eq!(Topology::parse(CABLE, Path::new("x.toml")).unwrap().name(), "x");
    }
}
