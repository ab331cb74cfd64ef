//! Servers to measure, each described by a few lines in `testbed/peers/NAME.toml`, and their processes.
//!
//! A server is started by its command, prints a line `ready: rtsp=ADDRESS ...` when it listens, and is stopped by SIGTERM. In `start` and `url`
//! these stand for: `{media}` the folder of titles, `{sessions}` the limit of sessions, `{memory_mib}` a
//! mebibyte for each (512 at least), `{peers}` the folder of the table, `{programs}` the folder of
//! this program, `{address}` what the ready line said, `{title}` a file name.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::load::sys;
use crate::player;

/// A server may take so long until it listens.
const READY_MAX: Duration = Duration::from_secs(30);
/// Memory for buffers is at least this.
const MEMORY_MIN_MIB: usize = 512;
/// A server may take so long to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A server in the table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// The name of its file.
    #[serde(skip)]
    pub name: String,
    /// What it is.
    pub about: String,
    /// Debian packages that it needs.
    pub install: Vec<String>,
    /// Command and arguments.
    start: Vec<String>,
    /// How its titles are addressed.
    url: String,
    #[serde(skip)]
    folder: PathBuf,
}

/// Why a peer cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// No such file in the table.
    #[error("{0}: {1}; the peers there are: {2}")]
    Unknown(PathBuf, io::Error, String),
    /// The file does not describe a peer.
    #[error("{0}: {1}")]
    Description(PathBuf, toml::de::Error),
    /// The command did not run.
    #[error("{0}: {1}; it needs: {2}")]
    Start(String, io::Error, String),
    /// The command ended, or said nothing.
    #[error("{0} is not ready ({1}); what it said is in {2}")]
    NotReady(String, &'static str, PathBuf),
    /// The file for what it says.
    #[error("{0}: {1}")]
    Log(PathBuf, io::Error),
}

/// The folder of the table.
pub fn default_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

/// The names in the table.
pub fn names(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let tables = files.filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<String> = tables.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// The table for people: each peer, what it is, and the Debian packages that it needs.
///
/// # Errors
/// A description is wrong.
pub fn table(folder: &Path) -> Result<String, PeerError> {
    let mut text = String::new();
    for name in names(folder) {
        let peer = Peer::read(folder, &name)?;
        text.push_str(&format!("{name:<18} {}\n", peer.about));
        if !peer.install.is_empty() {
            text.push_str(&format!("{:<18} apt-get install {}\n", "", peer.install.join(" ")));
        }
    }
    Ok(text)
}

impl Peer {
    /// Reads one peer of the table in `folder`.
    ///
    /// # Errors
    /// There is none of this name, or its description is wrong.
    pub fn read(folder: &Path, name: &str) -> Result<Self, PeerError> {
        let path = folder.join(format!("{name}.toml"));
        let text = std::fs::read_to_string(&path).map_err(|e| PeerError::Unknown(path.clone(), e, names(folder).join(", ")))?;
        let peer: Self = toml::from_str(&text).map_err(|e| PeerError::Description(path, e))?;
        Ok(Self { name: name.to_owned(), folder: folder.to_owned(), ..peer })
    }

    /// The same server, started with these options in place of its own of the same names.
    pub fn with_options(&self, options: &[(&str, &str)]) -> Self {
        let mut peer = self.clone();
        for &(name, value) in options {
            match peer.start.iter().position(|word| word == name).and_then(|at| peer.start.get_mut(at + 1)) {
                Some(own) => value.clone_into(own),
                None => peer.start.extend([name, value].map(str::to_owned)),
            }
        }
        peer
    }

    /// Starts it for the titles in `media`, for up to `sessions` sessions where it has such a limit. What it says goes to `log`.
    ///
    /// # Errors
    /// It cannot be started, or is not ready in time.
    pub fn start(&self, media: &Path, sessions: usize, log: &Path) -> Result<Running, PeerError> {
        self.start_by(media, sessions, log, &|program| Ok(Command::new(program)))
    }

    /// As [`Peer::start`], where `command` says: in another network namespace, say.
    ///
    /// # Errors
    /// As of [`Peer::start`].
    pub fn start_by(
        &self,
        media: &Path,
        sessions: usize,
        log: &Path,
        command: &dyn Fn(&str) -> io::Result<Command>,
    ) -> Result<Running, PeerError> {
        let programs = std::env::current_exe().ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
        let fill = |text: &String| {
            text.replace("{media}", &media.to_string_lossy())
                .replace("{sessions}", &sessions.to_string())
                .replace("{memory_mib}", &sessions.max(MEMORY_MIN_MIB).to_string())
                .replace("{peers}", &self.folder.to_string_lossy())
                .replace("{programs}", &programs.to_string_lossy())
        };
        let words: Vec<String> = self.start.iter().map(fill).collect();
        let failed = |e| PeerError::Start(words.join(" "), e, self.install.join(" "));
        let (program, arguments) = words.split_first().ok_or_else(|| failed(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let mut command = command(program).map_err(failed)?;
        let log_file = std::fs::File::create(log).map_err(|e| PeerError::Log(log.to_owned(), e))?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        sys::end_with_parent(&mut command);
        let mut child = command.spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        let mut running = Running { child, address: String::new(), http: None, url: self.url.clone() };
        (running.address, running.http) =
            ready_addresses(stdout).map_err(|why| PeerError::NotReady(self.name.clone(), why, log.to_owned()))?;
        Ok(running)
    }
}

/// Waits for the ready line; what comes later is read and dropped, so that the server never blocks on it.
fn ready_addresses(stdout: Option<impl io::Read + Send + 'static>) -> Result<(String, Option<SocketAddr>), &'static str> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in stdout.into_iter().flat_map(|pipe| BufReader::new(pipe).lines()).map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let deadline = Instant::now() + READY_MAX;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let field = |name: &str| {
                    let mut fields = line.strip_prefix("ready:").into_iter().flat_map(str::split_ascii_whitespace);
                    fields.find_map(|field| field.strip_prefix(name))
                };
                if let Some(address) = field("rtsp=") {
                    return Ok((address.to_owned(), field("http=").and_then(|http| http.parse().ok())));
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => return Err("no ready line in time"),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err("it ended without a ready line"),
        }
    }
}

/// A server that runs. It is stopped when this is dropped, and ends with this process in any case.
#[derive(Debug)]
pub struct Running {
    child: Child,
    /// Where it listens.
    pub address: String,
    /// Where it tells about itself, if it does.
    pub http: Option<SocketAddr>,
    url: String,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address of a title; `{n}` in it is left for the load generator.
    pub fn url(&self, title: &str) -> String {
        self.url.replace("{address}", &self.address).replace("{title}", title)
    }

    /// False once the process has ended.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        player::signal::terminate(&mut self.child);
        // Waits, and kills what does not stop.
        let _ = player::wait(&mut self.child, STOP_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(start: &[&str]) -> Peer {
        let folder = std::env::temp_dir();
        let start = start.iter().map(|&s| s.to_owned()).collect();
        Peer { name: "p".into(), about: String::new(), install: Vec::new(), start, url: "rtsp://{address}/{title}".into(), folder }
    }

    #[test]
    fn every_peer_of_the_table_can_be_read() {
        let names = names(&default_folder());
        assert!(names.contains(&"tactus".to_owned()) && names.contains(&"gst-rtsp-server".to_owned()), "{names:?}");
        let table = table(&default_folder()).unwrap();
        assert!(names.iter().all(|name| table.contains(name)), "{table}");
        assert!(Peer::read(&default_folder(), "nobody").unwrap_err().to_string().contains("tactus"));
    }

    #[test]
    fn a_peer_is_started_with_its_address_and_stopped() {
        let script = "echo noise; echo 'ready: rtsp=127.0.0.1:7 http=x'; exec sleep 60 # {media}";
        let mut running = peer(&["/bin/sh", "-c", script]).start(Path::new("/m"), 5, Path::new("/dev/null")).unwrap();
        assert_eq!(running.url("clip-{n}.mp4"), "rtsp://127.0.0.1:7/clip-{n}.mp4");
        assert!(running.is_alive());
        let pid = running.pid();
        drop(running);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn options_replace_those_of_the_table() {
        let changed = peer(&["server", "--share", "0", "--media", "{media}"]).with_options(&[("--share", "80"), ("--cache", "off")]);
        assert_eq!(changed.start, ["server", "--share", "80", "--media", "{media}", "--cache", "off"]);
    }

    #[test]
    fn a_peer_that_ends_at_once_is_an_error() {
        assert!(peer(&["/bin/true"]).start(Path::new("/m"), 5, Path::new("/dev/null")).is_err());
        assert!(peer(&["/no/such/program"]).start(Path::new("/m"), 5, Path::new("/dev/null")).is_err());
        assert!(peer(&[]).start(Path::new("/m"), 5, Path::new("/dev/null")).is_err());
    }
}
