//! What the RTSP server counts, for the monitor.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Live counters. Written by the server, read by [`Self::snapshot`].
#[derive(Debug, Default)]
pub struct RtspCounters {
    pub(super) connections: AtomicU64,
    pub(super) connections_total: AtomicU64,
    pub(super) connections_refused: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) sessions_total: AtomicU64,
    pub(super) sessions_expired: AtomicU64,
    responses: [AtomicU64; 3],
    refused: Mutex<BTreeMap<u16, u64>>,
}

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RtspCountersSnapshot {
    /// Connections open.
    pub connections: u64,
    /// Connections accepted since start.
    pub connections_total: u64,
    /// Connections closed at once because there were too many.
    pub connections_refused: u64,
    /// Requests answered since start.
    pub requests: u64,
    /// Interleaved frames received since start.
    pub frames: u64,
    /// Responses 2xx since start.
    pub responses_2xx: u64,
    /// Responses 4xx since start.
    pub responses_4xx: u64,
    /// Responses 5xx since start.
    pub responses_5xx: u64,
    /// Sessions that exist.
    pub sessions: u64,
    /// Sessions made since start.
    pub sessions_total: u64,
    /// Sessions ended because their client was not heard of, or by the engine.
    pub sessions_expired: u64,
    /// Refusals since start, by status.
    pub refused: BTreeMap<u16, u64>,
}

impl RtspCounters {
    /// Counts one response.
    pub(super) fn response(&self, code: u16) {
        let class = match code {
            0..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        if let Some(counter) = self.responses.get(class) {
            counter.fetch_add(1, Relaxed);
        }
        if class > 0 {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
        }
    }

    /// All counters now.
    pub fn snapshot(&self) -> RtspCountersSnapshot {
        let [responses_2xx, responses_4xx, responses_5xx] = [0, 1, 2].map(|i: usize| self.responses.get(i).map_or(0, |c| c.load(Relaxed)));
        RtspCountersSnapshot {
            connections: self.connections.load(Relaxed),
            connections_total: self.connections_total.load(Relaxed),
            connections_refused: self.connections_refused.load(Relaxed),
            requests: self.requests.load(Relaxed),
            frames: self.frames.load(Relaxed),
            responses_2xx,
            responses_4xx,
            responses_5xx,
            sessions: self.sessions.load(Relaxed),
            sessions_total: self.sessions_total.load(Relaxed),
            sessions_expired: self.sessions_expired.load(Relaxed),
            refused: self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
