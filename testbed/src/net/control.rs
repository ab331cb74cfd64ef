//! Talking to the keeper of a topology while it runs: one line of JSON there, one line back, over a unix socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crossbeam_channel::Sender;
use serde::{Deserialize, Serialize};

use super::NetError;
use super::driver::Command;
use super::impairments::Impairments;
use super::state::control_path;
use super::stats::NetStats;

/// Longest line.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// For how long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both.
    #[default]
    Both,
    /// From the first end of the link to the second.
    Forward,
    /// From the second to the first.
    Backward,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The figures.
    Stats,
    /// Other settings for a link's wire.
    Set {
        /// The link.
        link: String,
        /// Which way.
        direction: Direction,
        /// What to change.
        settings: Box<Impairments>,
    },
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reply {
    Stats(Box<NetStats>),
    Done,
    Error(String),
}

/// The wires, as the control side reaches them.
pub(super) struct Wires {
    pub(super) commands: Sender<Command>,
    pub(super) wake: std::os::unix::net::UnixDatagram,
}

impl Wires {
    /// Gives a command, and waits for its answer.
    fn ask<T>(&self, command: impl FnOnce(Sender<T>) -> Command) -> Result<T, String> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.commands.send(command(answer)).map_err(|_| "the wires have stopped".to_owned())?;
        // A full queue of wake-ups wakes as well.
        let _ = self.wake.send(&[1]);
        answered.recv_timeout(PATIENCE).map_err(|_| "the wires do not answer".to_owned())
    }

    fn answer(&self, line: &[u8]) -> Reply {
        let done = match serde_json::from_slice(line) {
            Err(e) => Err(format!("no request: {e}")),
            Ok(Request::Stats) => self.ask(Command::Stats).map(Reply::Stats),
            Ok(Request::Set { link, direction, settings }) => self.set(&link, direction, *settings),
        };
        done.unwrap_or_else(Reply::Error)
    }

    fn set(&self, link: &str, direction: Direction, settings: Impairments) -> Result<Reply, String> {
        let change = |done| Command::Change {
            link: link.to_owned(),
            directions: [direction != Direction::Backward, direction != Direction::Forward],
            change: Box::new(move |config| settings.apply(config)),
            done,
        };
        if self.ask(change)? { Ok(Reply::Done) } else { Err(format!("there is no link {link:?} with a wire")) }
    }
}

/// Answers until the process ends. One at a time: a client that dawdles keeps the others waiting, and nothing else.
pub(super) fn serve(listener: &UnixListener, wires: &Wires) {
    for stream in listener.incoming() {
        // Whatever goes wrong with a client is the client's to notice.
        let _ = stream.and_then(|stream| serve_one(&stream, wires));
    }
}

fn serve_one(stream: &UnixStream, wires: &Wires) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    send(stream, &wires.answer(&line))
}

fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn exchange(path: &Path, request: &Request) -> io::Result<Reply> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&stream, request)?;
    let mut line = Vec::new();
    BufReader::new((&stream).take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

fn ask(topology: &str, request: &Request) -> Result<Reply, NetError> {
    let path = control_path(topology);
    match exchange(&path, request) {
        Ok(Reply::Error(problem)) => Err(NetError::Refused { name: topology.to_owned(), problem }),
        Ok(reply) => Ok(reply),
        Err(source) => Err(NetError::NoAnswer { name: topology.to_owned(), source }),
    }
}

/// The figures of a topology's wires.
///
/// # Errors
/// It is not up.
pub fn stats(topology: &str) -> Result<NetStats, NetError> {
    match ask(topology, &Request::Stats)? {
        Reply::Stats(stats) => Ok(*stats),
        _ => Err(NetError::Refused { name: topology.to_owned(), problem: "an answer to something else".to_owned() }),
    }
}

/// Changes the settings of a wire; frames that have begun to be sent keep theirs.
///
/// # Errors
/// It is not up, or has no such link.
pub fn set(topology: &str, link: &str, direction: Direction, settings: Impairments) -> Result<(), NetError> {
    ask(topology, &Request::Set { link: link.to_owned(), direction, settings: Box::new(settings) }).map(drop)
}
