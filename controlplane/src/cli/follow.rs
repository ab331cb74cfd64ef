//! What commands that follow a transfer of a running appliance have in common: a line that tells how far it is, and reading its answers.

use std::io::{IsTerminal as _, Write as _};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Failure;

/// Runs a command that waits for an appliance.
pub(super) fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Runtime(format!("cannot start: {error}")))?.block_on(command)
}

/// An answer of the appliance.
pub(super) fn read<T: DeserializeOwned>(json: Value) -> Result<T, Failure> {
    serde_json::from_value(json).map_err(|error| Failure::Runtime(format!("the appliance speaks another version: {error}")))
}

/// A line on a terminal that is written over.
pub(super) struct Line {
    on: bool,
    shown: usize,
}

impl Line {
    /// A line on standard error, if that is a terminal.
    pub(super) fn new(quiet: bool) -> Self {
        Self { on: !quiet && std::io::stderr().is_terminal(), shown: 0 }
    }

    pub(super) fn show(&mut self, text: &str) {
        if self.on {
            self.write(&format!("\r{text:<width$}", width = self.shown));
            self.shown = text.chars().count();
        }
    }

    pub(super) fn end(&mut self) {
        if self.shown > 0 {
            self.write(&format!("\r{:width$}\r", "", width = self.shown));
        }
    }

    fn write(&self, text: &str) {
        let mut stderr = std::io::stderr().lock();
        let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
    }
}
