//! Programs that everybody has, on the kernel's TCP, against our TCP over AF_XDP through a wire that loses one frame in a hundred: `curl` and
//! `nc` fetch and bring bytes that are compared one by one, `iperf3` measures in both directions and its counts are compared with ours.
//!
//! The services that they talk to are here, on our stack, on one thread: HTTP (`GET /` and `PUT /`), one that tells what it was sent, one that
//! sends, and as much of an iperf3 server as its client needs.

mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dataplane::ports::af_xdp::{self, AfXdpPort};
use stack::host::Host as _;
use stack::host_port::{StackConfig, StackHost};
use stack::iface::IfaceConfig;
use stack::tcp::{ConnId, ListenerId, TcpConfig};
use testbed::net::{Net, Topology, is_root};
use xxhash_rust::xxh3::xxh3_64;

const PATIENCE: Duration = Duration::from_secs(60);
/// The server's kernel.
const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 77, 8, 1);
/// Our stack, on the server's interface.
const OURS: Ipv4Addr = Ipv4Addr::new(10, 77, 8, 3);
const WIRE: &str = "rate = \"50 Mbps\", delay = \"10 ms\", queue = \"256 KiB\", loss = \"1%\"";
const CONTENT_BYTES: usize = 700_001;
const HTTP: u16 = 80;
/// Answers with the length and the hash of all that it was sent.
const TELL: u16 = 9;
/// Sends the content.
const SEND: u16 = 19;
const IPERF: u16 = 5201;
/// Bytes that name an iperf3 test.
const COOKIE_BYTES: usize = 37;

/// What the control connection of iperf3 says, in bytes of one (`iperf_api.h`).
mod iperf {
    pub const TEST_START: u8 = 1;
    pub const TEST_RUNNING: u8 = 2;
    pub const TEST_END: u8 = 4;
    pub const PARAM_EXCHANGE: u8 = 9;
    pub const CREATE_STREAMS: u8 = 10;
    pub const EXCHANGE_RESULTS: u8 = 13;
    pub const DISPLAY_RESULTS: u8 = 14;
    pub const IPERF_DONE: u8 = 16;
}

/// A test of iperf3 under way.
#[derive(Default)]
struct Iperf {
    cookie: Vec<u8>,
    reverse: bool,
    runs: bool,
    /// Bytes of the data connection, either way.
    bytes: u64,
    /// What the control connection is to say.
    say: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Http,
    Tell,
    Send,
    /// A connection of iperf3 that has not said which one it is.
    Iperf,
    Parameters,
    Running,
    Results,
    Data,
}

/// A connection, and what it has said and is to be told.
struct Client {
    id: ConnId,
    role: Role,
    input: Vec<u8>,
    ended: bool,
    output: Vec<u8>,
    sent: usize,
    close: bool,
}

impl Client {
    fn say(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Takes `len` bytes of what was said, once they are there.
    fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        (self.input.len() >= len).then(|| self.input.drain(..len).collect())
    }

    /// A JSON text behind its length.
    fn json(&mut self) -> Option<serde_json::Value> {
        let len = u32::from_be_bytes(*self.input.first_chunk()?) as usize;
        let text = self.take(4 + len)?;
        Some(serde_json::from_slice(&text[4..]).expect("JSON of iperf3"))
    }

    fn act(&mut self, content: &[u8], test: &mut Iperf) {
        match self.role {
            Role::Http => self.http(content),
            Role::Tell if self.ended => {
                self.say(digest(&self.input).as_bytes());
                self.close = true;
            }
            Role::Send => {
                self.say(content);
                self.close = true;
            }
            Role::Iperf => {
                let Some(cookie) = self.take(COOKIE_BYTES) else { return };
                if test.cookie.is_empty() {
                    test.cookie = cookie;
                    self.role = Role::Parameters;
                    self.say(&[iperf::PARAM_EXCHANGE]);
                } else {
                    assert_eq!(cookie, test.cookie, "a connection of the same test");
                    self.role = Role::Data;
                    test.runs = true;
                    test.say.extend([iperf::TEST_START, iperf::TEST_RUNNING]);
                }
            }
            Role::Parameters => {
                let Some(parameters) = self.json() else { return };
                test.reverse = parameters["reverse"].as_bool() == Some(true);
                self.role = Role::Running;
                self.say(&[iperf::CREATE_STREAMS]);
            }
            Role::Running => {
                self.say(&std::mem::take(&mut test.say));
                let Some(end) = self.take(1) else { return };
                assert_eq!(end[0], iperf::TEST_END);
                test.runs = false;
                self.role = Role::Results;
                self.say(&[iperf::EXCHANGE_RESULTS]);
            }
            Role::Results => {
                let Some(theirs) = self.json() else {
                    self.close |= self.input == [iperf::IPERF_DONE];
                    return;
                };
                let id = &theirs["streams"][0]["id"];
                let stream =
                    serde_json::json!({ "id": id, "bytes": test.bytes, "retransmits": -1, "jitter": 0, "errors": 0, "packets": 0 });
                let ours = serde_json::json!({
                    "cpu_util_total": 0, "cpu_util_user": 0, "cpu_util_system": 0, "sender_has_retransmits": -1, "streams": [stream]
                });
                let text = ours.to_string();
                self.say(&(text.len() as u32).to_be_bytes());
                self.say(text.as_bytes());
                self.say(&[iperf::DISPLAY_RESULTS]);
            }
            Role::Data if test.reverse => {
                if test.runs && self.sent == self.output.len() {
                    (self.output, self.sent) = (vec![0; 65_536], 0);
                }
                self.close = self.ended;
            }
            Role::Data => {
                test.bytes += self.input.len() as u64;
                self.input.clear();
                self.close = self.ended;
            }
            Role::Tell => {}
        }
    }

    fn http(&mut self, content: &[u8]) {
        let Some(at) = self.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return };
        let head = String::from_utf8_lossy(&self.input[..at]).into_owned();
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let body = &self.input[at + 4..];
        let answer = if head.starts_with("GET ") {
            content.to_vec()
        } else if body.len() == length.expect("curl tells how long a body is") {
            digest(body).into_bytes()
        } else {
            return;
        };
        self.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len()).as_bytes());
        self.say(&answer);
        (self.role, self.close) = (Role::Tell, true);
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("{} {:016x}\n", bytes.len(), xxh3_64(bytes))
}

/// Our end.
struct Server {
    host: StackHost<AfXdpPort>,
    listeners: [(Role, ListenerId); 4],
    clients: Vec<Client>,
    content: Vec<u8>,
    test: Iperf,
    start: Instant,
}

impl Server {
    fn new(port: AfXdpPort, content: Vec<u8>) -> Self {
        let tcp = TcpConfig { connections_max: 64, pool_bytes: 16 << 20, ..TcpConfig::default() };
        let addresses = vec![format!("{OURS}/24").parse().unwrap()];
        let iface = IfaceConfig { addresses, detect_duplicates: false, ..IfaceConfig::default() };
        let mut host = StackHost::new(StackConfig { iface, tcp, ..StackConfig::default() }, port, None, 1, 0);
        let listeners = [(Role::Http, HTTP), (Role::Tell, TELL), (Role::Send, SEND), (Role::Iperf, IPERF)]
            .map(|(role, port)| (role, host.tcp_mut().listen((OURS, port).into(), 16).unwrap()));
        Self { host, listeners, clients: Vec::new(), content, test: Iperf::default(), start: Instant::now() }
    }

    fn turn(&mut self) {
        let now_ns = self.start.elapsed().as_nanos() as u64;
        self.host.receive(now_ns, 64, &mut |_, _| {});
        self.host.flush(now_ns);
        let Self { host, listeners, clients, content, test, .. } = self;
        let tcp = host.tcp_mut();
        for (role, listener) in *listeners {
            while let Some(id) = tcp.accept(listener) {
                let (input, output) = (Vec::new(), Vec::new());
                clients.push(Client { id, role, input, ended: false, output, sent: 0, close: false });
            }
        }
        let mut buffer = [0; 16_384];
        clients.retain_mut(|client| {
            loop {
                match tcp.recv(client.id, &mut buffer) {
                    Ok(Some(count @ 1..)) => client.input.extend_from_slice(&buffer[..count]),
                    Ok(None) => break,
                    Ok(Some(0)) => break client.ended = true,
                    // iperf3 leaves without having read all.
                    Err(error) => {
                        assert_eq!(client.role, Role::Data, "{error}");
                        tcp.close(client.id);
                        return false;
                    }
                }
            }
            if !client.close {
                client.act(content, test);
            }
            let taken = tcp.send(client.id, &[&client.output[client.sent..]]).unwrap_or(0);
            client.sent += taken;
            test.bytes += if client.role == Role::Data { taken as u64 } else { 0 };
            let done = client.close && client.sent == client.output.len();
            if done || (client.close && client.role == Role::Data) {
                tcp.close(client.id);
                return false;
            }
            true
        });
        while tcp.next_event().is_some() {}
        self.host.flush_streams(now_ns);
    }

    /// Runs a program in the client's namespace, and serves it.
    fn serve(&mut self, net: &Net, mut program: Command) -> Output {
        let done = AtomicBool::new(false);
        let shown = format!("{program:?}");
        let began = Instant::now();
        let output = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let result = net.in_namespace("client", || program.output());
                done.store(true, Ordering::Release);
                result.unwrap().unwrap()
            });
            // Those that have gone may leave something to be said.
            while !done.load(Ordering::Acquire) || !self.clients.is_empty() {
                self.turn();
                assert!(began.elapsed() < 2 * PATIENCE, "{shown}: {:?}", self.host.layers());
                self.host.wait(200_000, -1);
            }
            worker.join().unwrap()
        });
        assert!(output.status.success(), "{shown}: {}, {}", output.status, String::from_utf8_lossy(&output.stderr));
        println!("{:>5} ms: {shown}", began.elapsed().as_millis());
        output
    }
}

/// Bytes without a period.
fn content() -> Vec<u8> {
    (0..CONTENT_BYTES as u64 / 8 + 1).flat_map(|at| xxh3_64(&at.to_ne_bytes()).to_ne_bytes()).take(CONTENT_BYTES).collect()
}

fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// The kernel's TCP with itself, on the same wire.
fn iperf_of_the_kernel(net: &Net, way: &str) -> f64 {
    let spawned = net.in_namespace("server", || command(&format!("iperf3 -s -1 -B {KERNEL}")).stdout(Stdio::null()).spawn());
    let mut server = spawned.unwrap().unwrap();
    let began = Instant::now();
    let output = loop {
        let output = net.in_namespace("client", || command(&format!("iperf3 -c {KERNEL} -n 1M -J {way}")).output()).unwrap().unwrap();
        // Until it listens.
        if output.status.success() || began.elapsed() > Duration::from_secs(10) {
            break output;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let _ = server.kill();
    let _ = server.wait();
    mbps(&serde_json::from_slice(&output.stdout).expect("JSON of iperf3"))
}

fn mbps(report: &serde_json::Value) -> f64 {
    report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e6
}

#[test]
fn curl_nc_and_iperf3_through_a_wire_that_loses_one_in_a_hundred() {
    if !is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs root and must not be skipped here");
        println!("SKIPPED (needs root): curl, nc and iperf3 against our TCP");
        return;
    }
    if !support::have(&["ip", "ethtool", "curl", "nc", "iperf3"]) {
        return;
    }
    let ends = format!(
        "[{{ host = \"server\", addresses = [\"{KERNEL}/24\"], interface = \"eth0\" }}, {{ host = \"client\", addresses = [\"10.77.8.2/24\"] }}]"
    );
    let text = format!("[hosts.server]\n[hosts.client]\n[[links]]\nname = \"path\"\nends = {ends}\nwire = {{ {WIRE} }}\n");
    let net = Topology::parse(&text, Path::new("tools.toml")).unwrap().up().unwrap();
    let options = af_xdp::Options { addresses: vec![OURS.into()], ..af_xdp::Options::new("eth0") };
    let mut opened = net.in_namespace("server", || af_xdp::open(&options)).unwrap().unwrap();
    let content = content();
    let mut server = Server::new(opened.ports.remove(0), content.clone());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("content");
    std::fs::write(&file, &content).unwrap();
    let told = digest(&content);
    let fetched =
        |what: &str, output: Output| assert!(output.stdout == content, "{what}: {} bytes that are not what was sent", output.stdout.len());
    let brought = |what: &str, output: Output| assert_eq!(String::from_utf8_lossy(&output.stdout), told, "{what}");

    fetched("curl", server.serve(&net, command(&format!("curl -sS --max-time 60 http://{OURS}/"))));
    let upload = format!("curl -sS --max-time 60 -H Expect: -T {} http://{OURS}/", file.display());
    brought("curl -T", server.serve(&net, command(&upload)));
    fetched("nc", server.serve(&net, command(&format!("nc -d {OURS} {SEND}"))));
    let mut nc = command(&format!("nc -N {OURS} {TELL}"));
    nc.stdin(std::fs::File::open(&file).unwrap());
    brought("nc <", server.serve(&net, nc));

    for way in ["", "-R"] {
        let output = server.serve(&net, command(&format!("iperf3 -c {OURS} -n 1M -J {way}")));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON of iperf3");
        let test = std::mem::take(&mut server.test);
        let end = if way.is_empty() { "sum_sent" } else { "sum_received" };
        let theirs = report["end"][end]["bytes"].as_u64().expect("a count");
        if way.is_empty() {
            assert_eq!(theirs, test.bytes, "all that it says it has sent came");
        } else {
            assert!(theirs >= 1 << 20 && theirs <= test.bytes, "{theirs} of {} bytes", test.bytes);
        }
        let (ours, kernels) = (mbps(&report), iperf_of_the_kernel(&net, way));
        println!("iperf3 {way} with us {ours:.1} Mbps, the kernel with itself {kernels:.1} Mbps, one run each of 1 MiB");
    }

    let (port, iface, tcp) = server.host.layers();
    println!("{tcp:?}\n{port:?}");
    assert_eq!((iface.dropped_checksum, iface.dropped_malformed, tcp.rx_malformed), (0, 0, 0));
    let stats = net.stats().unwrap();
    for direction in [&stats.links[0].forward, &stats.links[0].backward] {
        assert!(direction.wire.lost > 0, "the wire has lost frames: {:?}", direction.wire);
    }
    assert!(tcp.tx_retransmits > 0, "{tcp:?}");
}
