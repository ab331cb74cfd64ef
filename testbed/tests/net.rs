//! `testbed net` on this machine: what wires do to real frames, and that nothing is ever left behind.
//!
//! Times are printed. They decide a test only where this machine's noise cannot: a wire may be late, but is never early.

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use testbed::net::{Direction, Net, NetStats, Topology, Waiting, WireOptions, is_root, state};

const TESTBED: &str = env!("CARGO_BIN_EXE_testbed");

/// Whether the tests can run. A skip is loud, and in CI a failure.
fn can_run() -> bool {
    if is_root() {
        return support::have(&["ip", "ethtool"]);
    }
    assert!(std::env::var("CI").is_err(), "CI must run everything, and this needs root");
    eprintln!("SKIPPED (needs root): network namespaces");
    false
}

fn topology(name: &str) -> Topology {
    Topology::read(&file(name)).unwrap()
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(name).with_extension("toml")
}

fn socket(net: &Net, host: &str, address: &str) -> UdpSocket {
    let socket = net.in_namespace(host, || UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket
}

/// One datagram there; where it came from.
fn crosses(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    from.send_to(b"tick", to.local_addr().unwrap()).unwrap();
    let mut buffer = [0; 64];
    let (len, source) = to.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"tick");
    source
}

/// The only link's figures from the first end to the second.
fn forward(stats: &NetStats) -> &testbed::net::stats::DirectionStats {
    &stats.links[0].forward
}

/// What exists of a topology.
fn traces(name: &str) -> Vec<String> {
    let hosts = state::hosts(name).into_iter().map(|host| state::namespace_name(name, &host));
    let folder = state::folder(name);
    hosts.chain(folder.exists().then(|| folder.display().to_string())).collect()
}

fn run(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(TESTBED).arg("net").args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn hosts_reach_each_other_directly_and_through_a_router() {
    if !can_run() {
        return;
    }
    let pair = topology("pair").up().unwrap();
    for (at_a, at_b) in [("10.77.0.1:0", "10.77.0.2:0"), ("[fd77::1]:0", "[fd77::2]:0")] {
        let (a, b) = (socket(&pair, "a", at_a), socket(&pair, "b", at_b));
        assert_eq!(crosses(&a, &b), a.local_addr().unwrap());
    }
    assert!(pair.stats().unwrap().links.is_empty(), "no wires");
    let output = pair.command("a", "ip").unwrap().args(["-o", "link"]).output().unwrap();
    let interfaces = String::from_utf8(output.stdout).unwrap();
    assert_eq!(interfaces.lines().count(), 2, "loopback and the cable: {interfaces}");
    assert!(pair.command("c", "true").is_err());

    let routed = topology("router").up().unwrap();
    routed.set("slow", Direction::Both, &["loss=0"]).unwrap();
    for (server, client) in [("10.77.3.1:0", "10.77.4.1:0"), ("[fd77:3::1]:0", "[fd77:4::1]:0")] {
        let (server, client) = (socket(&routed, "server", server), socket(&routed, "client", client));
        crosses(&server, &client);
        crosses(&client, &server);
    }
}

#[test]
fn a_wire_is_never_early_and_its_settings_change_while_it_runs() {
    if !can_run() {
        return;
    }
    for wait in [Waiting::Adaptive, Waiting::Busy, Waiting::Sleep] {
        let net = topology("gigabit").up_with(WireOptions { wait, cpu: None }).unwrap();
        rounds_take_their_time(&net, wait);
    }
    let net = topology("gigabit").up().unwrap();
    settings_change(&net);
}

fn rounds_take_their_time(net: &Net, wait: Waiting) {
    let (server, client) = (socket(net, "server", "10.77.1.1:0"), socket(net, "client", "10.77.1.2:0"));
    let mut rounds: Vec<Duration> = (0..200)
        .map(|_| {
            let began = Instant::now();
            crosses(&server, &client);
            crosses(&client, &server);
            began.elapsed()
        })
        .collect();
    rounds.sort();
    println!("round trip of 2 ms, {wait:?}: min {:?}, median {:?}, max {:?}", rounds[0], rounds[100], rounds[199]);
    println!("lateness of the wire: {:?}", forward(&net.stats().unwrap()).lateness);
    assert!(rounds[0] >= Duration::from_micros(2000), "{:?}", rounds[0]);
}

fn settings_change(net: &Net) {
    let (server, client) = (socket(net, "server", "10.77.1.1:0"), socket(net, "client", "10.77.1.2:0"));
    net.set("path", Direction::Forward, &["delay=30 ms"]).unwrap();
    let began = Instant::now();
    crosses(&server, &client);
    assert!(began.elapsed() >= Duration::from_millis(30));
    net.set("path", Direction::Forward, &["delay=0 ms", "loss=100%"]).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    server.send_to(b"lost", client.local_addr().unwrap()).unwrap();
    assert!(client.recv(&mut [0; 64]).is_err());
    crosses(&client, &server);
    net.set("path", Direction::Forward, &["loss=0", "duplicate=100%"]).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    crosses(&server, &client);
    assert_eq!(client.recv(&mut [0; 64]).unwrap(), 4, "the second of two");
    let refused = net.set("cable", Direction::Both, &["loss=1%"]).unwrap_err().to_string();
    assert!(refused.contains("no link \"cable\""), "{refused}");
}

#[test]
fn a_wire_carries_no_more_than_its_rate() {
    if !can_run() {
        return;
    }
    let net = topology("dsl").up().unwrap();
    let (server, client) = (socket(&net, "server", "10.77.2.1:0"), socket(&net, "client", "10.77.2.2:0"));
    crosses(&server, &client);
    // 200 Mbps for a second: four times what the line carries.
    let to = client.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let began = Instant::now();
        for number in 0..16_000_u32 {
            while began.elapsed() < Duration::from_nanos(62_500) * number {
                std::thread::yield_now();
            }
            server.send_to(&[0; 1472], to).unwrap();
        }
    });
    client.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut arrivals = Vec::new();
    while client.recv(&mut [0; 2048]).is_ok() {
        arrivals.push(Instant::now());
    }
    sender.join().unwrap();
    let stats = net.stats().unwrap();
    let figures = forward(&stats);
    let took = *arrivals.last().unwrap() - arrivals[0];
    // 1472 bytes are 1514 in a frame and 1538 on the line.
    let bits = |frames: usize| frames as f64 * 1538.0 * 8.0;
    println!("{} of 16000 datagrams in {took:?}: {:.2} Mbps", arrivals.len(), bits(arrivals.len() - 1) / took.as_secs_f64() / 1e6);
    println!("lateness {:?}", figures.lateness);
    // The first may have been fetched late, by at most what had gathered in the queue meanwhile.
    assert!(bits(arrivals.len() - 1) <= 50e6 * (took.as_secs_f64() + 0.05), "{took:?}");
    assert!(figures.wire.dropped_queue > 8000, "{:?}", figures.wire);
    let bound = 256 << 10;
    assert!((bound - 1514..=bound).contains(&figures.wire.queue_bytes_max), "{:?}", figures.wire);
    // What the wire says of its rate is what left it in the time that it was busy.
    let rate = figures.wire.out_frames as f64 * 1538.0 * 8.0 / (figures.wire.busy_ns as f64 / 1e9);
    assert!((rate / 50e6 - 1.0).abs() < 0.01, "{rate}");
}

#[test]
fn loss_is_as_asked_over_a_hundred_thousand_datagrams() {
    const DATAGRAMS: u32 = 100_000;
    const WINDOW: u32 = 200;
    if !can_run() {
        return;
    }
    let net = topology("gigabit").up().unwrap();
    let (server, client) = (socket(&net, "server", "10.77.1.1:0"), socket(&net, "client", "10.77.1.2:0"));
    crosses(&server, &client);
    net.set("path", Direction::Forward, &["loss=5%"]).unwrap();
    let before = net.stats().unwrap();
    let to = client.local_addr().unwrap();
    // Never more on the way than any queue holds, so that only the wire loses.
    let arrived = Arc::new(AtomicU32::new(0));
    let seen_by_sender = Arc::clone(&arrived);
    let sender = std::thread::spawn(move || {
        for number in 0..DATAGRAMS {
            while number > seen_by_sender.load(Ordering::Relaxed) + WINDOW {
                std::thread::sleep(Duration::from_micros(50));
            }
            server.send_to(&number.to_be_bytes(), to).unwrap();
        }
    });
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let (mut received, mut latest) = (0_u32, None);
    let mut buffer = [0; 64];
    while client.recv(&mut buffer).is_ok() {
        let number = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
        assert!(latest.is_none_or(|latest| latest < number), "order is kept");
        latest = Some(number);
        arrived.store(number, Ordering::Relaxed);
        received += 1;
    }
    sender.join().unwrap();
    let after = net.stats().unwrap();
    let lost = forward(&after).wire.lost - forward(&before).wire.lost;
    let offered = forward(&after).wire.in_frames - forward(&before).wire.in_frames;
    let seen = 1.0 - f64::from(received) / f64::from(DATAGRAMS);
    println!("asked 5 %; the wire lost {lost} of {offered}, the receiver missed {:.2} %", seen * 100.0);
    println!("{:?} {:?}", forward(&after).entry, forward(&after).exit);
    assert!((lost as f64 / offered as f64 - 0.05).abs() < 0.01);
    assert!((seen - 0.05).abs() < 0.01);
}

#[test]
fn iperf3_fills_the_gigabit_path() {
    if !can_run() || !support::have(&["iperf3"]) {
        return;
    }
    let net = topology("gigabit").up().unwrap();
    for arguments in [&["-t", "2"][..], &["-t", "2", "-R"], &["-t", "2", "-u", "-b", "900M", "-l", "1472", "-w", "4M"]] {
        let mut command = net.command("server", "iperf3").unwrap();
        let mut serving = command.args(["-s", "-1", "--forceflush"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(serving.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("listening")));
        let output = net.command("client", "iperf3").unwrap().args(["-J", "-c", "10.77.1.1"]).args(arguments).output().unwrap();
        assert!(serving.wait().unwrap().success());
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let sum = ["sum_received", "sum"].iter().map(|key| &report["end"][key]).find(|sum| sum.is_object()).unwrap();
        let rate_bps = sum["bits_per_second"].as_f64().unwrap();
        println!("iperf3 {arguments:?}: {:.0} Mbps, lost {} %", rate_bps / 1e6, sum["lost_percent"]);
        // 1448 bytes of 1538 are TCP's, and 1472 UDP's; iperf3's own clock rounds.
        assert!(rate_bps > 0.0 && rate_bps <= 1e9 * 1472.0 / 1538.0 * 1.05, "{rate_bps}");
    }
    let stats = net.stats().unwrap();
    println!("lost by this machine {:?} {:?}", forward(&stats).entry, forward(&stats).exit);
    println!("the wires used {:.2} s of CPU in {:.2} s", stats.cpu_seconds, stats.seconds);
    println!("lateness there {:?}\nand back {:?}", forward(&stats).lateness, stats.links[0].backward.lateness);
}

/// Takes a topology down when a test fails.
struct DownAnyway<'a>(&'a str);

impl Drop for DownAnyway<'_> {
    fn drop(&mut self) {
        run(&["down", self.0]);
    }
}

/// Keepers of a topology.
fn keepers(name: &str) -> Vec<String> {
    let keeps = |pid: &String| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
        words.contains(&&b"keep"[..]) && words.contains(&name.as_bytes())
    };
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    pids.filter(|name| name.parse::<u32>().is_ok()).filter(keeps).collect()
}

#[test]
fn a_killed_keeper_leaves_nothing_after_clean() {
    if !can_run() {
        return;
    }
    let name = format!("killed-{}", std::process::id());
    let (done, said) = run(&["up", file("router").to_str().unwrap(), "--name", &name]);
    assert!(done, "{said}");
    let (done, said) = run(&["up", file("router").to_str().unwrap(), "--name", &name]);
    assert!(!done && said.contains("is up already"), "{said}");
    let _anyway = DownAnyway(&name);
    let mut inside = Command::new(TESTBED).args(["net", "exec", &name, "client", "--", "sleep", "1000"]).spawn().unwrap();
    let namespace = state::namespace_path(&name, "client");
    while !state::processes(&namespace).contains(&inside.id()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let keeper = state::owner(&name).unwrap();
    // Another test may be cleaning as well: what its result is, is not for this one to say.
    run(&["clean"]);
    assert!(keeper.is_alive(), "what is up stays up");

    assert!(Command::new("kill").args(["-9", &keeper.pid.to_string()]).status().unwrap().success());
    while keeper.is_alive() {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{}", run(&["list"]).1);
    println!("{}", run(&["clean"]).1);
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!inside.wait().unwrap().success(), "it was ended with its host");
    let (done, said) = run(&["down", &name]);
    assert!(!done && said.contains("there is no topology"), "{said}");
}

#[test]
fn a_maker_killed_at_any_point_leaves_nothing_after_clean() {
    if !can_run() {
        return;
    }
    let name = format!("maker-{}", std::process::id());
    let mut left = Vec::new();
    for after_ms in (0..120).step_by(6) {
        let mut up = Command::new(TESTBED)
            .args(["net", "up", file("router").to_str().unwrap(), "--name", &name])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after_ms));
        up.kill().unwrap();
        up.wait().unwrap();
        left.push(traces(&name).len());
        // A keeper that was let go is the owner of a topology that is up, and one that was not goes by itself.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !traces(&name).is_empty() || !keepers(&name).is_empty() {
            run(&["clean"]);
            if !traces(&name).is_empty() {
                run(&["down", &name]);
            }
            assert!(Instant::now() < deadline, "{:?} {:?}", traces(&name), keepers(&name));
        }
    }
    println!("left behind by makers killed after 0, 6, 12... ms, before the clean-up: {left:?}");
    assert!(left.iter().any(|count| *count > 0), "at least one was killed in the middle");
}

/// Not a test of its own: holds a topology until it is killed by the next one.
#[test]
#[ignore = "run by the_end_of_a_process_takes_its_topologies_along"]
fn holds_a_topology() {
    if std::env::var_os("TACTUS_HOLD").is_none() {
        return;
    }
    let net = topology("gigabit").up().unwrap();
    println!("\nholding {}", net.name());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn the_end_of_a_process_takes_its_topologies_along() {
    if !can_run() {
        return;
    }
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "holds_a_topology", "--ignored", "--nocapture"])
        .env("TACTUS_HOLD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines().map(Result::unwrap);
    let name = lines.find_map(|line| line.strip_prefix("holding ").map(str::to_owned)).unwrap();
    assert_eq!(state::visible_hosts(&name), ["client", "server"]);
    let keeper = state::owner(&name).unwrap();
    assert!(keeper.is_alive());
    holder.kill().unwrap();
    holder.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while keeper.is_alive() || !traces(&name).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", traces(&name));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_dropped_net_is_gone_and_a_failed_one_too() {
    if !can_run() {
        return;
    }
    let net = topology("gigabit").up().unwrap();
    let (name, keeper) = (net.name().to_owned(), net.keeper_pid());
    let mut inside = net.command("server", "sleep").unwrap().arg("1000").spawn().unwrap();
    drop(net);
    assert_eq!(traces(&name), Vec::<String>::new());
    assert!(!Path::new(&format!("/proc/{keeper}")).exists());
    inside.wait().unwrap();

    // No interface leads to this hop.
    let text = "name = \"unroutable\"\n[hosts.a]\nroutes = [{ to = \"default\", via = \"10.9.9.9\" }]";
    let error = Topology::from_toml(text).unwrap().up().unwrap_err().to_string();
    assert!(error.contains("ip -n"), "{error}");
    let left: Vec<String> =
        state::topologies().into_iter().filter(|name| name.starts_with(&format!("unroutable-{}", std::process::id()))).collect();
    assert_eq!(left, Vec::<String>::new());
}
