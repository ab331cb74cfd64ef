//! `ip`(8) and `ethtool`(8), each run to its end within a bounded time.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::NetError;
use super::sys;
use crate::load::sys::end_with_parent;

/// Longer than this none of these takes; the kernel may have to wait for other namespaces to go.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes of a program's complaint that a message repeats.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// Runs `ip` with these words.
pub fn ip(words: &[&str]) -> Result<(), NetError> {
    let mut command = Command::new("ip");
    command.args(words);
    run(command, "iproute2", None)
}

/// Runs these lines of `ip` in one process, in a namespace.
pub fn ip_batch(namespace: &str, lines: &[String]) -> Result<(), NetError> {
    if lines.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    command.args(["-n", namespace, "-batch", "-"]);
    run(command, "iproute2", Some(&lines.join("\n")))
}

/// Makes an interface finish checksums and cut segments itself, as hardware would before the cable.
pub fn finish_frames(namespace: File, interface: &str) -> Result<(), NetError> {
    let mut command = Command::new("ethtool");
    command.args(["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
    sys::run_in_namespace(&mut command, namespace);
    run(command, "ethtool", None)
}

fn run(mut command: Command, package: &'static str, input: Option<&str>) -> Result<(), NetError> {
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy().into_owned()).collect();
    let shown = words.join(" ");
    // A maker that is killed leaves no half of itself at work.
    end_with_parent(&mut command);
    let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
    let mut child = command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => NetError::Missing { program: words[0].clone(), package },
        _ => NetError::Run { command: shown.clone(), source },
    })?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A program that ends before it has read everything says why on its standard error.
        let _ = pipe.write_all(input.as_bytes());
    }
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(NetError::Failed { command: shown, complaint: format!("not done after {} s", TIMEOUT.as_secs()) });
            }
            Err(source) => return Err(NetError::Run { command: shown, source }),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut complaint = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint);
    }
    Err(NetError::Failed { command: shown, complaint: String::from_utf8_lossy(&complaint).trim().to_owned() })
}
