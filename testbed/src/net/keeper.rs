//! The keeper: the process that holds a topology while it is up. It runs the wires and answers on the control socket; without it the topology
//! is dead, and `testbed net clean` removes what is left.
//!
//! A keeper ends, and removes the topology, when the process that started it does, however that happens: it sees its standard input close.
//! For a [`Net`](super::Net) that stays so; `testbed net up` lets its keeper go with a last word.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stack::wire::Wire;

use super::NetError;
use super::build::{in_namespace, wire_interface};
use super::control::{self, Wires};
use super::driver::{Driver, Link, Waiting};
use super::packet::PacketPort;
use super::state::{self, control_path, folder};
use super::sys;
use super::topology::{Topology, WIRE_HOST};
use crate::load::sys::pin_to_cpu;

/// For how long a keeper may take until it is ready.
const START: Duration = Duration::from_secs(20);
/// Commands that wait for the wires.
const COMMANDS: usize = 16;

/// How the wires run.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct WireOptions {
    /// How the wires wait for the next frame
    #[arg(long, value_enum, default_value_t)]
    pub wait: Waiting,
    /// Pin the wires to this core
    #[arg(long)]
    pub cpu: Option<usize>,
}

/// The `testbed` program: this one, or the one that was built beside this test or example.
fn executable() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    if this.file_name().is_some_and(|name| name == "testbed") {
        return Ok(this);
    }
    let beside = this.ancestors().skip(1).take(2).map(|folder| folder.join("testbed"));
    beside.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("no testbed program beside {}: run cargo build -p testbed --bins", this.display()))
    })
}

/// What lets a keeper go.
const STAY: &[u8] = b"stay\n";

/// Starts the keeper of a topology whose namespaces exist; `tied` to the calling process or on its own.
pub fn start(topology: &str, options: WireOptions, tied: bool) -> Result<Child, NetError> {
    let run = |source| NetError::Run { command: "testbed net keep".to_owned(), source };
    let log = folder(topology).join("log");
    let log_file = File::create(&log).map_err(|source| NetError::File { path: log.clone(), source })?;
    let mut command = Command::new(executable().map_err(run)?);
    let waiting = clap::ValueEnum::to_possible_value(&options.wait);
    command.args(["net", "keep", topology, "--wait", waiting.as_ref().map_or("adaptive", |value| value.get_name())]);
    if let Some(cpu) = options.cpu {
        command.args(["--cpu", &cpu.to_string()]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log_file).current_dir("/");
    sys::run_apart(&mut command);
    let mut child = command.spawn().map_err(run)?;
    let (said, heard) = crossbeam_channel::bounded(1);
    if let Some(mut stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut word = [0; 6];
            let _ = said.send(stdout.read_exact(&mut word).is_ok_and(|()| &word == b"ready\n"));
        });
    }
    if heard.recv_timeout(START) == Ok(true) {
        if let Some(stdin) = child.stdin.as_mut().filter(|_| !tied) {
            stdin.write_all(STAY).map_err(run)?;
        }
        return Ok(child);
    }
    let _ = child.kill();
    let _ = child.wait();
    let complaint = std::fs::read_to_string(&log).unwrap_or_default().trim().to_owned();
    Err(NetError::Failed { command: "testbed net keep".to_owned(), complaint })
}

/// The keeper itself; returns only when it cannot go on.
pub fn keep(topology: &str, options: WireOptions) -> Result<(), NetError> {
    let file = |path: PathBuf| move |source| NetError::File { path, source };
    let text_path = folder(topology).join("topology.toml");
    let description = Topology::read(&text_path).map_err(NetError::Topology)?;
    state::take_over(topology).map_err(file(folder(topology)))?;
    let socket = control_path(topology);
    let listener = UnixListener::bind(&socket).map_err(file(socket))?;
    // Niceness counts among the threads of a session only, where the kernel weighs sessions against each other (sched(7), autogroup), and the
    // keeper has a session of its own. Kernels that do not have no such file.
    let _ = std::fs::write("/proc/self/autogroup", "-20");
    let wires = start_wires(topology, &description, options)?;
    let name = topology.to_owned();
    std::thread::spawn(move || {
        let mut word = Vec::new();
        // An error is an end, too.
        let _ = io::stdin().read_to_end(&mut word);
        if word != STAY {
            let _ = super::remove::remove(&name);
            std::process::exit(0);
        }
    });
    let mut stdout = io::stdout();
    // Whoever wanted to know may have gone; then the standard input tells.
    let _ = stdout.write_all(b"ready\n").and_then(|()| stdout.flush());
    control::serve(&listener, &wires);
    Ok(())
}

fn start_wires(topology: &str, description: &Topology, options: WireOptions) -> Result<Wires, NetError> {
    let links = if description.has_wires() { in_namespace(topology, WIRE_HOST, || open_links(description))?? } else { Vec::new() };
    let (commands, received) = crossbeam_channel::bounded(COMMANDS);
    let run = |source| NetError::Run { command: "starting the wires".to_owned(), source };
    let (wake, woken) = UnixDatagram::pair().map_err(run)?;
    wake.set_nonblocking(true).and_then(|()| woken.set_nonblocking(true)).map_err(run)?;
    let driver = Driver { name: topology.to_owned(), links, waiting: options.wait, commands: received, wake: woken };
    std::thread::Builder::new()
        .name("wires".to_owned())
        .spawn(move || {
            if let Some(Err(error)) = options.cpu.map(pin_to_cpu) {
                eprintln!("the wires are not pinned: {error}");
            }
            driver.run();
        })
        .map_err(run)?;
    Ok(Wires { commands, wake })
}

fn open_links(topology: &Topology) -> Result<Vec<Link>, NetError> {
    let mut links = Vec::new();
    for (index, link) in topology.links().iter().enumerate() {
        let Some([there, back]) = link.wire else { continue };
        let open = |end| {
            let interface = wire_interface(index, end);
            PacketPort::open(&interface, link.mtu_bytes as usize)
                .map_err(|source| NetError::Run { command: format!("open {interface} for raw frames"), source })
        };
        links.push(Link {
            name: link.name.clone(),
            hosts: [link.ends[0].host.clone(), link.ends[1].host.clone()],
            ports: [open(0)?, open(1)?],
            wires: [Wire::new(there, link.pool(&there), link.seed * 2), Wire::new(back, link.pool(&back), link.seed * 2 + 1)],
            latest_ns: [0; 2],
        });
    }
    Ok(links)
}
