//! Builds the pair of modules of a track, off the engine core.

use std::sync::Arc;

use super::any_source::{LiveSource, Source};
use super::live::TapeSource;
use super::sender::{LagPolicy, TrackSender, TrackSenderConfig};
use super::source::TrackSource;
use crate::engine::AnyPair;
use crate::gdsl::{Class, Lateness, Link, Pair, TapeId};
use crate::media::{Codec, Title, TrackKind};

/// RTP packets are at most this long, header included: 1,400 bytes of payload leave room for tunnels in an Ethernet frame.
pub const PACKET_BYTES_MAX: usize = 1412;

/// What one track's delivery is made of.
#[derive(Clone, Debug)]
pub struct TrackSpec<F> {
    /// The title.
    pub title: Arc<Title>,
    /// Position of the track in it.
    pub track: usize,
    /// Its file.
    pub file: F,
    /// Deliveries with equal keys share blocks in memory.
    pub file_key: u64,
    /// How far ahead of its due time a sample is read, nanoseconds.
    pub read_ahead_ns: u64,
    /// Blocks that the link holds at most.
    pub link_blocks: usize,
    /// A byte stream that takes nothing for this long ends the delivery, nanoseconds.
    pub stall_ns: u64,
    /// Whose I/O goes first.
    pub class: Class,
    /// What happens when the delivery falls behind.
    pub lag: LagPolicy,
    /// Our CNAME in RTCP.
    pub cname: String,
    /// Random numbers: RTP synchronisation source, first sequence number, first RTP time, seed of RTCP intervals.
    pub random: (u32, u16, u32, u64),
}

impl<F> TrackSpec<F> {
    /// The pair of modules; `None` when the title has no such track.
    pub fn build(self) -> Option<Box<AnyPair<F>>> {
        let described = self.title.description.tracks.get(self.track)?;
        let (ssrc, seq, rtp_base, seed) = self.random;
        let config = TrackSenderConfig {
            ssrc,
            seq,
            rtp_base,
            payload_type: described.payload_type,
            clock_rate: described.clock_rate,
            packet_bytes_max: PACKET_BYTES_MAX,
            stall_ns: self.stall_ns,
            lag: self.lag,
            seed,
        };
        let destination = TrackSender::new(Arc::clone(&self.title), self.track, config, &self.cname)?;
        let source = Source::Title(TrackSource::new(self.title, self.track, self.file, self.file_key, self.read_ahead_ns));
        let link = Link::new(self.link_blocks);
        Some(Box::new(Pair { source, destination, link, class: self.class, lateness: Lateness::new() }.into()))
    }
}

/// What one track's live delivery is made of.
#[derive(Clone, Debug)]
pub struct LiveTrackSpec {
    /// The channel, by the number that it was opened with.
    pub channel: u64,
    /// Position of the track in it.
    pub track: usize,
    /// How it is coded.
    pub codec: Codec,
    /// Sight or sound.
    pub kind: TrackKind,
    /// RTP payload type.
    pub payload_type: u8,
    /// RTP clock rate, Hz.
    pub clock_rate: u32,
    /// Blocks that the link holds at most: what a viewer that falls behind keeps from being used again.
    pub link_blocks: usize,
    /// A byte stream that takes nothing for this long ends the delivery, nanoseconds.
    pub stall_ns: u64,
    /// Whose I/O goes first.
    pub class: Class,
    /// What happens when the delivery falls behind.
    pub lag: LagPolicy,
    /// Our CNAME in RTCP.
    pub cname: String,
    /// Random numbers, as in [`TrackSpec`].
    pub random: (u32, u16, u32, u64),
}

impl LiveTrackSpec {
    /// The pair of modules.
    pub fn build<F>(self) -> Box<AnyPair<F>> {
        let (ssrc, seq, rtp_base, seed) = self.random;
        let config = TrackSenderConfig {
            ssrc,
            seq,
            rtp_base,
            payload_type: self.payload_type,
            clock_rate: self.clock_rate,
            packet_bytes_max: PACKET_BYTES_MAX,
            stall_ns: self.stall_ns,
            lag: self.lag,
            seed,
        };
        let destination = TrackSender::live(&self.codec, self.kind, config, &self.cname);
        let source = Source::Live(LiveSource { channel: self.channel, track: self.track, tape: TapeSource::new(TapeId::NONE) });
        let link = Link::new(self.link_blocks);
        Box::new(Pair { source, destination, link, class: self.class, lateness: Lateness::new() }.into())
    }
}
