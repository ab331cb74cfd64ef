//! Recordings: live streams that are written into files of the media folder, by their engine cores, beside all that is played.
//!
//! ```text
//! POST ─► place in the media folder, as `recordings-to` allows ─► a pair for each track on the channel's engine core ─┐
//!            every moment: notes collected, room on the disk taken ahead ◄───────────────────────────────────────────┤
//!            every second: what was noted, into the journal beside the file ◄─────────────────────────────────────────┤
//!            its end, whoever or whatever brings it: moov, head, synced, renamed, in the catalogue ◄──────────────────┤
//!            discarded, or nothing came: the part is removed ◄────────────────────────────────────────────────────────┘
//! ```
//!
//! However a recording ends, what was recorded becomes a file that can be played, and its status says why there is no more. Room is taken
//! before it is written to, so that what belongs behind the samples still fits when the disk is full. What a crash cuts off, the next start
//! makes a file of ([`recover`]).

mod files;
mod recover;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dataplane::disks::NewFileError;
use dataplane::engine::TransferReport;
use dataplane::gdsl::Outcome;
use dataplane::media::library::Library;
use dataplane::media::movie;
use dataplane::transfer::record::{Layout, RECORD_CHUNKS, RecordSpec};
use dataplane::transfer::take::Take;

use self::files::Files;
use super::channels::{Channels, Shape};
use super::jobs::{Job, Jobs};
use super::titles::Titles;
use super::transfers::{Board, Running, new_file};
use crate::config::RecordPaths;
use crate::transfer::{RecordingRequest, RecordingStatus, TransferError, TransferState};

/// How often notes are collected, and the engine core is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// The journal is written every so many times of these: what a crash may cut off.
const JOURNAL_EVERY: u32 = 4;
/// How long whoever ends a recording waits for the file.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Longest recording that may be asked for, seconds.
const SECONDS_MAX: u32 = 7 * 86_400;
/// Why recordings end when the process does.
const STOPPING: &str = "the server was stopped";

/// What a recording is about.
struct Recording {
    channel: String,
    to: String,
    seconds: Option<u32>,
    tracks: Vec<String>,
    left_out: Vec<String>,
    /// Whoever wants its end wants no file.
    discard: AtomicBool,
    /// The process ends.
    stopping: AtomicBool,
    so_far: Mutex<SoFar>,
}

#[derive(Clone, Debug, Default)]
struct SoFar {
    recorded_ns: u64,
    samples: u64,
    ended: Option<String>,
}

impl Recording {
    fn so_far(&self) -> MutexGuard<'_, SoFar> {
        self.so_far.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn status(job: &Job<Recording>) -> RecordingStatus {
    let (started_at, elapsed_s) = (job.started_at(), job.elapsed_s());
    let (what, so_far, progress) = (&job.what, job.what.so_far().clone(), job.progress());
    RecordingStatus {
        id: job.id,
        channel: what.channel.clone(),
        to: what.to.clone(),
        state: progress.state,
        bytes: progress.bytes,
        recorded_s: so_far.recorded_ns as f64 / 1e9,
        samples: so_far.samples,
        tracks: what.tracks.clone(),
        left_out: what.left_out.clone(),
        seconds: what.seconds,
        started_at,
        elapsed_s,
        ended: so_far.ended,
        error: progress.error.clone(),
    }
}

fn end(job: &Job<Recording>, state: TransferState, error: Option<String>) {
    let Recording { channel, to, .. } = &job.what;
    let ended = job.what.so_far().ended.clone().unwrap_or_default();
    match &error {
        Some(why) => tracing::warn!(%channel, %to, "recording failed: {why}"),
        None => tracing::info!(%channel, %to, ?state, "recording is over: {ended}"),
    }
    job.end(state, error);
}

/// The recordings of an engine.
pub(super) struct Recordings {
    /// Beginnings of the paths that they may have.
    paths: RecordPaths,
    jobs: Jobs<Recording>,
}

impl Recordings {
    /// Recordings to these paths only.
    pub(super) fn new(paths: RecordPaths) -> Self {
        Self { paths, jobs: Jobs::default() }
    }

    /// Has what a crash has left of recordings made into files. It is taken up before this returns.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn recover(&self, library: &Library) -> std::io::Result<()> {
        let left = recover::take_up(library, &self.paths);
        if left.is_empty() {
            return Ok(());
        }
        std::thread::Builder::new().name("recover".into()).spawn(move || recover::finish(left)).map(drop)
    }

    pub(super) fn list(&self) -> Vec<RecordingStatus> {
        self.jobs.list().iter().map(|job| status(job)).collect()
    }

    fn check(&self, request: &RecordingRequest) -> Result<(), TransferError> {
        if self.paths.is_off() {
            return Err(TransferError::Off("recordings are off: start tactus serve with --recordings-to PATHS (\"recordings/\")"));
        }
        if !self.paths.allows(&request.to) {
            return Err(TransferError::Forbidden(format!("'{}' is not where recordings may go: {}", request.to, self.paths)));
        }
        if !request.to.to_ascii_lowercase().ends_with(".mp4") {
            return Err(TransferError::Wrong("to: a recording is an MP4 file, and is to be called so (\".mp4\")".into()));
        }
        match request.seconds {
            Some(seconds) if !(1..=SECONDS_MAX).contains(&seconds) => {
                Err(TransferError::Wrong(format!("seconds: at least 1 and at most {SECONDS_MAX}")))
            }
            _ => Ok(()),
        }
    }

    /// Begins a recording named `id` into the folder of `titles`.
    pub(super) async fn start(
        &self,
        id: u64,
        request: RecordingRequest,
        titles: Arc<Titles>,
        channels: &Channels,
        board: Arc<Board>,
    ) -> Result<RecordingStatus, TransferError> {
        self.check(&request)?;
        let RecordingRequest { channel, to, seconds, replace } = request;
        let channel = channel.trim_matches('/').to_owned();
        let live = channels.at(&channel).ok_or_else(|| TransferError::NotFound(format!("nothing is live at '{channel}'")))?;
        let shape = live.shape().map_err(|error| TransferError::Unavailable(error.to_string()))?;
        let (tracks, left_out) = names(&shape);
        if tracks.is_empty() {
            return Err(TransferError::Wrong(format!("nothing of '{channel}' can be recorded: {}", left_out.join("; "))));
        }
        let path = to.clone();
        let open = move || {
            let (new, place) = new_file(&titles.library, &path, 0, replace)?;
            Files::begin(new, place).map_err(|error| match error {
                NewFileError::NoRoom { .. } => TransferError::NoRoom(error.to_string()),
                error => TransferError::Unavailable(error.to_string()),
            })
        };
        let mut files =
            tokio::task::spawn_blocking(open).await.unwrap_or_else(|error| Err(TransferError::Unavailable(error.to_string())))?;
        let layout = Arc::new(Layout::default());
        let core = Arc::clone(&live.core);
        let (mut pairs, mut takes) = (Vec::new(), Vec::new());
        for (track, announced) in shape.tracks.iter().enumerate() {
            let Some(announced) = announced.as_ref().filter(|announced| movie::obstacle(&announced.codec).is_none()) else { continue };
            let spec = RecordSpec {
                channel: live.key,
                track,
                kind: announced.kind,
                codec: announced.codec.clone(),
                clock_rate: announced.clock_rate,
                file: files.new.file().clone(),
                layout: Arc::clone(&layout),
                block_bytes: core.facts().chunk_bytes as u64,
                duration_ns: seconds.map(|seconds| u64::from(seconds) * 1_000_000_000),
            };
            let (pair, take) = spec.build();
            pairs.push(Box::new(pair.into()));
            takes.push(take);
        }
        let begin_journal = move || {
            files.begin_journal(replace, &takes);
            (files, takes)
        };
        let begun = tokio::task::spawn_blocking(begin_journal).await;
        let (files, takes) = begun.map_err(|error| TransferError::Unavailable(error.to_string()))?;
        let chunks = RECORD_CHUNKS * pairs.len();
        let running = Running::start(core, board, id, pairs, chunks).await?;
        let (discard, stopping, so_far) = (AtomicBool::new(false), AtomicBool::new(false), Mutex::default());
        let job = Job::new(id, Recording { channel, to, seconds, tracks, left_out, discard, stopping, so_far });
        tracing::info!(channel = %job.what.channel, to = %job.what.to, "recording begins");
        self.jobs.add(&job);
        let status = status(&job);
        tokio::spawn(supervise(job, running, files, takes, layout));
        Ok(status)
    }

    /// Ends a recording that goes on, with or without a file; one that is over is told of no more. How it is then: in the end, if that
    /// comes soon.
    pub(super) async fn end(&self, id: u64, discard: bool) -> Result<RecordingStatus, TransferError> {
        let job = self.jobs.get(id, "recording")?;
        if discard {
            job.what.discard.store(true, Ordering::Release);
        }
        if !job.wish_for_end(Some(END_PATIENCE)).await {
            self.jobs.forget(id);
        }
        Ok(status(&job))
    }

    /// Ends all recordings; their files are kept. Waits at most `patience`.
    pub(super) async fn end_all(&self, patience: Duration) {
        let deadline = tokio::time::Instant::now() + patience;
        let jobs = self.jobs.list();
        for job in jobs.iter().filter(|job| !job.is_over()) {
            job.what.stopping.store(true, Ordering::Release);
            job.wish.notify_one();
        }
        for job in &jobs {
            job.wish_for_end(Some(deadline.saturating_duration_since(tokio::time::Instant::now()))).await;
        }
    }
}

/// The tracks that are recorded, and those that are not, for people.
fn names(shape: &Shape) -> (Vec<String>, Vec<String>) {
    let (mut tracks, mut left_out) = (Vec::new(), Vec::new());
    for described in &shape.media.tracks {
        let announced = (described.id as usize).checked_sub(1).and_then(|place| shape.tracks.get(place)).and_then(Option::as_ref);
        match announced.and_then(|announced| movie::obstacle(&announced.codec)) {
            Some(why) => left_out.push(format!("{}: {why}", described.codec)),
            None => tracks.push(described.codec.clone()),
        }
    }
    (tracks, left_out)
}

/// Collects what the engine core notes; why the recording must end, if it must.
fn collect(job: &Job<Recording>, files: &mut Files, takes: &mut [Take]) -> Option<String> {
    files.collect(takes);
    let mut so_far = job.what.so_far();
    so_far.recorded_ns = takes.iter().map(Take::duration_ns).max().unwrap_or(0);
    so_far.samples = takes.iter().map(Take::samples).sum();
    takes.iter().any(Take::is_full).then(|| "a recording has no room for more samples: begin another one".to_owned())
}

/// Why a pair of the recording has come to its end.
fn why_over(job: &Job<Recording>, report: Option<TransferReport>) -> String {
    let almost_ns = |seconds: u32| u64::from(seconds.saturating_sub(1)) * 1_000_000_000;
    match report {
        None => "the engine core ended",
        Some(TransferReport { outcome: Some(Outcome::Failed(why)), .. }) => why,
        Some(_) if job.what.seconds.is_some_and(|seconds| job.what.so_far().recorded_ns >= almost_ns(seconds)) => {
            "it is as long as was asked for"
        }
        Some(_) => "the live stream has ended",
    }
    .to_owned()
}

/// Follows a recording to its end.
async fn supervise(job: Arc<Job<Recording>>, mut running: Running, mut files: Files, mut takes: Vec<Take>, layout: Arc<Layout>) {
    let mut every = tokio::time::interval(PROGRESS_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ended: Option<String> = None;
    let mut ticks: u32 = 0;
    while !job.what.discard.load(Ordering::Acquire) {
        let why = tokio::select! {
            report = running.over() => {
                collect(&job, &mut files, &mut takes);
                let why = why_over(&job, report);
                if report.is_none_or(|report| report.going_on == 0) {
                    ended = ended.or(Some(why));
                    break;
                }
                Some(why)
            }
            () = job.wish.notified() => {
                Some(if job.what.stopping.load(Ordering::Acquire) { STOPPING } else { "somebody ended it" }.to_owned())
            }
            _ = every.tick() => {
                if let Some(report) = running.report().await {
                    job.progress().bytes = report.bytes;
                }
                let full = collect(&job, &mut files, &mut takes);
                let needed_bytes = takes.iter().map(Take::tail_bytes).fold(layout.end(), u64::saturating_add);
                ticks = ticks.wrapping_add(1);
                let (is_short, write) = (files.is_short(needed_bytes), ticks.is_multiple_of(JOURNAL_EVERY));
                let tend = move || {
                    if write {
                        files.write_journal();
                    }
                    let made = if is_short { files.make_room(needed_bytes) } else { Ok(()) };
                    (made, files)
                };
                match tokio::task::spawn_blocking(tend).await {
                    Ok((made, kept)) => {
                        files = kept;
                        full.or(made.err().map(|error| match error {
                            NewFileError::NoRoom { .. } => "the disk is full".to_owned(),
                            error => error.to_string(),
                        }))
                    }
                    Err(error) => {
                        running.stop().await;
                        return end(&job, TransferState::Failed, Some(error.to_string()));
                    }
                }
            }
        };
        if let (None, Some(why)) = (&ended, why) {
            // All tracks are recorded up to the same moment.
            running.end_recording();
            ended = Some(why);
        }
    }
    // Before anything is done with the file.
    running.stop().await;
    collect(&job, &mut files, &mut takes);
    job.what.so_far().ended = ended;
    if job.what.discard.load(Ordering::Acquire) {
        // The part is gone before anybody is told of the end.
        let _ = tokio::task::spawn_blocking(move || drop(files)).await;
        return end(&job, TransferState::Cancelled, None);
    }
    job.progress().state = TransferState::Finishing;
    match tokio::task::spawn_blocking(move || files.finish(takes)).await {
        Ok(Ok(file)) => {
            job.progress().bytes = file.bytes;
            end(&job, TransferState::Done, None);
        }
        Ok(Err(why)) => end(&job, TransferState::Failed, Some(why)),
        Err(error) => end(&job, TransferState::Failed, Some(error.to_string())),
    }
}
