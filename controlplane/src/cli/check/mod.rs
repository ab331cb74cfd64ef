//! `tactus check`: is this machine tuned for punctual delivery, what is lost if not, and what to type.
//!
//! ```text
//! files below a root folder ─► machine::Machine ─► examine: one Finding per subject ─► table or JSON, exit code
//! ```
//!
//! Nothing is changed and nothing is tried: it reads `/proc` and `/sys`, and asks the driver of a named interface.

mod cores;
mod kernel;
mod machine;
mod memory;
mod nic;
mod sockets;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use super::print;
use crate::config::{Config, EngineCores, Net};
use crate::units::ByteSize;
use machine::Machine;
use nic::Driver;

/// Arguments of `tactus check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// How packets reach the network: kernel, af_xdp:IFACE or tap:NAME
    #[arg(long, value_name = "HOW", default_value = "kernel", value_parser = parse_net)]
    net: Net,
    /// CPUs of the engine cores, as in `tactus serve`
    #[arg(long, value_name = "LIST", default_value = "auto", value_parser = parse_cores)]
    engine_cores: EngineCores,
    /// Buffer memory of each engine core, as in `tactus serve`
    #[arg(long, value_name = "SIZE", default_value_t = Config::default().memory)]
    memory: ByteSize,
    /// Sessions at once, as in `tactus serve`
    #[arg(long, value_name = "N", default_value_t = Config::default().max_sessions)]
    max_sessions: u32,
    /// Where /proc and /sys are, for another machine's copied files
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

fn parse_net(text: &str) -> Result<Net, String> {
    text.parse().map_err(|error: crate::config::ValueError| error.to_string())
}

fn parse_cores(text: &str) -> Result<EngineCores, String> {
    text.parse().map_err(|error: crate::config::ValueError| error.to_string())
}

/// What a machine is to be tuned for.
#[derive(Clone, Debug)]
struct Purpose {
    net: Net,
    /// CPUs of the engine cores.
    engine: Vec<u32>,
    /// Bytes of each core's buffers.
    memory_bytes: u64,
    max_sessions: u32,
}

/// How a subject stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be, or of no matter here.
    Fine,
    /// Something is lost.
    Untuned,
}

/// One subject.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What it is about; stable, for scripts.
    subject: &'static str,
    /// How it stands.
    status: Status,
    /// What was found.
    found: String,
    /// What is lost as it is; empty when it is fine.
    lost: String,
    /// What to type or to change; empty when it is fine.
    fix: Vec<String>,
}

impl Finding {
    fn fine(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, status: Status::Fine, found: found.into(), lost: String::new(), fix: Vec::new() }
    }

    fn untuned(subject: &'static str, found: impl Into<String>, lost: impl Into<String>, fix: Vec<String>) -> Self {
        Self { subject, status: Status::Untuned, found: found.into(), lost: lost.into(), fix }
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Report {
    /// Nothing is lost.
    tuned: bool,
    /// Every subject, in a fixed order.
    findings: Vec<Finding>,
}

/// Looks at everything that matters for this purpose.
fn examine(machine: &Machine, driver: &Driver, purpose: &Purpose) -> Report {
    let mut findings = Vec::new();
    memory::examine(machine, purpose, &mut findings);
    cores::examine(machine, purpose, &mut findings);
    kernel::examine(machine, purpose, &mut findings);
    sockets::examine(machine, purpose, &mut findings);
    nic::examine(machine, driver, purpose, &mut findings);
    Report { tuned: findings.iter().all(|finding| finding.status == Status::Fine), findings }
}

impl Report {
    fn text(&self) -> String {
        let mut out = String::new();
        let width = self.findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
        for Finding { subject, status, found, lost, fix } in &self.findings {
            let status = match status {
                Status::Fine => "fine   ",
                Status::Untuned => "UNTUNED",
            };
            let _ = writeln!(out, "{status}  {subject:width$}  {found}");
            if !lost.is_empty() {
                let _ = writeln!(out, "{:9}{:width$}  lost: {lost}", "", "");
            }
            for line in fix {
                let _ = writeln!(out, "{:9}{:width$}  fix:  {line}", "", "");
            }
        }
        let untuned = self.findings.iter().filter(|finding| finding.status == Status::Untuned).count();
        let _ = match untuned {
            0 => writeln!(out, "\nThis machine is tuned."),
            1 => writeln!(out, "\nOne thing is untuned. Tactus runs all the same, less punctually or at a higher cost."),
            n => writeln!(out, "\n{n} things are untuned. Tactus runs all the same, less punctually or at a higher cost."),
        };
        out
    }
}

/// Runs the command: 0 when all is fine, 1 when something is untuned.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let machine = Machine::new(&args.root);
    let engine = match &args.engine_cores {
        EngineCores::List(list) => list.as_slice().to_vec(),
        // What `tactus serve` would choose here; on copied files, the last CPU that was there.
        EngineCores::Auto => {
            let here = args.root == Path::new("/");
            let cpus = if here { super::os::allowed_cpus().unwrap_or_default() } else { machine.online() };
            vec![cpus.last().copied().unwrap_or(0)]
        }
    };
    let driver = match &args.net {
        Net::AfXdp(name) => Driver::ask(name),
        Net::Kernel | Net::Tap(_) => Driver::default(),
    };
    let purpose = Purpose { net: args.net.clone(), engine, memory_bytes: args.memory.0, max_sessions: args.max_sessions };
    let report = examine(&machine, &driver, &purpose);
    if args.json {
        let json = serde_json::to_string_pretty(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        print(&(json + "\n"));
    } else {
        print(&report.text());
    }
    if report.tuned { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
