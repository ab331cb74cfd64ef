//! One packet of a sample, and why there may be none.

use hugepages::Hint;

use super::super::bytes::LinkBytes;
use super::Current;
use crate::gdsl::LinkView;
use crate::payload::{Packetiser, Step};
use crate::rtp::{HEADER_BYTES, RtpSender};

/// Where in the link a byte lies.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) in_link: usize,
    pub(super) block_bytes: u64,
}

/// Why the bytes of a sample do not make a packet.
pub(super) enum Missing {
    /// They will come.
    OnItsWay,
    /// They are all here: it is the packetiser that wants more than there is.
    Nothing,
    /// The disk cannot read the block that begins at this file offset.
    Unreadable(u64),
    /// They will never come, and neither will any others.
    ForGood(&'static str),
}

/// Why a packet could not be sent now.
pub(super) enum Blocked {
    /// The host takes no more frames.
    Host,
    /// The sample's bytes are not here yet.
    Data,
    /// The byte stream is full.
    Stream,
    /// The sample does not parse; it is skipped.
    BadSample,
    /// For good.
    Failed(&'static str),
}

/// Writes the next RTP packet of the current sample into `frame`; `None` when the sample is finished.
pub(super) fn packetise(
    packetiser: &mut Packetiser,
    rtp: &mut RtpSender,
    current: &mut Current,
    hint: &mut Hint,
    place: Place,
    view: LinkView<'_>,
    frame: &mut [u8],
) -> Result<Option<usize>, Blocked> {
    let mut bytes = LinkBytes::new(view, place.in_link, current.at(), (current.sample.size - current.taken) as usize);
    let Some((header, payload)) = frame.split_at_mut_checked(HEADER_BYTES) else { return Err(Blocked::Host) };
    let step = packetiser.next(&mut bytes, payload).map_err(|_| Blocked::BadSample)?;
    let taken = bytes.position().saturating_sub(current.sample.offset);
    current.advance(u32::try_from(taken).unwrap_or(current.sample.size), place.block_bytes);
    *hint = bytes.hint();
    match step {
        Step::Packet(meta) => {
            let timestamp = current.rtp_ts.wrapping_add(meta.timestamp_offset);
            header.copy_from_slice(&rtp.header(meta.marker, timestamp));
            Ok(Some(HEADER_BYTES + meta.len))
        }
        Step::NeedData => Err(Blocked::Data),
        Step::SampleDone => Ok(None),
    }
}
