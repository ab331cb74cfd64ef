//! What the control core follows from its beginning to its end, and tells of for a while afterwards: imports, recordings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::transfer::{TransferError, TransferState};
use crate::units::rfc3339_utc;

/// Jobs of a kind that are over and still told of.
const REMEMBERED: usize = 64;

/// One job, as long as it is told of; `what` says what it is about.
pub(super) struct Job<T> {
    pub(super) id: u64,
    pub(super) what: T,
    started_at: SystemTime,
    started: Instant,
    progress: Mutex<Progress>,
    /// Somebody wants its end.
    pub(super) wish: Notify,
    over: Notify,
}

/// How far a job is.
pub(super) struct Progress {
    pub(super) state: TransferState,
    pub(super) bytes: u64,
    pub(super) error: Option<String>,
    ended: Option<Instant>,
}

impl<T> Job<T> {
    pub(super) fn new(id: u64, what: T) -> Arc<Self> {
        let progress = Progress { state: TransferState::Running, bytes: 0, error: None, ended: None };
        Arc::new(Self {
            id,
            what,
            started_at: SystemTime::now(),
            started: Instant::now(),
            progress: Mutex::new(progress),
            wish: Notify::new(),
            over: Notify::new(),
        })
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it began, for people and programs.
    pub(super) fn started_at(&self) -> String {
        rfc3339_utc(self.started_at)
    }

    /// For how long it has been going on, or did.
    pub(super) fn elapsed_s(&self) -> f64 {
        let end = self.progress().ended.unwrap_or_else(Instant::now);
        end.duration_since(self.started).as_secs_f64()
    }

    /// It is over; in which state, and why, if that needs to be said.
    pub(super) fn end(&self, state: TransferState, error: Option<String>) {
        let mut progress = self.progress();
        (progress.state, progress.error, progress.ended) = (state, error, Some(Instant::now()));
        drop(progress);
        self.over.notify_waiters();
    }

    pub(super) fn is_over(&self) -> bool {
        self.progress().state.is_over()
    }

    /// Has it end, and waits for that; at most for `patience`, if that is given. False when it was over before.
    pub(super) async fn wish_for_end(&self, patience: Option<Duration>) -> bool {
        let over = self.over.notified();
        tokio::pin!(over);
        // From now on the end is not missed.
        over.as_mut().enable();
        if self.is_over() {
            return false;
        }
        self.wish.notify_one();
        match patience {
            Some(patience) => drop(tokio::time::timeout(patience, over).await),
            None => over.await,
        }
        true
    }
}

/// The jobs of a kind.
pub(super) struct Jobs<T>(Mutex<BTreeMap<u64, Arc<Job<T>>>>);

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Jobs<T> {
    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Job<T>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job in, and forgets the first of those that have been over for long.
    pub(super) fn add(&self, job: &Arc<Job<T>>) {
        let mut all = self.all();
        all.insert(job.id, Arc::clone(job));
        let over: Vec<u64> = all.values().filter(|job| job.is_over()).map(|job| job.id).collect();
        for id in over.iter().take(over.len().saturating_sub(REMEMBERED)) {
            all.remove(id);
        }
    }

    /// The job of this number; `kind` is what people call such a job.
    pub(super) fn get(&self, id: u64, kind: &str) -> Result<Arc<Job<T>>, TransferError> {
        self.all().get(&id).cloned().ok_or_else(|| TransferError::NotFound(format!("there is no {kind} {id}")))
    }

    /// All of them, by number.
    pub(super) fn list(&self) -> Vec<Arc<Job<T>>> {
        self.all().values().cloned().collect()
    }

    pub(super) fn forget(&self, id: u64) {
        self.all().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_remembered_for_a_while() {
        let jobs = Jobs::default();
        for id in 0..200 {
            let job = Job::new(id, ());
            jobs.add(&job);
            if id != 3 {
                job.end(TransferState::Done, None);
            }
        }
        let ids: Vec<u64> = jobs.list().iter().map(|job| job.id).collect();
        assert_eq!((ids.len(), ids[0], ids[1]), (REMEMBERED + 2, 3, 135), "that which goes on, those that are over, and the last one");
        assert!(jobs.get(0, "import").is_err_and(|error| error.to_string() == "there is no import 0"));
    }

    #[tokio::test]
    async fn an_end_is_waited_for() {
        let job = Job::new(1, ());
        assert!(job.wish_for_end(Some(Duration::ZERO)).await && !job.is_over(), "nobody ended it");
        let other = Arc::clone(&job);
        tokio::spawn(async move {
            other.wish.notified().await;
            other.end(TransferState::Cancelled, None);
        });
        assert!(job.wish_for_end(None).await && job.is_over());
        assert!(!job.wish_for_end(None).await);
    }
}
