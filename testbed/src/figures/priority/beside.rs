//! What goes on beside the streams in some series: a process that reads the disk, or an import by the server itself.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::super::FiguresError;
use super::stage::{ELSEWHERE, LARGE, Stage, file_error};
use crate::peers::Running;
use crate::serve::http_ask;

/// What goes on beside the streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing.
    Nothing,
    /// Another process reads the large file.
    Reader,
    /// The server copies the large file off the disk, into a folder of titles that is on another one.
    Import,
}

impl Beside {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Reader, Self::Import];

    /// What a series' name ends with.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Reader => " + a reader beside it",
            Self::Import => " + an import",
        }
    }

    /// The server of a series, and what went on beside.
    pub fn of(series: &str) -> (&str, Self) {
        let with = [Self::Reader, Self::Import].into_iter();
        let mut found = with.filter_map(|beside| Some((series.strip_suffix(beside.suffix())?, beside)));
        found.next().unwrap_or((series, Self::Nothing))
    }

    /// Begins it.
    ///
    /// # Errors
    /// The file cannot be read, or the server refuses the import.
    pub fn start(self, stage: &Stage, server: &Running) -> Result<Work, FiguresError> {
        match self {
            Self::Nothing => Ok(Work::Nothing),
            Self::Reader => Reader::start(&stage.root().join(LARGE)).map(Work::Reader),
            Self::Import => Import::start(server).map(Work::Import),
        }
    }
}

/// It goes on until it is dropped.
#[derive(Debug)]
pub enum Work {
    /// Nothing does.
    Nothing,
    /// See [`Beside::Reader`].
    Reader(Reader),
    /// See [`Beside::Import`].
    Import(Import),
}

impl Work {
    /// Bytes read, or copied, so far.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Reader(reader) => reader.bytes.load(Ordering::Relaxed),
            Self::Import(import) => import.bytes(),
        }
    }
}

/// An import of the large file.
#[derive(Debug)]
pub struct Import {
    http: SocketAddr,
    path: String,
}

impl Import {
    fn start(server: &Running) -> Result<Self, FiguresError> {
        let refused = FiguresError::Import;
        let http = server.http.ok_or_else(|| refused("it has no HTTP address for imports".into()))?;
        let wish = serde_json::json!({ "from": LARGE, "to": format!("{ELSEWHERE}/imported.mp4"), "replace": true }).to_string();
        let (status, body) = http_ask(http, "POST", IMPORTS, &wish).map_err(|e| refused(e.to_string()))?;
        let id = serde_json::from_str::<serde_json::Value>(&body).ok().and_then(|import| import["id"].as_u64());
        match id {
            Some(id) => Ok(Self { http, path: format!("{IMPORTS}/{id}") }),
            None => Err(refused(format!("the import was answered {status}: {body}"))),
        }
    }

    fn bytes(&self) -> u64 {
        let told = http_ask(self.http, "GET", &self.path, "").ok();
        told.and_then(|(_, body)| serde_json::from_str::<serde_json::Value>(&body).ok()?["bytes"].as_u64()).unwrap_or(0)
    }
}

const IMPORTS: &str = "/api/v1/imports";

impl Drop for Import {
    fn drop(&mut self) {
        let _ = http_ask(self.http, "DELETE", &self.path, "");
    }
}

/// Bytes of one read.
const PIECE_BYTES: usize = 256 << 10;

/// Reads a file from beginning to end and again, one piece at a time, past the page cache: what copying it off the disk would ask. Ends when
/// dropped.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

/// Memory as O_DIRECT wants it.
#[repr(C, align(4096))]
struct Piece([u8; PIECE_BYTES]);

impl Reader {
    fn start(path: &Path) -> Result<Self, FiguresError> {
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
        let mut file = open().map_err(file_error(path))?;
        let (stop, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&bytes));
        let thread = std::thread::spawn(move || {
            let mut piece = Box::new(Piece([0; PIECE_BYTES]));
            while !stopped.load(Ordering::Relaxed) {
                match file.read(&mut piece.0) {
                    Ok(0) | Err(_) => {
                        if io::Seek::rewind(&mut file).is_err() {
                            return;
                        }
                    }
                    Ok(count) => drop(counted.fetch_add(count as u64, Ordering::Relaxed)),
                }
            }
        });
        Ok(Self { stop, bytes, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_says_what_went_on_beside() {
        for beside in Beside::ALL {
            assert_eq!(Beside::of(&format!("tactus{}", beside.suffix())), ("tactus", beside));
        }
    }
}
