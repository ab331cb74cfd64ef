//! Admission: a session gets its core, its buffers and, if it is guaranteed, its time, or is refused before any engine core hears of it.

use std::sync::Arc;

use pacing::cpu::Work;

use super::buffers::Share;
use super::core::Core;
use super::disks::DiskShare;
use super::engine::{LocalEngine, blocking, lock};
use super::session::Session;
use super::titles::{Playable, work_of};
use crate::engine::{Class, EngineError, TrackTransport};

impl LocalEngine {
    /// Makes sure that the session has its title open and a place on an engine core.
    pub(super) async fn admit(&self, session: &Session, transport: TrackTransport) -> Result<Arc<Core>, EngineError> {
        let core = match transport {
            TrackTransport::Interleaved { stream, .. } => {
                let streams = lock(&self.streams);
                Some(Arc::clone(&streams.get(&stream).ok_or(EngineError::NoSession)?.core))
            }
            TrackTransport::Udp { .. } => None,
        };
        if let Some(reserved) = session.core() {
            return match core {
                Some(core) if !Arc::ptr_eq(&core, &reserved) => {
                    Err(EngineError::State("all tracks of a session must be delivered the same way".into()))
                }
                _ => Ok(reserved),
            };
        }
        if let Some(channel) = &session.channel {
            let core = self.live_core(channel, core)?;
            let shape = channel.shape()?;
            let work = if session.class == Class::Guaranteed { shape.work() } else { Work::default() };
            let reservation = core.reserve(Share::of_live(channel.key, Self::live_chunks(&shape)), work, None)?;
            let mut inner = session.inner();
            if inner.destroyed {
                return Err(EngineError::NoSession);
            }
            (inner.reservation, inner.transport) = (Some(reservation), Some(transport));
            return Ok(core);
        }
        let (titles, path) = (Arc::clone(&self.titles), session.path.clone());
        let title = blocking(move || titles.open(&path)).await?;
        let core = core.or_else(|| self.choose_core()).ok_or_else(|| EngineError::Unavailable("no engine core".into()))?;
        let (work, disk) = self.guarantee(session, &title).await?;
        let reservation = core.reserve(title.share(self.config.chunk_bytes), work, disk)?;
        let mut inner = session.inner();
        if inner.destroyed {
            return Err(EngineError::NoSession);
        }
        inner.reservation = Some(reservation);
        inner.title = Some(title);
        inner.transport = Some(transport);
        Ok(core)
    }

    /// What a guaranteed session reserves of a core's and a disk's time; a best-effort one reserves nothing.
    async fn guarantee(&self, session: &Session, title: &Arc<Playable>) -> Result<(Work, Option<DiskShare>), EngineError> {
        if session.class == Class::BestEffort {
            return Ok((Work::default(), None));
        }
        let window_ns = self.titles.window_ns;
        let (disks, title) = (Arc::clone(&self.disks), Arc::clone(title));
        blocking(move || {
            let device = title.file.identity().device;
            let share = disks.reserve(device, &title.open.file_path, title.blocks, window_ns)?;
            Ok((work_of(&title.open.description, title.blocks, window_ns), share))
        })
        .await
    }
}
