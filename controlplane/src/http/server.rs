//! The monitor's HTTP/1.1 server, with limits that hold slow and hostile clients: number of connections, size and duration of a
//! request's head, life of a connection. Few requests have a body that is read, and it is bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::net::Listener;

/// Limits of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; more of them wait in the listener's backlog.
    pub connections: usize,
    /// Time that a client has to send a request's head; also how long a connection may idle between two requests.
    pub head_timeout: Duration,
    /// Life of a connection, whatever it does: a client that does not read its answer is cut by it.
    pub connection_age: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            head_timeout: Duration::from_secs(5),
            connection_age: Duration::from_secs(60),
            head_bytes: 16 << 10,
            headers: 64,
        }
    }
}

/// Pause after an accept that failed: when file descriptors run out, asking again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` becomes true; connections that are open then are cut.
pub async fn serve(listener: Listener, router: Router, limits: Limits, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match listener.accept().await {
                Ok(stream) => {
                    let service = TowerToHyperService::new(router.clone());
                    let connection = http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(limits.head_timeout)
                        .max_header_size(limits.head_bytes)
                        .max_headers(limits.headers)
                        .max_buf_size(limits.head_bytes.max(8 << 10))
                        .serve_connection(TokioIo::new(stream), service);
                    connections.spawn(async move {
                        // What a client breaks is its own affair: neither outcome concerns anyone else.
                        let _ = tokio::time::timeout(limits.connection_age, connection).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!("the monitor cannot accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}
