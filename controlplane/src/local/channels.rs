//! Live channels as the control core keeps them: which paths are live, who fills them, and what becomes of them when their senders go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dataplane::engine::channel::{Channel, ChannelReport, ChannelSpec};
use dataplane::engine::{Command, Reply};
use dataplane::ingest::ts::TRACKS;
use dataplane::ingest::{Described, Ingest, RtpIngest, RtpTrackSpec, TsIngest};
use dataplane::media::description::LIVE;
use dataplane::media::{Codec, MediaDescription, TrackDescription, TrackKind};
use dataplane::payload::format_of;
use pacing::cpu::Work;

use super::buffers::Share;
use super::core::{Core, Reservation};
use crate::engine::{AnnouncedTrack, EngineError, IngestStatus, MediaEntry};

/// How long a channel that ended is kept for viewers who are behind.
const DRAIN: Duration = Duration::from_secs(20);
/// Of a channel's buffers, the share of each track of sound: one in so many.
const SOUND_SHARE: usize = 8;
/// Blocks of a tape at least.
const BLOCKS_MIN: usize = 4;
/// Rates that are reckoned with where none was announced, bits per second.
const VIDEO_BPS: u64 = 4_000_000;
const AUDIO_BPS: u64 = 128_000;
/// Payload of a packet that is reckoned with, bytes.
const PACKET_BYTES: u64 = 1200;

/// How live channels are kept.
#[derive(Clone, Copy, Debug)]
pub struct LiveRules {
    /// How much later than they are decoded samples are due, nanoseconds.
    pub latency_ns: u64,
    /// A sender that is silent for this long is gone, nanoseconds.
    pub silence_ns: u64,
    /// How long viewers wait for a sender that is gone; `None`: their sessions end.
    pub hold: Option<Duration>,
    /// Buffers of one channel, bytes.
    pub memory_bytes: usize,
}

impl Default for LiveRules {
    fn default() -> Self {
        Self { latency_ns: 200_000_000, silence_ns: 10_000_000_000, hold: None, memory_bytes: 8 << 20 }
    }
}

/// Who fills a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// A sender.
    Filled,
    /// Nobody, since then; viewers wait.
    Held(Instant),
    /// Nobody, since then; viewers play what they have left.
    Ended(Instant),
}

/// What a channel carries.
#[derive(Debug)]
pub(super) struct Shape {
    /// For viewers. A track's id is its place, counted from 1.
    pub(super) media: Arc<MediaDescription>,
    /// The tracks by place; `None` for a place that the sender does not fill.
    pub(super) tracks: Vec<Option<AnnouncedTrack>>,
}

impl Shape {
    fn new(tracks: Vec<Option<AnnouncedTrack>>) -> Arc<Self> {
        Arc::new(Self { media: Arc::new(describe(&tracks)), tracks })
    }

    /// Tracks that the sender fills.
    pub(super) fn count(&self) -> usize {
        self.media.tracks.len()
    }

    /// Viewers' work on an engine core.
    pub(super) fn work(&self) -> Work {
        let packets = self.media.tracks.iter().map(|track| track.packets_per_second * 1000.0);
        Work { packets_milli: packets.sum::<f64>() as u64, reads_milli: 0 }
    }

    fn is_like(&self, tracks: &[Option<AnnouncedTrack>]) -> bool {
        let codecs = |tracks: &[Option<AnnouncedTrack>]| tracks.iter().map(|track| Some(track.as_ref()?.codec.clone())).collect::<Vec<_>>();
        codecs(&self.tracks) == codecs(tracks)
    }
}

/// One channel.
pub(super) struct LiveChannel {
    pub(super) path: String,
    pub(super) key: u64,
    pub(super) core: Arc<Core>,
    /// What it carries; `None` while a source has not told.
    shape: Mutex<Option<Arc<Shape>>>,
    life: Mutex<Life>,
    _reservation: Reservation,
}

impl LiveChannel {
    /// What it carries.
    pub(super) fn shape(&self) -> Result<Arc<Shape>, EngineError> {
        let shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner).clone();
        shape.ok_or_else(|| EngineError::Unavailable("nothing has come from the source of this live stream yet".into()))
    }

    fn set_shape(&self, shape: Arc<Shape>) {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = Some(shape);
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        !matches!(*self.life(), Life::Ended(_))
    }

    async fn report(&self) -> Result<Box<ChannelReport>, EngineError> {
        match self.core.ask(|reply| Command::ChannelStatus { reply, channel: self.key, report: Box::default() }).await? {
            Reply::Channel(report) => Ok(report),
            _ => Err(EngineError::Unavailable("the engine core gave a wrong answer".into())),
        }
    }

    /// What came of it.
    pub(super) async fn status(&self) -> Result<IngestStatus, EngineError> {
        let report = self.report().await?;
        let mut status =
            IngestStatus { ready: report.sync_age_ns.is_some(), last_packet_age_ns: report.last_packet_age_ns, ..IngestStatus::default() };
        for track in report.tracks.iter().take(report.count) {
            status.packets += track.packets;
            status.lost += track.lost_packets;
            status.ignored += track.ignored_packets;
            status.units += track.units;
            status.bytes += track.bytes;
            status.broken_units += track.broken_units;
            status.skipped_units += track.skipped_units;
            status.overruns += track.overruns;
        }
        Ok(status)
    }
}

/// The live channels.
pub(super) struct Channels {
    rules: LiveRules,
    by_path: Mutex<HashMap<String, Arc<LiveChannel>>>,
    /// Those that ended, until their viewers are done.
    ending: Mutex<Vec<Arc<LiveChannel>>>,
}

impl Channels {
    pub(super) fn new(rules: LiveRules) -> Self {
        Self { rules, by_path: Mutex::default(), ending: Mutex::default() }
    }

    fn by_path(&self) -> MutexGuard<'_, HashMap<String, Arc<LiveChannel>>> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channel at this path.
    pub(super) fn at(&self, path: &str) -> Option<Arc<LiveChannel>> {
        self.by_path().get(path).filter(|channel| channel.is_open()).cloned()
    }

    /// What is live at this path; `None` when nothing is.
    pub(super) async fn look_up(&self, path: &str) -> Option<Result<Arc<Shape>, EngineError>> {
        let channel = self.at(path)?;
        let shape = match channel.shape() {
            Ok(shape) => shape,
            Err(error) => return Some(Err(error)),
        };
        let held = matches!(*channel.life(), Life::Held(_));
        Some(match channel.report().await {
            Ok(report) if held || report.sync_age_ns.is_some() => Ok(shape),
            Ok(_) => Err(EngineError::Unavailable("the live stream has not sent a key frame yet: try again in a moment".into())),
            Err(EngineError::NoSession | EngineError::NotFound(_)) => Err(EngineError::NotFound("the live stream has ended".into())),
            Err(error) => Err(error),
        })
    }

    /// What is live, for the list of media.
    pub(super) fn entries(&self) -> Vec<MediaEntry> {
        let entry = |channel: &Arc<LiveChannel>| {
            let shape = channel.shape();
            let error = shape.as_ref().err().map(ToString::to_string);
            MediaEntry { path: channel.path.clone(), size_bytes: 0, media: shape.ok().map(|shape| Arc::clone(&shape.media)), error }
        };
        self.by_path().values().filter(|channel| channel.is_open()).map(entry).collect()
    }

    /// Opens a channel for a sender, or has it go on with one that is held.
    pub(super) async fn announce(
        &self,
        path: &str,
        key: u64,
        core: Arc<Core>,
        tracks: Vec<AnnouncedTrack>,
        cname: &str,
    ) -> Result<Arc<LiveChannel>, EngineError> {
        let specs: Vec<RtpTrackSpec> = tracks
            .iter()
            .map(|track| RtpTrackSpec { codec: track.codec.clone(), payload_type: track.payload_type, clock_rate: track.clock_rate })
            .collect();
        let ingest = Box::new(Ingest::Rtp(RtpIngest::new(&specs, rand::random(), cname)));
        let kinds: Vec<TrackKind> = tracks.iter().map(|track| track.kind).collect();
        let tracks: Vec<Option<AnnouncedTrack>> = tracks.into_iter().map(Some).collect();
        if let Some(known) = self.at(path) {
            let held = matches!(*known.life(), Life::Held(_));
            if !held {
                return Err(EngineError::State(format!("{path} is being sent by somebody else already")));
            }
            if known.shape().is_ok_and(|shape| shape.is_like(&tracks)) {
                known.core.ask(|reply| Command::ResumeChannel { reply, channel: known.key, ingest }).await?;
                *known.life() = Life::Filled;
                return Ok(known);
            }
            // Another kind of stream: who waited for the old one has waited in vain.
            self.end(&known);
        }
        self.open(path, key, core, &kinds, Some(Shape::new(tracks)), ingest).await
    }

    /// Opens a channel for a transport stream that arrives at this port, or has it go on with one that is held. Nothing happens while it
    /// is being filled.
    pub(super) async fn fill_from_port(&self, path: &str, key: u64, core: &Arc<Core>, port: u8) -> Result<(), EngineError> {
        let ingest = || Box::new(Ingest::Ts(TsIngest::new()));
        let channel = match self.at(path) {
            Some(known) if matches!(*known.life(), Life::Held(_)) => {
                known.core.ask(|reply| Command::ResumeChannel { reply, channel: known.key, ingest: ingest() }).await?;
                *known.life() = Life::Filled;
                known
            }
            Some(_) => return Ok(()),
            None => self.open(path, key, Arc::clone(core), &TRACKS, None, ingest()).await?,
        };
        channel.core.ask(|reply| Command::RoutePort { reply, port, channel: channel.key }).await?;
        Ok(())
    }

    /// A source has told what it carries.
    pub(super) fn described(&self, key: u64, described: &Described) {
        let Some(channel) = self.by_path().values().find(|channel| channel.key == key).cloned() else { return };
        let track = |(place, codec): (usize, &Option<Codec>)| {
            let (codec, kind) = (codec.clone()?, *TRACKS.get(place)?);
            let clock_rate = format_of(&codec, kind, place).clock_rate;
            Some(AnnouncedTrack { kind, codec, payload_type: 0, clock_rate, rate_bps: 0 })
        };
        let shape = Shape::new(described.tracks.iter().enumerate().map(track).collect());
        let codecs: Vec<&str> = shape.media.tracks.iter().map(|track| track.codec.as_str()).collect();
        tracing::info!(path = channel.path, "live source: {}", codecs.join(", "));
        channel.set_shape(shape);
    }

    async fn open(
        &self,
        path: &str,
        key: u64,
        core: Arc<Core>,
        kinds: &[TrackKind],
        shape: Option<Arc<Shape>>,
        ingest: Box<Ingest>,
    ) -> Result<Arc<LiveChannel>, EngineError> {
        let blocks = self.blocks(kinds, core.facts().chunk_bytes);
        let share = Share::of_live(key, blocks.iter().map(|&(_, blocks)| blocks).sum());
        let reservation = core.reserve(share, Work::default(), None)?;
        let LiveRules { latency_ns, silence_ns, hold, .. } = self.rules;
        let spec = ChannelSpec { key, tracks: blocks, latency_ns, silence_ns, hold: hold.is_some(), ingest: Some(ingest) };
        let channel = Box::new(Channel::new(spec));
        let live = Arc::new(LiveChannel {
            path: path.to_owned(),
            key,
            core: Arc::clone(&core),
            shape: Mutex::new(shape),
            life: Mutex::new(Life::Filled),
            _reservation: reservation,
        });
        {
            let mut by_path = self.by_path();
            if by_path.get(path).is_some_and(|known| known.is_open()) {
                return Err(EngineError::State(format!("{path} is being sent by somebody else already")));
            }
            by_path.insert(path.to_owned(), Arc::clone(&live));
        }
        if let Err(error) = core.ask(|reply| Command::OpenChannel { reply, channel }).await {
            self.by_path().retain(|_, known| !Arc::ptr_eq(known, &live));
            return Err(error);
        }
        Ok(live)
    }

    /// Blocks that the tape of each track retains.
    fn blocks(&self, kinds: &[TrackKind], chunk_bytes: usize) -> Vec<(TrackKind, usize)> {
        let all = (self.rules.memory_bytes / chunk_bytes.max(1)).max(BLOCKS_MIN);
        let pictures = kinds.iter().filter(|&&kind| kind == TrackKind::Video).count();
        let sound = kinds.len() - pictures;
        let of_sound = if pictures == 0 { all / sound.max(1) } else { all / SOUND_SHARE / sound.max(1) }.max(BLOCKS_MIN);
        let of_pictures = all.saturating_sub(of_sound * sound) / pictures.max(1);
        let blocks = |&kind: &TrackKind| match kind {
            TrackKind::Video => (kind, of_pictures.max(BLOCKS_MIN)),
            TrackKind::Audio => (kind, of_sound),
        };
        kinds.iter().map(blocks).collect()
    }

    /// The engine core says that a channel's sender is gone.
    pub(super) fn lost(&self, key: u64) -> Option<Arc<LiveChannel>> {
        let channel = self.by_path().values().find(|channel| channel.key == key).cloned()?;
        if self.rules.hold.is_some() {
            *channel.life() = Life::Held(Instant::now());
        } else {
            self.end(&channel);
        }
        Some(channel)
    }

    fn end(&self, channel: &Arc<LiveChannel>) {
        *channel.life() = Life::Ended(Instant::now());
        self.by_path().retain(|_, known| !Arc::ptr_eq(known, channel));
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(channel));
    }

    /// Closes channels that were held, or drained, for long enough. Call every second.
    pub(super) fn tidy(&self) {
        let held = |channel: &&Arc<LiveChannel>| match (*channel.life(), self.rules.hold) {
            (Life::Held(since), Some(hold)) => since.elapsed() >= hold,
            _ => false,
        };
        let overdue: Vec<_> = self.by_path().values().filter(held).cloned().collect();
        for channel in overdue {
            tracing::info!(path = channel.path, "live stream ended: its sender did not come back in time");
            self.close(&channel);
            *channel.life() = Life::Ended(Instant::now());
            self.by_path().retain(|_, known| !Arc::ptr_eq(known, &channel));
        }
        let drained = |channel: &Arc<LiveChannel>| matches!(*channel.life(), Life::Ended(since) if since.elapsed() >= DRAIN);
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        for channel in ending.iter().filter(|channel| drained(channel)) {
            self.close(channel);
        }
        ending.retain(|channel| !drained(channel));
    }

    fn close(&self, channel: &Arc<LiveChannel>) {
        let key = channel.key;
        channel.core.insist(move |reply| Command::CloseChannel { reply, channel: key }, Arc::clone(channel));
    }
}

/// What the announced tracks are to viewers.
fn describe(tracks: &[Option<AnnouncedTrack>]) -> MediaDescription {
    let track = |(position, track): (usize, &Option<AnnouncedTrack>)| {
        let track = track.as_ref()?;
        let format = format_of(&track.codec, track.kind, position);
        let reckoned = if track.kind == TrackKind::Video { VIDEO_BPS } else { AUDIO_BPS };
        let packets = if track.rate_bps > 0 { track.rate_bps } else { reckoned } as f64 / 8.0 / PACKET_BYTES as f64;
        Some(TrackDescription {
            id: position as u32 + 1,
            kind: track.kind,
            codec: format.codec_name,
            payload_type: format.payload_type,
            encoding: format.encoding.into(),
            clock_rate: track.clock_rate,
            channels: format.channels,
            fmtp: format.fmtp,
            duration_ns: 0,
            samples: 0,
            sync_samples: 0,
            mean_bps: track.rate_bps,
            peak_1s_bps: track.rate_bps,
            // Sound has a packet for each frame.
            packets_per_second: if track.kind == TrackKind::Audio { packets.max(50.0) } else { packets.max(30.0) },
            width: 0,
            height: 0,
        })
    };
    let tracks = tracks.iter().enumerate().filter_map(track).collect();
    MediaDescription { container: LIVE.into(), duration_ns: 0, size_bytes: 0, tracks, left_out: Vec::new() }
}
