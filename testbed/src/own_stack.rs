//! Servers on a network stack of their own, for the end-to-end tests: `TACTUS_E2E_NET=af_xdp` (or `tap`) makes every server that a test
//! starts run so, and the tests are otherwise the same.
//!
//! ```text
//! this network namespace                    the server's own, which goes when the server goes
//! clients ── cN (10.200.N.2, kernel) ═════ sN (no address) ── AF_XDP ── tactus (10.200.N.1)
//!                                          sN ── bridge ── tap0 ─────── tactus           (tap)
//! ```
//!
//! With `TACTUS_E2E_CORES=2` as well, every server has two engine cores, and the cable as many queues at each end.
//!
//! Needs root. Run the tests in a network namespace of their own (`unshare -n`): the clients' ends are made where the tests run.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// Says that servers are to run on a stack of their own, and over what.
pub const VARIABLE: &str = "TACTUS_E2E_NET";

/// Over what a server's own stack reaches its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// AF_XDP on its end of a pair of virtual interfaces.
    AfXdp,
    /// A TAP device, bridged to that end.
    Tap,
}

/// What the environment asks for; `None`: kernel sockets.
///
/// # Errors
/// The variable names something else.
pub fn wanted() -> io::Result<Option<Over>> {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) | Ok("" | "kernel") => Ok(None),
        Ok("af_xdp") => Ok(Some(Over::AfXdp)),
        Ok("tap") => Ok(Some(Over::Tap)),
        Ok(other) => Err(io::Error::other(format!("{VARIABLE}={other}: there is kernel, af_xdp and tap"))),
    }
}

/// Says how many engine cores servers on a stack of their own are to have.
pub const CORES_VARIABLE: &str = "TACTUS_E2E_CORES";

/// What the environment asks for; 1 if it says nothing.
///
/// # Errors
/// The variable is no number of cores.
fn cores() -> io::Result<u32> {
    match std::env::var(CORES_VARIABLE) {
        Err(_) => Ok(1),
        Ok(text) => text
            .parse()
            .ok()
            .filter(|cores| (1..=16).contains(cores))
            .ok_or_else(|| io::Error::other(format!("{CORES_VARIABLE}={text}: a number from 1 to 16"))),
    }
}

/// Networks given out by this process.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// The options by which `tactus serve` runs on the stack of network `net`; they replace those of the same names.
fn options(over: Over, net: u8, ipv6: bool) -> Vec<(String, String)> {
    let driver = match over {
        Over::AfXdp => "af_xdp:s0".to_owned(),
        Over::Tap => "tap:tap0".to_owned(),
    };
    let rtsp = if ipv6 { format!("[fd00:200:{net}::1]:8554") } else { format!("10.200.{net}.1:8554") };
    [
        ("--net", driver),
        ("--ip", format!("10.200.{net}.1/24,fd00:200:{net}::1/64")),
        ("--rtsp", rtsp),
        ("--http", format!("10.200.{net}.1:8080")),
        ("--rtp-port", "6970".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// Starts `tactus serve` in a namespace of its own, on its own stack; `arguments` are those that a test gave for kernel sockets.
///
/// # Errors
/// The machine does not allow it (needs root), or a tool is missing.
pub fn start(over: Over, binary: &Path, media: &Path, arguments: &[&str]) -> io::Result<Child> {
    let net = NEXT.fetch_add(1, Ordering::Relaxed);
    let ipv6 = arguments.windows(2).any(|pair| pair[0] == "--rtsp" && pair[1].starts_with('['));
    let mut options = options(over, net, ipv6);
    let cores = cores()?;
    if cores > 1 {
        options.push(("--engine-cores".to_owned(), format!("0-{}", cores - 1)));
    }
    let mut command = Command::new("unshare");
    // It waits until its interface is there, and then becomes the server.
    let queues = if cores > 1 { " multi_queue" } else { "" };
    let script = match over {
        Over::AfXdp => "read -r _ && ip link set lo up && ip link set s0 up && exec \"$@\" </dev/null".to_owned(),
        Over::Tap => format!(
            "read -r _ && ip link set lo up && ip tuntap add tap0 mode tap{queues} && ip link add br0 type bridge && ip link set s0 master br0 && \
             ip link set tap0 master br0 && ip link set s0 up && ip link set tap0 up && ip link set br0 up && exec \"$@\" </dev/null"
        ),
    };
    command.args(["-n", "sh", "-c", &script, "sh"]).arg(binary).arg("serve").arg("--media").arg(media).args(["--index-cache", "off"]);
    for (name, value) in &options {
        command.args([name, value]);
    }
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if options.iter().any(|(name, _)| name == argument) {
            rest.next();
        } else {
            command.arg(argument);
        }
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let connected = connect(net, child.id(), cores);
    let go = connected.and_then(|()| child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(b"go\n")));
    if let Err(error) = go {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}

/// Makes the cable between this namespace and that of process `pid`.
fn connect(net: u8, pid: u32, queues: u32) -> io::Result<()> {
    let own = format!("c{net}x{}", std::process::id() % 100_000);
    let pid = pid.to_string();
    wait_for_namespace(&pid)?;
    let queues = queues.to_string();
    let count = ["numrxqueues", &queues, "numtxqueues", &queues];
    run("ip", &[&["link", "add", &own], &count[..], &["type", "veth", "peer", "name", "s0", "netns", &pid], &count[..]].concat())?;
    run("ip", &["addr", "add", &format!("10.200.{net}.2/24"), "dev", &own])?;
    run("ip", &["addr", "add", &format!("fd00:200:{net}::2/64"), "dev", &own, "nodad"])?;
    // The kernel leaves checksums unfinished on virtual interfaces, and only a kernel forgives that.
    run("ethtool", &["-K", &own, "tx", "off"])?;
    run("ip", &["link", "set", &own, "up"])
}

/// `unshare` takes a moment to get there.
fn wait_for_namespace(pid: &str) -> io::Result<()> {
    let own = std::fs::read_link("/proc/self/ns/net")?;
    for _ in 0..500 {
        if std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its != own) {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(io::Error::other("the server's network namespace was not made in 5 s; are you root?"))
}

fn run(program: &str, arguments: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {}: {said}", arguments.join(" "))))
}
