//! Starts a server process for a test, learns its addresses from the ready line, reads its JSON, and stops it cleanly.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{own_stack, player};

/// How long a server may take to become ready, and to stop.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Dropping it stops it by SIGTERM and asserts that it stopped cleanly.
#[derive(Debug)]
pub struct Server {
    child: Option<Child>,
    /// It was asked to stop; a second signal would make it stop at once.
    terminated: bool,
    stderr: Option<JoinHandle<Vec<u8>>>,
    stdout: Option<JoinHandle<()>>,
    /// Where it listens for RTSP.
    pub rtsp: SocketAddr,
    /// Where it answers HTTP.
    pub http: SocketAddr,
    /// All `key=value` fields of the ready line.
    pub ready: HashMap<String, String>,
}

/// Path of the `tactus` binary: `TACTUS_BIN`, else built once per process by cargo.
///
/// # Errors
/// When cargo cannot build it.
pub fn binary() -> io::Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    if let Some(path) = std::env::var_os("TACTUS_BIN") {
        return Ok(PathBuf::from(path));
    }
    BUILT.get_or_init(|| build().map_err(|e| e.to_string())).clone().map_err(io::Error::other)
}

/// The `tactus` binary that lies beside this program, as in a build folder.
pub fn binary_beside() -> PathBuf {
    std::env::current_exe().map_or_else(|_| PathBuf::from("tactus"), |own| own.with_file_name("tactus"))
}

fn build() -> io::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let release = !cfg!(debug_assertions);
    let mut command = Command::new(cargo);
    command.current_dir(&workspace).args([
        "build",
        "--quiet",
        "-p",
        "controlplane",
        "--bin",
        "tactus",
        "--message-format=json-render-diagnostics",
    ]);
    if release {
        command.arg("--release");
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other("cargo could not build the tactus binary"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let executable = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable").and_then(|e| e.as_str()).map(PathBuf::from))
        .next_back();
    executable.ok_or_else(|| io::Error::other("cargo did not say where the tactus binary is"))
}

impl Server {
    /// Starts `tactus serve`, on its own stack if the environment says so (see [`own_stack`]), else on ephemeral ports for the titles in `media`, with further arguments (which
    /// replace these).
    ///
    /// # Errors
    /// When it does not become ready; its standard error is in the message.
    pub fn start(media: &Path, arguments: &[&str]) -> io::Result<Self> {
        if let Some(over) = own_stack::wanted()? {
            return Self::follow(own_stack::start(over, &binary()?, media, arguments)?);
        }
        let mut command = Command::new(binary()?);
        command.arg("serve").arg("--media").arg(media);
        for (option, value) in [("--rtsp", "127.0.0.1:0"), ("--http", "127.0.0.1:0"), ("--rtp-port", "0"), ("--index-cache", "off")] {
            if !arguments.contains(&option) {
                command.args([option, value]);
            }
        }
        command.args(arguments);
        Self::spawn(&mut command)
    }

    /// Starts any server that prints the ready line.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        Self::follow(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Waits for the ready line.
    fn follow(mut child: Child) -> io::Result<Self> {
        let stderr = player::collect(child.stderr.take());
        let (send, lines) = mpsc::channel();
        let pipe = child.stdout.take();
        // Reads on after the ready line, so that a server that prints more never blocks.
        let stdout = std::thread::spawn(move || {
            for line in pipe.into_iter().flat_map(|p| BufReader::new(p).lines()).map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let deadline = std::time::Instant::now() + PATIENCE;
        let ready = loop {
            match lines.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now())) {
                Ok(line) => {
                    if let Some(fields) = line.strip_prefix("ready:") {
                        break Some(parse_fields(fields));
                    }
                }
                Err(_) => break None,
            }
        };
        let address = |key: &str| ready.as_ref().and_then(|r| r.get(key)).and_then(|a| a.parse::<SocketAddr>().ok());
        match (address("rtsp"), address("http"), &ready) {
            (Some(rtsp), Some(http), Some(fields)) => Ok(Self {
                child: Some(child),
                terminated: false,
                stderr: Some(stderr),
                stdout: Some(stdout),
                rtsp,
                http,
                ready: fields.clone(),
            }),
            _ => {
                let ended = child.try_wait()?;
                let _ = child.kill();
                let _ = child.wait();
                let said = String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned();
                Err(io::Error::other(format!(
                    "no ready line with rtsp= and http= (it ended: {ended:?}, the line: {ready:?}); it said:\n{said}"
                )))
            }
        }
    }

    /// The URL of a title.
    pub fn url(&self, path: &str) -> String {
        format!("rtsp://{}/{path}", self.rtsp)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// `GET path` over HTTP, as JSON.
    ///
    /// # Errors
    /// When the answer is not 200 with JSON.
    pub fn json(&self, path: &str) -> io::Result<serde_json::Value> {
        let (status, body) = http_get(self.http, path)?;
        if status != 200 {
            return Err(io::Error::other(format!("GET {path}: status {status}: {body}")));
        }
        serde_json::from_str(&body).map_err(|e| io::Error::other(format!("GET {path}: {e}: {body}")))
    }

    /// Asks it to stop (SIGTERM) without waiting.
    pub fn terminate(&mut self) {
        if let (Some(child), false) = (&mut self.child, self.terminated) {
            player::signal::terminate(child);
            self.terminated = true;
        }
    }

    /// Stops it and waits; the exit status and what it wrote to standard error.
    ///
    /// # Errors
    /// When it had to be killed.
    pub fn stop(mut self) -> io::Result<(ExitStatus, String)> {
        self.finish()
    }

    /// Kills it in the midst of what it does, as a crash would.
    ///
    /// # Errors
    /// The system's answer.
    pub fn crash(mut self) -> io::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait().map(drop)
    }

    fn finish(&mut self) -> io::Result<(ExitStatus, String)> {
        self.terminate();
        let Some(mut child) = self.child.take() else { return Err(io::Error::other("already stopped")) };
        let (status, killed) = player::wait(&mut child, PATIENCE)?;
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        if let Some(stdout) = self.stdout.take() {
            let _ = stdout.join();
        }
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        if killed {
            return Err(io::Error::other(format!("did not stop within {PATIENCE:?} of SIGTERM; it said:\n{stderr}")));
        }
        Ok((status, stderr))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_none() {
            return;
        }
        let stopped = self.finish();
        if std::thread::panicking() {
            eprintln!("server: {stopped:?}");
            return;
        }
        match stopped {
            Ok((status, stderr)) => assert!(status.success(), "the server ended with {status}; it said:\n{stderr}"),
            Err(error) => panic!("the server {error}"),
        }
    }
}

fn parse_fields(text: &str) -> HashMap<String, String> {
    text.split_whitespace().filter_map(|field| field.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// A plain `GET`: status and body.
///
/// # Errors
/// When there is no HTTP answer within some seconds.
pub fn http_get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    http_ask(address, "GET", path, "")
}

/// A request with a body of JSON: status and body of the answer.
///
/// # Errors
/// When there is no HTTP answer within some seconds.
pub fn http_ask(address: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()) };
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n{length}\r\n{body}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let bad = || io::Error::other(format!("no HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).ok_or_else(bad)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_started_read_and_stopped() {
        let script = "trap 'exit 0' TERM; echo hello; echo 'ready: rtsp=127.0.0.1:5 http=127.0.0.1:6 rtp=7'; while :; do sleep 0.05; done";
        let server = Server::spawn(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!((server.rtsp.port(), server.http.port(), server.ready["rtp"].as_str()), (5, 6, "7"));
        assert!(server.stop().unwrap().0.success());
    }

    #[test]
    fn a_server_that_fails_says_why() {
        let error = Server::spawn(Command::new("sh").args(["-c", "echo 'no such folder' >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no such folder"), "{error}");
    }
}
