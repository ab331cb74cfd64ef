//! A value that is asked for at most once per age, however many ask for it.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last answer to a query, and when it came.
pub(super) struct Snapshot<T> {
    age_max: Duration,
    last: Mutex<Option<(Instant, T)>>,
}

impl<T: Clone> Snapshot<T> {
    /// An empty snapshot whose answers are reused for `age_max`.
    pub(super) fn new(age_max: Duration) -> Self {
        Self { age_max, last: Mutex::new(None) }
    }

    /// The last answer while it is fresh, else the answer of `query`. Callers who come while the query is under way wait for it and
    /// share its answer.
    pub(super) async fn get<F: Future<Output = T>>(&self, query: impl FnOnce() -> F) -> T {
        let mut last = self.last.lock().await;
        match &*last {
            Some((at, value)) if at.elapsed() < self.age_max => value.clone(),
            _ => {
                let value = query().await;
                *last = Some((Instant::now(), value.clone()));
                value
            }
        }
    }
}
