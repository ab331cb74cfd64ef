//! What the local engine does for sessions of live channels: those that send, and those that play.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::delivery::{LiveTrackSpec, StartPlan, TrackPlan};
use dataplane::engine::{Command, Reply, TRACKS_MAX, TrackSetup};

use pacing::cpu::Work;

use super::channels::{LiveChannel, Shape};
use super::core::Core;
use super::engine::{LocalEngine, lock};
use super::session::{Life, Session, add_track, to_core};
use crate::engine::{AnnouncedTrack, Class, EngineError, SessionCreated, SessionId, TrackReady, TrackTransport};

/// Blocks that one viewer's track holds at most: the one that is sent from, two that are still to come, and one between.
const LINK_BLOCKS: usize = 4;

impl LocalEngine {
    /// A session of the client that is going to send `tracks` to `path`.
    pub(super) async fn announce_session(
        &self,
        path: &str,
        client: SocketAddr,
        tracks: Vec<AnnouncedTrack>,
        came_to: Option<usize>,
    ) -> Result<SessionCreated, EngineError> {
        if self.has_title(path).await {
            return Err(EngineError::State(format!("{path} is a file; choose a path where there is none")));
        }
        // What may be sent through the client's connection can only be received where that is.
        let core = came_to.and_then(|index| self.cores.get(index).cloned()).or_else(|| self.choose_core());
        let core = core.ok_or_else(|| EngineError::Unavailable("no engine core".into()))?;
        let id = SessionId(self.new_id());
        let channel = self.channels.announce(path, self.new_id(), core, tracks, &self.cname).await?;
        let media = Arc::clone(&channel.shape()?.media);
        let session = Session::live(path, client, Class::Guaranteed, channel, true);
        lock(&self.sessions).insert(id, Arc::new(session));
        Ok(SessionCreated { session: id, media })
    }

    /// The engine core of a live session, which its tracks must be on.
    pub(super) fn live_core(&self, channel: &LiveChannel, given: Option<Arc<Core>>) -> Result<Arc<Core>, EngineError> {
        match given {
            // A connection is handed to an engine core before it is known what is played through it.
            Some(core) if !Arc::ptr_eq(&core, &channel.core) => Err(EngineError::Unavailable(
                "this live stream is on another engine core than your connection: play it over UDP, or connect again".into(),
            )),
            _ => Ok(Arc::clone(&channel.core)),
        }
    }

    /// What a viewer of the channel reserves.
    pub(super) fn live_chunks(shape: &Shape) -> usize {
        LINK_BLOCKS * shape.count() + 1
    }

    /// Fills the channels of the configured sources, again when they were lost, for as long as the engine exists.
    pub async fn fill_sources(self: Arc<Self>) {
        let Some(core) = self.choose_core() else { return };
        let mut ports = Vec::new();
        for source in &self.config.sources {
            match core.ask(|reply| Command::Listen { reply, addr: source.addr }).await {
                Ok(Reply::Listening(port)) => ports.push((source, port)),
                Ok(_) => {}
                Err(error) => tracing::error!("live source {}={}: {error}", source.path, source.addr),
            }
        }
        let mut every_second = tokio::time::interval(Duration::from_secs(1));
        every_second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !ports.is_empty() {
            every_second.tick().await;
            for &(source, port) in &ports {
                if let Err(error) = self.channels.fill_from_port(&source.path, self.new_id(), &core, port).await {
                    tracing::warn!("live source {}={}: {error}", source.path, source.addr);
                }
            }
        }
    }

    /// Sets up a track of a live session.
    pub(super) async fn set_up_live(
        &self,
        id: SessionId,
        session: &Session,
        channel: &Arc<LiveChannel>,
        track_id: u32,
        transport: TrackTransport,
    ) -> Result<TrackReady, EngineError> {
        let shape = channel.shape()?;
        let missing = || EngineError::NotFound(format!("track {track_id} of {}", session.path));
        let track = (track_id as usize).checked_sub(1).ok_or_else(missing)?;
        let announced = shape.tracks.get(track).and_then(Option::as_ref).ok_or_else(missing)?;
        let core = if session.records { Arc::clone(&channel.core) } else { self.admit(session, transport).await? };
        {
            let inner = session.inner();
            if inner.tracks.contains(&track) {
                return Err(EngineError::State(format!("track {track_id} is set up already")));
            }
            if inner.tracks.len() >= TRACKS_MAX || !matches!(inner.state, Life::Ready) {
                return Err(EngineError::State("tracks cannot be added once the session has begun".into()));
            }
        }
        let ssrc = rand::random();
        let server_ports = matches!(transport, TrackTransport::Udp { .. }).then(|| core.facts().ports);
        if session.records {
            if let TrackTransport::Interleaved { stream, .. } = transport {
                let on = lock(&self.streams).get(&stream).map(|stream| Arc::clone(&stream.core));
                self.live_core(channel, on)?;
            }
            let order = |reply| Command::SetupIngest { reply, channel: channel.key, track, transport: to_core(transport) };
            core.ask(order).await?;
            let mut inner = session.inner();
            inner.transport = Some(transport);
            inner.tracks.push(track);
            return Ok(TrackReady { ssrc, server_ports });
        }
        let described = shape.media.tracks.iter().find(|described| described.id == track_id).ok_or_else(missing)?;
        let spec = LiveTrackSpec {
            channel: channel.key,
            track,
            codec: announced.codec.clone(),
            kind: announced.kind,
            payload_type: described.payload_type,
            clock_rate: described.clock_rate,
            link_blocks: LINK_BLOCKS,
            stall_ns: self.config.stall_ns,
            class: session.class,
            lag: self.config.lag,
            cname: self.cname.clone(),
            random: (ssrc, rand::random(), rand::random(), rand::random()),
        };
        let setup = TrackSetup { track_id, transport: to_core(transport), pair: spec.build(), work: Work::default() };
        add_track(id, session, &core, track, setup).await?;
        Ok(TrackReady { ssrc, server_ports })
    }

    /// Where a live session starts: from now on, whatever was played before.
    pub(super) fn live_plan(session: &Session) -> Result<Option<Box<StartPlan>>, EngineError> {
        let inner = session.inner();
        if let Life::Failed(why) = inner.state {
            return Err(EngineError::State(why.into()));
        }
        if inner.state == Life::Ended {
            return Err(EngineError::State("the live stream has ended".into()));
        }
        let tracks = inner.tracks.iter().map(|&track| TrackPlan { track, first: 0, end: 0 }).collect();
        Ok(Some(Box::new(StartPlan { from_ns: 0, to_ns: u64::MAX, start_dts_ns: 0, tracks })))
    }

    /// The engine core says that the sender of a channel is gone.
    pub(super) fn channel_lost(
        channels: &super::channels::Channels,
        sessions: &std::sync::Mutex<std::collections::HashMap<SessionId, Arc<Session>>>,
        key: u64,
        why: &'static str,
    ) {
        let Some(channel) = channels.lost(key) else { return };
        tracing::info!(path = channel.path, why, "the sender of a live stream is gone");
        for session in lock(sessions).values() {
            let fills = session.records && session.channel.as_ref().is_some_and(|known| known.key == key);
            if fills && !matches!(session.inner().state, Life::Failed(_)) {
                session.inner().state = Life::Failed(why);
            }
        }
    }
}
