//! Commands that begin a transfer of a running appliance and follow it to its end, with a line that tells how far it is.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{Client, ClientError};
use super::{Failure, print, printable};
use crate::transfer::TransferState;

/// How often the appliance is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What an appliance tells of a transfer.
pub(super) trait Followed: Serialize + DeserializeOwned {
    /// What somebody reads who waits for one that was cancelled.
    const CANCELLED: &'static str;

    /// Its number, how it stands, and why it failed.
    fn standing(&self) -> (u64, TransferState, Option<&str>);
    /// How far it is, for people.
    fn progress(&self) -> String;
    /// What came of it, for people.
    fn done(&self) -> String;
}

/// Begins what is wished for at `path` and follows it to its end, which Ctrl-C asks for. With `json` that end is printed as such, and no
/// progress.
pub(super) async fn follow<T: Followed>(url: &str, path: &str, wish: &impl Serialize, json: bool) -> Result<(), Failure> {
    let failed = |error: ClientError| Failure::Runtime(error.to_string());
    let client = Client::new(url).map_err(failed)?;
    let body = serde_json::to_value(wish).map_err(|error| Failure::Runtime(error.to_string()))?;
    let mut status: T = read(client.ask("POST", path, Some(&body)).map_err(failed)?)?;
    let path = format!("{path}/{}", status.standing().0);
    let mut line = Line::new(json);
    while !status.standing().1.is_over() {
        line.show(&status.progress());
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => status = read(client.ask("GET", &path, None).map_err(failed)?)?,
            _ = tokio::signal::ctrl_c() => status = read(client.ask("DELETE", &path, None).map_err(failed)?)?,
        }
    }
    line.end();
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&status).unwrap_or_default()));
    }
    match status.standing() {
        (_, TransferState::Done, _) => {
            if !json {
                print(&format!("{}\n", status.done()));
            }
            Ok(())
        }
        (_, TransferState::Cancelled, _) => Err(Failure::Runtime(T::CANCELLED.into())),
        (.., error) => Err(Failure::Runtime(printable(error.unwrap_or("it failed")))),
    }
}

/// Runs a command that waits for an appliance.
pub(super) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Runtime(format!("cannot start: {error}")))?.block_on(command)
}

/// An answer of the appliance.
fn read<T: DeserializeOwned>(json: Value) -> Result<T, Failure> {
    serde_json::from_value(json).map_err(|error| Failure::Runtime(format!("the appliance speaks another version: {error}")))
}

/// A line on a terminal that is written over.
struct Line {
    on: bool,
    shown: usize,
}

impl Line {
    /// A line on standard error, if that is a terminal.
    fn new(quiet: bool) -> Self {
        Self { on: !quiet && std::io::stderr().is_terminal(), shown: 0 }
    }

    fn show(&mut self, text: &str) {
        if self.on {
            self.write(&format!("\r{text:<width$}", width = self.shown));
            self.shown = text.chars().count();
        }
    }

    fn end(&mut self) {
        if self.shown > 0 {
            self.write(&format!("\r{:width$}\r", "", width = self.shown));
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
