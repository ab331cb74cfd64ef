//! What engine cores copy or record into files: one transfer as the control core drives it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::disks::{MediaFile, NewFile, NewFileError};
use dataplane::engine::{AnyPair, Command, Reply, TRANSFERS_MAX, TransferReport};
use dataplane::media::library::{Library, LibraryError, NewPlace};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::core::Core;
use crate::engine::EngineError;
use crate::transfer::TransferError;

/// How often a command that an overloaded engine core did not take is offered again.
const AGAIN: Duration = Duration::from_millis(20);

/// What an engine core tells of a transfer without being asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// It, or a pair of it, came to its end, or cannot go on.
    Over(TransferReport),
    /// The engine core has let go of its files.
    Gone,
}

/// Who waits to be told of which transfer. Each is told a few things at most, so what was not heard yet is bounded.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<HashMap<u64, UnboundedSender<Told>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, UnboundedSender<Told>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes on what an engine core tells.
    pub(super) fn tell(&self, transfer: u64, told: Told) {
        if let Some(waiting) = self.lock().get(&transfer) {
            let _ = waiting.send(told);
        }
    }
}

/// A transfer that an engine core carries out. [`Self::stop`] ends it; dropped without, it goes on until the engine core ends.
pub(super) struct Running {
    core: Arc<Core>,
    board: Arc<Board>,
    key: u64,
    told: UnboundedReceiver<Told>,
    chunks: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.board.lock().remove(&self.key);
        self.core.give_chunks_back(self.chunks);
    }
}

impl Running {
    /// Has `core` carry out `pairs`, which need `chunks` buffers at most, under the name `key`.
    #[expect(clippy::vec_box, reason = "they are handed over in their boxes: an engine core neither allocates nor frees")]
    pub(super) async fn start(
        core: Arc<Core>,
        board: Arc<Board>,
        key: u64,
        pairs: Vec<Box<AnyPair<MediaFile>>>,
        chunks: usize,
    ) -> Result<Self, TransferError> {
        core.take_chunks(chunks).map_err(|error| TransferError::Unavailable(error.to_string()))?;
        let refused = |error| match error {
            EngineError::NotFound(why) => TransferError::NotFound(why),
            EngineError::Capacity(_) => TransferError::Unavailable(format!(
                "an engine core copies files and records tracks, {TRANSFERS_MAX} of them at once: wait until some have ended"
            )),
            error => TransferError::Unavailable(error.to_string()),
        };
        let (tell, told) = unbounded_channel();
        board.lock().insert(key, tell);
        let running = Self { core, board, key, told, chunks };
        running.core.ask(|reply| Command::StartTransfer { reply, transfer: key, pairs }).await.map_err(refused)?;
        Ok(running)
    }

    /// How far it is; `None` when the engine core does not say.
    pub(super) async fn report(&self) -> Option<TransferReport> {
        match self.core.ask(|reply| Command::TransferStatus { reply, transfer: self.key }).await {
            Ok(Reply::Transfer(report)) => Some(report),
            _ => None,
        }
    }

    /// What is live by now is recorded, and nothing more.
    pub(super) fn end_recording(&self) {
        let key = self.key;
        self.core.insist(move |reply| Command::EndRecording { reply, transfer: key }, ());
    }

    /// Waits for its end, or the next one of a pair's.
    pub(super) async fn over(&mut self) -> Option<TransferReport> {
        loop {
            match self.told.recv().await? {
                Told::Over(report) => return Some(report),
                Told::Gone => {}
            }
        }
    }

    /// Ends it; when this returns, the engine core has nothing to do with its files any more.
    pub(super) async fn stop(mut self) {
        while self.core.tell(Command::StopTransfer { reply: 0, transfer: self.key }).is_err() {
            if self.core.is_finished() {
                return;
            }
            tokio::time::sleep(AGAIN).await;
        }
        loop {
            tokio::select! {
                told = self.told.recv() => if matches!(told, Some(Told::Gone) | None) { return },
                () = tokio::time::sleep(AGAIN) => if self.core.is_finished() { return },
            }
        }
    }
}

/// Begins the file at `to`, below the media folder, with room for `bytes`.
pub(super) fn new_file(library: &Library, to: &str, bytes: u64, replace: bool) -> Result<(NewFile, NewPlace), TransferError> {
    let place = library.place(to).map_err(|error| match error {
        LibraryError::Open { .. } => TransferError::Unavailable(error.to_string()),
        error => TransferError::Wrong(format!("to: {error}")),
    })?;
    let new = NewFile::create(place.path(), bytes, replace).map_err(|error| match error {
        NewFileError::Exists { .. } => {
            TransferError::Conflict(format!("'{to}' is there already; --replace replaces it (over HTTP \"replace\": true)"))
        }
        NewFileError::Busy { .. } => TransferError::Conflict(format!("'{to}' is being written already")),
        NewFileError::NoRoom { .. } => TransferError::NoRoom(error.to_string()),
        NewFileError::Os { .. } => TransferError::Unavailable(error.to_string()),
    })?;
    Ok((new, place))
}
