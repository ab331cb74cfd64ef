//! The monitor: what the appliance is doing, as JSON over HTTP.
//!
//! ```text
//! GET /api/v1/status ──┐                                 ┌─ engine_status ─► engine cores
//! GET /api/v1/sessions ┼─► snapshot (one query at a time,├─ sessions
//! GET /api/v1/media ───┘   kept for up to a second) ─────┴─ media
//! /api/v1/imports: GET, POST, DELETE ─► imports, start_import, cancel_import; /api/v1/recordings: the same
//! ```
//!
//! However many dashboards ask, and however often, the engine is asked at most once per snapshot's age, so a request never costs an
//! engine core anything. The fields are documented and kept stable in [`api`]; [`server`] holds clients to their limits.

pub mod api;
mod imports;
mod recordings;
pub mod server;
mod snapshot;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use serde::Serialize;

use crate::engine::Engine;
use crate::rtsp::RtspCounters;
use crate::units::rfc3339_utc;
use api::{Failure, MediaList, SessionList, Status, Totals, Version};
use snapshot::Snapshot;

/// What can be asked for.
const PAGES: &str = "/api/v1/status, /api/v1/sessions, /api/v1/media, /api/v1/imports, /api/v1/recordings";

/// How long an answer is reused.
#[derive(Clone, Copy, Debug)]
pub struct Ages {
    /// Of the status.
    pub status: Duration,
    /// Of the list of sessions.
    pub sessions: Duration,
    /// Of the list of media.
    pub media: Duration,
    /// How long the engine may take to answer before the client gets a 503.
    pub patience: Duration,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            status: Duration::from_millis(500),
            sessions: Duration::from_secs(1),
            media: Duration::from_secs(1),
            patience: Duration::from_secs(2),
        }
    }
}

/// The monitor of one engine and one RTSP server.
pub struct Monitor<E> {
    engine: Arc<E>,
    rtsp: Arc<RtspCounters>,
    version: Version,
    started_at: SystemTime,
    started: Instant,
    ages: Ages,
    status: Snapshot<Answer>,
    sessions: Snapshot<Answer>,
    media: Snapshot<Answer>,
}

/// A serialised answer; shared by everybody who asks while it is fresh.
type Answer = Result<Bytes, Failure>;

impl<E: Engine> Monitor<E> {
    /// A monitor whose clock of uptime starts now.
    pub fn new(engine: Arc<E>, rtsp: Arc<RtspCounters>, version: Version, ages: Ages) -> Self {
        Self {
            engine,
            rtsp,
            version,
            started_at: SystemTime::now(),
            started: Instant::now(),
            ages,
            status: Snapshot::new(ages.status),
            sessions: Snapshot::new(ages.sessions),
            media: Snapshot::new(ages.media),
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/", get(async || format!("Tactus: GET {PAGES} (JSON), /healthz\n")))
            .route("/healthz", get(async || "ok\n"))
            .route("/api/v1/status", get(Self::get_status))
            .route("/api/v1/sessions", get(Self::get_sessions))
            .route("/api/v1/media", get(Self::get_media))
            .route("/api/v1/imports", get(Self::get_imports).post(Self::post_import))
            .route("/api/v1/imports/{id}", get(Self::get_import).delete(Self::delete_import))
            .route("/api/v1/recordings", get(Self::get_recordings).post(Self::post_recording))
            .route("/api/v1/recordings/{id}", get(Self::get_recording).delete(Self::delete_recording))
            .layer(DefaultBodyLimit::max(imports::BODY_BYTES_MAX))
            .fallback(not_found)
            .method_not_allowed_fallback(method_not_allowed)
            .with_state(Arc::new(self))
    }

    async fn get_status(State(monitor): State<Arc<Self>>) -> Response {
        let asked = Arc::clone(&monitor);
        monitor.respond(&monitor.status, async move { asked.query_status().await }).await
    }

    async fn get_sessions(State(monitor): State<Arc<Self>>) -> Response {
        let engine = Arc::clone(&monitor.engine);
        let query = async move {
            let sessions = engine.sessions().await;
            SessionList { count: sessions.len(), sessions }
        };
        monitor.respond(&monitor.sessions, query).await
    }

    async fn get_media(State(monitor): State<Arc<Self>>) -> Response {
        let engine = Arc::clone(&monitor.engine);
        monitor.respond(&monitor.media, async move { MediaList::new(engine.media().await) }).await
    }

    async fn query_status(&self) -> Status {
        let engine = self.engine.engine_status().await;
        Status {
            version: self.version.clone(),
            started_at: rfc3339_utc(self.started_at),
            uptime_s: self.started.elapsed().as_secs_f64(),
            net: engine.net,
            sessions_max: engine.sessions_max,
            totals: Totals::of(&engine.cores),
            disks: engine.disks,
            cores: engine.cores,
            rtsp: self.rtsp.snapshot(),
        }
    }

    /// Answers from the snapshot, or with what `query` finds; waits for the engine, but not forever.
    async fn respond<T: Serialize>(&self, snapshot: &Snapshot<Answer>, query: impl Future<Output = T> + Send + 'static) -> Response {
        let serialised = async move {
            let value = query.await;
            serde_json::to_vec(&value).map(Bytes::from).map_err(|error| Failure::new(500, format!("this cannot be JSON: {error}")))
        };
        match tokio::time::timeout(self.ages.patience, snapshot.get(serialised)).await {
            Ok(Some(Ok(bytes))) => json(StatusCode::OK, bytes),
            Ok(Some(Err(failure))) => failure.into_response(),
            Ok(None) => Failure::new(500, "the query failed; the log says why").into_response(),
            Err(_) => Failure::new(503, "the engine does not answer, or it is still reading the media folder; try again").into_response(),
        }
    }
}

async fn not_found(uri: Uri) -> Failure {
    Failure::new(404, format!("there is no {}; see {PAGES}", uri.path()))
}

async fn method_not_allowed(method: Method, uri: Uri) -> Response {
    let (allowed, words) = match uri.path() {
        "/api/v1/imports" | "/api/v1/recordings" => ("GET, HEAD, POST", "this answers GET and POST"),
        path if path.starts_with("/api/v1/imports/") || path.starts_with("/api/v1/recordings/") => {
            ("GET, HEAD, DELETE", "this answers GET and DELETE")
        }
        _ => ("GET, HEAD", "the monitor only answers GET"),
    };
    let mut response = Failure::new(405, format!("{method} is not allowed: {words}")).into_response();
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}

fn json(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json(status, serde_json::to_vec(&self).unwrap_or_default().into())
    }
}
