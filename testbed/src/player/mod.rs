//! Players: runs real ones with bounded time, takes down what they received, and compares it with the file.
//!
//! - [`run`]: a process with a time limit, its output collected;
//! - [`ffmpeg`], [`gstreamer`]: elementary streams as those programs receive them;
//! - [`compare`]: received packets against those of the file, in content and in time;
//! - [`rtsp_client`]: a small client of our own for what players do not do on command;
//! - [`reception`]: what that client received, back to samples and their places in the file.

pub mod compare;
pub mod ffmpeg;
pub mod gstreamer;
pub mod reception;
pub mod rtsp_client;
pub mod signal;

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What became of a process.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// It had to be killed at the time limit.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Outcome {
    /// True when it ended by itself and said success.
    pub fn ok(&self) -> bool {
        !self.timed_out && self.status.success()
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs `command` for at most `limit`; past it, it is killed.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Outcome> {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let (status, timed_out) = wait(&mut child, limit)?;
    let stdout = stdout.join().unwrap_or_default();
    let stderr = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
    Ok(Outcome { status, timed_out, stdout, stderr, took: started.elapsed() })
}

/// Waits for `child` for at most `limit`, then kills it. The flag says that it was killed.
///
/// # Errors
/// When the system refuses to wait.
pub fn wait(child: &mut Child, limit: Duration) -> io::Result<(ExitStatus, bool)> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, false));
        }
        if Instant::now() >= deadline {
            child.kill()?;
            return Ok((child.wait()?, true));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads a pipe to its end on a thread.
pub(crate) fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still worth reading.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// True when the program is on the search path.
pub fn have(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}
