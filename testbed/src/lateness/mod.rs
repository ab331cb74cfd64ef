//! Punctuality measured at the receiver, without trusting the sender.
//!
//! A stream of RTP packets carries its own time line: the RTP timestamps. A packet that arrives at `a` and belongs to media time `x` has
//! the offset `d = a - x`; the earliest arrivals of the stream show the smallest offset that sender and path can reach. The line under the
//! offsets of all frames' first packets (their lower hull, [`line`]) is that stream's own "on time", and a packet's **lateness is its height
//! above the line**. Nothing of the sender's clock, of its reports or of one packet's luck enters. Arrival times are the kernel's receive
//! timestamps.
//!
//! Three measures, because senders differ in what they try to do within a frame (the packets of one RTP timestamp):
//!
//! - **frame**: the first packet of each RTP timestamp against the timestamp. Comparable among all senders.
//! - **even**: each packet against the frame spread evenly by payload bytes up to the next frame's time, which is what a pacing sender aims at.
//! - **burst**: each packet against its RTP timestamp, which is what a sender aims at that sends a frame at once.
//!
//! A sender is judged by the one of `even` and `burst` that its packets lie closer to, early or late ([`Tally::packet`]): the other one
//! would count the intended spacing.
//!
//! Limits. The line is relative: a delay that *every* packet has is invisible (it is path delay to the receiver); a sender that falls behind
//! steadily is seen only beyond the drift allowance, which is why the allowance is 0 where both ends share a clock. What a sender adds to a
//! frame (parameter sets) shifts its `even` times by its share of the frame. Timestamps that are not in decode order (B-frames) are put in
//! order within [`frames::REORDER_FRAMES`] frames first, which is exact for a constant frame rate. A frame whose first packet or whose border
//! was lost gives no `frame` and no `even` sample. Long streams are judged in blocks of records: the line never forgets, but a block is
//! measured against what was known when it ended.

pub mod frames;
pub mod line;
mod meter;
mod tally;
#[cfg(test)]
mod tests;

pub use meter::{Meter, Record, Sample, Sink};
pub use tally::{RateTally, Tally, histogram_ns};
