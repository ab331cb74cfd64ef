//! Imports over HTTP: begin, list, end.
//!
//! A body must say that it is JSON: pages of other origins cannot send that without being asked first (CORS), so no page in an operator's
//! browser begins an import behind its back.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{Failure, ImportList};
use super::{Monitor, json};
use crate::engine::Engine;
use crate::transfer::TransferError;

/// Bytes of a request's body.
pub(super) const BODY_BYTES_MAX: usize = 16 << 10;

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Failure::new(error.status(), error.to_string())
    }
}

/// The JSON that a request carries.
pub(super) fn body<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Failure> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        return Err(Failure::new(415, "the body must be JSON, with Content-Type: application/json"));
    }
    serde_json::from_slice(body).map_err(|error| Failure::new(400, format!("the body is not what it should be: {error}")))
}

/// The answer that carries `value`.
pub(super) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json(status, bytes.into()),
        Err(error) => Failure::new(500, format!("this cannot be JSON: {error}")).into_response(),
    }
}

/// The number of a transfer in a URL.
pub(super) fn number(id: &str) -> Result<u64, Failure> {
    id.parse().map_err(|_| Failure::new(404, format!("{id:?} is not the number of a transfer")))
}

impl<E: Engine> Monitor<E> {
    pub(super) async fn get_imports(State(monitor): State<Arc<Self>>) -> Response {
        let imports = monitor.engine.imports().await;
        answer(StatusCode::OK, &ImportList { count: imports.len(), imports })
    }

    pub(super) async fn get_import(State(monitor): State<Arc<Self>>, Path(id): Path<String>) -> Result<Response, Failure> {
        let id = number(&id)?;
        let import = monitor.engine.imports().await.into_iter().find(|import| import.id == id);
        let import = import.ok_or_else(|| Failure::new(404, format!("there is no import {id}")))?;
        Ok(answer(StatusCode::OK, &import))
    }

    pub(super) async fn post_import(State(monitor): State<Arc<Self>>, headers: HeaderMap, bytes: Bytes) -> Result<Response, Failure> {
        let import = monitor.engine.start_import(body(&headers, &bytes)?).await?;
        Ok(answer(StatusCode::CREATED, &import))
    }

    pub(super) async fn delete_import(State(monitor): State<Arc<Self>>, Path(id): Path<String>) -> Result<Response, Failure> {
        let import = monitor.engine.cancel_import(number(&id)?).await?;
        Ok(answer(StatusCode::OK, &import))
    }
}
