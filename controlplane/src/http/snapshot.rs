//! A value that is asked for at most once at a time and once per age, however many ask for it and however soon they lose patience.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

/// The last answer to a query, and when it came.
pub(super) struct Snapshot<T> {
    age_max: Duration,
    last: Arc<Mutex<Option<(Instant, T)>>>,
}

impl<T: Clone + Send + 'static> Snapshot<T> {
    /// An empty snapshot whose answers are reused for `age_max`.
    pub(super) fn new(age_max: Duration) -> Self {
        Self { age_max, last: Arc::default() }
    }

    /// The last answer while it is fresh, else the answer of `query`; `None` when that panicked. Callers who come while a query is under
    /// way wait for it and share its answer. A caller that goes away leaves the query running: its answer serves the next one, and
    /// nobody starts another before it has come.
    pub(super) async fn get(&self, query: impl Future<Output = T> + Send + 'static) -> Option<T> {
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < self.age_max
        {
            return Some(value.clone());
        }
        let task = tokio::spawn(async move {
            let value = query.await;
            *last = Some((Instant::now(), value.clone()));
            value
        });
        task.await.ok()
    }
}
