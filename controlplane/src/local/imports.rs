//! Imports: files that are copied into the media folder, by engine cores, beside all that is played.
//!
//! ```text
//! POST ─► source within `import-from`? place in the media folder? room on the disk? ─► transfer on an engine core ─┐
//!            copied: synced, renamed, in the catalogue ◄─ the source is still what it was ◄─ its end ◄──────────────┤
//!            failed or cancelled: the part and the folders that were made for it are removed ◄──────────────────────┘
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dataplane::disks::{MediaFile, NewFile};
use dataplane::engine::TransferReport;
use dataplane::gdsl::Outcome;
use dataplane::media::library::{Library, NewPlace};
use dataplane::transfer::import::{IMPORT_CHUNKS, import};

use super::core::Core;
use super::jobs::{Job, Jobs};
use super::titles::Titles;
use super::transfers::{Board, Running, new_file};
use crate::transfer::{ImportRequest, ImportStatus, TransferError, TransferState};

/// How often the engine core is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// Slowest rate that may be asked for, bits per second.
const RATE_BPS_MIN: u64 = 1_000;

/// What an import is about.
struct Import {
    from: String,
    to: String,
    bytes_total: u64,
    rate_bps: Option<u64>,
}

fn status(job: &Job<Import>) -> ImportStatus {
    let (started_at, elapsed_s) = (job.started_at(), job.elapsed_s());
    let (Import { from, to, bytes_total, rate_bps }, progress) = (&job.what, job.progress());
    ImportStatus {
        id: job.id,
        from: from.clone(),
        to: to.clone(),
        state: progress.state,
        bytes: progress.bytes,
        bytes_total: *bytes_total,
        rate_bps: *rate_bps,
        started_at,
        elapsed_s,
        error: progress.error.clone(),
    }
}

fn end(job: &Job<Import>, state: TransferState, why: Option<String>) {
    let Import { from, to, .. } = &job.what;
    match &why {
        Some(why) => tracing::warn!(%from, %to, "import failed: {why}"),
        None => tracing::info!(%from, %to, ?state, "import is over"),
    }
    job.end(state, why);
}

/// The files of an import that goes on; dropped, they leave nothing behind.
struct Files {
    source: MediaFile,
    new: NewFile,
    place: NewPlace,
}

impl Files {
    fn open(library: &Library, root: &Path, request: &ImportRequest) -> Result<Self, TransferError> {
        let source = open_source(root, &request.from)?;
        let (new, place) = new_file(library, &request.to, source.size(), request.replace)?;
        Ok(Self { source, new, place })
    }

    /// All bytes were copied: the file gets its name, unless the source is not what it was.
    fn finish(self) -> Result<(), String> {
        if self.source.identity_now().map_err(|error| error.to_string())? != self.source.identity() {
            return Err("the source was written to while it was copied".into());
        }
        self.new.finish(self.source.size()).map_err(|error| error.to_string())?;
        self.place.keep();
        Ok(())
    }
}

/// Opens `from` if it lies below `root`, links resolved. Of what lies elsewhere not even its existence is told.
fn open_source(root: &Path, from: &str) -> Result<MediaFile, TransferError> {
    let asked = root.join(from);
    let forbidden = || TransferError::Forbidden(format!("'{from}' is not below the folder of import-from, {}", root.display()));
    let is_plain = !Path::new(from).components().any(|part| part == std::path::Component::ParentDir);
    if !is_plain || from.is_empty() || from.contains('\0') {
        return Err(forbidden());
    }
    let missing = |error: std::io::Error| match asked.starts_with(root) {
        true => TransferError::NotFound(format!("'{from}': {error}")),
        false => forbidden(),
    };
    let real = asked.canonicalize().map_err(missing)?;
    if !real.starts_with(root) {
        return Err(forbidden());
    }
    let file = MediaFile::open(&real).map_err(|error| TransferError::NotFound(error.to_string()))?;
    // The path may have come to mean another file in between.
    match file.real_path() {
        Ok(path) if path.starts_with(root) => Ok(file),
        _ => Err(forbidden()),
    }
}

/// The imports of an engine.
pub(super) struct Imports {
    /// Where files may be taken from.
    root: Option<PathBuf>,
    jobs: Jobs<Import>,
}

impl Imports {
    /// Imports from below `root` only; without it there are none.
    pub(super) fn new(root: Option<&Path>) -> Result<Self, String> {
        let canonical = |root: &Path| root.canonicalize().map_err(|error| format!("import-from {}: {error}", root.display()));
        Ok(Self { root: root.map(canonical).transpose()?, jobs: Jobs::default() })
    }

    pub(super) fn list(&self) -> Vec<ImportStatus> {
        self.jobs.list().iter().map(|job| status(job)).collect()
    }

    /// Begins an import named `id`, on `core`, into the folder of `titles`.
    pub(super) async fn start(
        &self,
        id: u64,
        request: ImportRequest,
        titles: Arc<Titles>,
        core: Arc<Core>,
        board: Arc<Board>,
    ) -> Result<ImportStatus, TransferError> {
        let root = self.root.clone().ok_or(TransferError::Off("imports are off: start tactus serve with --import-from DIR"))?;
        if request.rate_bps.is_some_and(|rate| rate < RATE_BPS_MIN) {
            return Err(TransferError::Wrong(format!("rate_bps: at least {RATE_BPS_MIN}")));
        }
        let (from, to, rate_bps) = (request.from.clone(), request.to.clone(), request.rate_bps);
        let open = move || Files::open(&titles.library, &root, &request);
        let files = tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| Err(TransferError::Unavailable(error.to_string())))?;
        let bytes = files.source.size();
        let pair = import(files.source.clone(), id, files.new.file().clone(), bytes, rate_bps);
        let running = Running::start(core, board, id, vec![Box::new(pair.into())], IMPORT_CHUNKS).await?;
        let job = Job::new(id, Import { from, to, bytes_total: bytes, rate_bps });
        tracing::info!(from = %job.what.from, to = %job.what.to, bytes, "import begins");
        self.jobs.add(&job);
        let status = status(&job);
        tokio::spawn(supervise(job, running, files));
        Ok(status)
    }

    /// Ends an import that goes on; one that is over is told of no more. How it was in the end.
    pub(super) async fn cancel(&self, id: u64) -> Result<ImportStatus, TransferError> {
        let job = self.jobs.get(id, "import")?;
        if !job.wish_for_end(None).await {
            self.jobs.forget(id);
        }
        Ok(status(&job))
    }
}

/// Follows an import to its end.
async fn supervise(job: Arc<Job<Import>>, mut running: Running, files: Files) {
    let mut every = tokio::time::interval(PROGRESS_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ended = loop {
        tokio::select! {
            report = running.over() => break Some(report),
            () = job.wish.notified() => break None,
            _ = every.tick() => {
                if let Some(report) = running.report().await {
                    job.progress().bytes = report.bytes;
                }
            }
        }
    };
    // Before anything is done with the file.
    running.stop().await;
    let failed = |why: String| (TransferState::Failed, Some(why));
    let (state, why) = match ended {
        None => (TransferState::Cancelled, None),
        Some(None) => failed("the engine core ended".into()),
        Some(Some(TransferReport { outcome: Some(Outcome::Failed(why)), .. })) => failed(why.into()),
        Some(Some(TransferReport { bytes, .. })) => {
            {
                let mut progress = job.progress();
                (progress.state, progress.bytes) = (TransferState::Finishing, bytes);
            }
            match tokio::task::spawn_blocking(move || files.finish()).await {
                Ok(Ok(())) => return end(&job, TransferState::Done, None),
                Ok(Err(why)) => return end(&job, TransferState::Failed, Some(why)),
                Err(error) => return end(&job, TransferState::Failed, Some(error.to_string())),
            }
        }
    };
    // The part is gone before anybody is told of the end.
    let _ = tokio::task::spawn_blocking(move || drop(files)).await;
    end(&job, state, why);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_folder_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let (inbox, outside) = (base.join("inbox"), base.join("outside"));
        std::fs::create_dir_all(inbox.join("deep")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        for path in [inbox.join("deep/a.mp4"), outside.join("secret.mp4"), base.join("inbox-too.mp4")] {
            std::fs::write(path, "x").unwrap();
        }
        let link = |to: &Path, name: &str| std::os::unix::fs::symlink(to, inbox.join(name)).unwrap();
        link(&outside.join("secret.mp4"), "leads-out.mp4");
        link(&outside, "out");
        link(&inbox.join("deep/a.mp4"), "stays.mp4");
        let absolute = |path: PathBuf| path.to_str().unwrap().to_owned();
        for from in ["deep/a.mp4".into(), "stays.mp4".into(), absolute(inbox.join("deep/a.mp4"))] {
            assert_eq!(open_source(&inbox, &from).unwrap().size(), 1, "{from}");
        }
        for from in [
            "../outside/secret.mp4".to_owned(),
            "deep/../../outside/secret.mp4".into(),
            "leads-out.mp4".into(),
            "out/secret.mp4".into(),
            absolute(outside.join("secret.mp4")),
            absolute(outside.join("not-there.mp4")),
            absolute(base.join("inbox-too.mp4")),
            "/etc/passwd".into(),
            String::new(),
            "a\0b".into(),
        ] {
            assert!(matches!(open_source(&inbox, &from), Err(TransferError::Forbidden(_))), "{from:?}");
        }
        for from in ["none.mp4", "deep"] {
            assert!(matches!(open_source(&inbox, from), Err(TransferError::NotFound(_))), "{from}");
        }
    }
}
