//! Recordings over HTTP: begin, list, end.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::Monitor;
use super::api::{Failure, RecordingList};
use super::imports::{answer, body, number};
use crate::engine::Engine;

/// How a recording is ended.
#[derive(Debug, Deserialize)]
pub(super) struct Ending {
    /// No file is wanted.
    #[serde(default)]
    discard: bool,
}

impl<E: Engine> Monitor<E> {
    pub(super) async fn get_recordings(State(monitor): State<Arc<Self>>) -> Response {
        let recordings = monitor.engine.recordings().await;
        answer(StatusCode::OK, &RecordingList { count: recordings.len(), recordings })
    }

    pub(super) async fn get_recording(State(monitor): State<Arc<Self>>, Path(id): Path<String>) -> Result<Response, Failure> {
        let id = number(&id)?;
        let recording = monitor.engine.recordings().await.into_iter().find(|recording| recording.id == id);
        let recording = recording.ok_or_else(|| Failure::new(404, format!("there is no recording {id}")))?;
        Ok(answer(StatusCode::OK, &recording))
    }

    pub(super) async fn post_recording(State(monitor): State<Arc<Self>>, headers: HeaderMap, bytes: Bytes) -> Result<Response, Failure> {
        let recording = monitor.engine.start_recording(body(&headers, &bytes)?).await?;
        Ok(answer(StatusCode::CREATED, &recording))
    }

    pub(super) async fn delete_recording(
        State(monitor): State<Arc<Self>>,
        Path(id): Path<String>,
        ending: Result<Query<Ending>, axum::extract::rejection::QueryRejection>,
    ) -> Result<Response, Failure> {
        let Query(ending) = ending.map_err(|error| Failure::new(400, format!("write ?discard=true or nothing: {error}")))?;
        let recording = monitor.engine.end_recording(number(&id)?, ending.discard).await?;
        Ok(answer(StatusCode::OK, &recording))
    }
}
