//! Settings of a link.

use super::chance::Probability;
use super::line::ETHERNET_OVERHEAD_BYTES;

/// Shape of the jitter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JitterKind {
    /// Any amount from -`amount_ns` to `amount_ns` is equally likely.
    #[default]
    Uniform,
    /// Normal, with `amount_ns` as standard deviation, cut off at six of these.
    Normal,
}

/// Variation of the delay. A total below zero counts as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jitter {
    /// Shape.
    pub kind: JitterKind,
    /// Size; 0 for none.
    pub amount_ns: u64,
}

/// Losses in bursts: Gilbert's and Elliott's model. The mean burst is 1 / `leave` frames, and `enter` / (`enter` + `leave`) of all frames
/// fall into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bursts {
    /// A burst begins with a frame.
    pub enter: Probability,
    /// A burst has ended before a frame.
    pub leave: Probability,
    /// A frame in a burst is lost.
    pub loss: Probability,
}

/// Settings of one direction of a link. The default lets everything through at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireConfig {
    /// Rate in bits per second; 0 for no limit.
    pub rate_bps: u64,
    /// Bytes that each frame takes on the line beside its own: [`ETHERNET_OVERHEAD_BYTES`] unless the link is no Ethernet.
    pub overhead_bytes: usize,
    /// Bytes of frames that may wait for the line, without overhead; the frame that is being sent is not counted.
    pub queue_bytes: usize,
    /// Frames that may wait for the line.
    pub queue_frames: usize,
    /// Time from one end to the other.
    pub delay_ns: u64,
    /// Its variation.
    pub jitter: Jitter,
    /// Frames lost, each by itself.
    pub loss: Probability,
    /// Frames lost in bursts, beside those.
    pub bursts: Option<Bursts>,
    /// Frames held back so that later ones overtake them.
    pub reordering: Probability,
    /// For how long these are held back.
    pub hold_back_ns: u64,
    /// Frames that arrive twice.
    pub duplication: Probability,
    /// Frames with one bit flipped, anywhere behind the Ethernet header.
    pub corruption: Probability,
}

impl Default for WireConfig {
    fn default() -> Self {
        Self {
            rate_bps: 0,
            overhead_bytes: ETHERNET_OVERHEAD_BYTES,
            queue_bytes: usize::MAX,
            queue_frames: 1000,
            delay_ns: 0,
            jitter: Jitter::default(),
            loss: Probability::NEVER,
            bursts: None,
            reordering: Probability::NEVER,
            hold_back_ns: 1_000_000,
            duplication: Probability::NEVER,
            corruption: Probability::NEVER,
        }
    }
}

/// Memory of a link: frames that wait or are on their way. At 1 Gbps 82 frames of 1514 bytes are on their way for each millisecond of delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WirePool {
    /// Frames.
    pub frames: u32,
    /// Bytes of the longest.
    pub frame_bytes: usize,
}

impl Default for WirePool {
    fn default() -> Self {
        Self { frames: 4096, frame_bytes: 2048 }
    }
}
