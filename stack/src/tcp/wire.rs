//! Segments on the wire: checked once when they arrive, written once when they leave. Fields and options are read with smoltcp's wire types.

use std::net::IpAddr;

use smoltcp::wire::{TcpOption, TcpPacket};

use super::api::LinkAddress;
use super::checksum;
use super::seq::Seq;

/// Bytes of a header without options.
pub(super) const HEADER_BYTES: usize = 20;
/// SACK blocks that fit beside timestamps (RFC 2018 3).
pub(super) const SACK_BLOCKS: usize = 3;
/// Bytes of the timestamps option with its padding.
pub(super) const TIMESTAMPS_BYTES: usize = 12;

/// Flags, as they are in the header.
pub(super) mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const PSH: u8 = 8;
    pub const ACK: u8 = 16;
}

/// The two ends of a connection as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuple {
    pub local: IpAddr,
    pub remote: IpAddr,
    pub local_port: u16,
    pub remote_port: u16,
}

/// SACK blocks of one segment, in the order that they have on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SackBlocks {
    blocks: [(Seq, Seq); SACK_BLOCKS],
    len: usize,
}

impl SackBlocks {
    pub fn push(&mut self, start: Seq, end: Seq) {
        if let Some(block) = self.blocks.get_mut(self.len) {
            *block = (start, end);
            self.len += 1;
        }
    }

    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        &self.blocks[..self.len]
    }
}

/// The options that this stack knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// Value and echo reply (RFC 7323 3.2).
    pub timestamps: Option<(u32, u32)>,
    pub sack: SackBlocks,
}

/// A header without ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub seq: Seq,
    pub ack: Seq,
    pub flags: u8,
    /// As it is in the header: not scaled.
    pub window: u16,
    pub options: Options,
}

impl Header {
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Bytes with options and padding.
    pub fn len(&self) -> usize {
        let options = &self.options;
        let sack = options.sack.as_slice().len();
        HEADER_BYTES
            + if options.mss.is_some() { 4 } else { 0 }
            + if options.window_scale.is_some() { 4 } else { 0 }
            + if options.sack_permitted { 4 } else { 0 }
            + if options.timestamps.is_some() { TIMESTAMPS_BYTES } else { 0 }
            + if sack > 0 { 4 + 8 * sack } else { 0 }
    }
}

/// A segment that has arrived.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'a> {
    pub tuple: Tuple,
    pub header: Header,
    pub payload: &'a [u8],
    /// Where its frame came from, if that is known.
    pub via: Option<LinkAddress>,
}

impl Incoming<'_> {
    /// Length in sequence space.
    pub fn len(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.header.has(flag::SYN)) + u32::from(self.header.has(flag::FIN))
    }
}

/// Reads a segment from `src` to `dst`; `None` when it is none.
pub(super) fn parse(src: IpAddr, dst: IpAddr, segment: &[u8], verify: bool) -> Option<Incoming<'_>> {
    let packet = TcpPacket::new_checked(segment).ok()?;
    if packet.src_port() == 0 || packet.dst_port() == 0 || (verify && !checksum::verify(src, dst, segment)) {
        return None;
    }
    let tuple = Tuple { local: dst, remote: src, local_port: packet.dst_port(), remote_port: packet.src_port() };
    let header = Header {
        seq: Seq(packet.seq_number().0 as u32),
        ack: Seq(packet.ack_number().0 as u32),
        flags: segment.get(13).copied()? & 0x3f,
        window: packet.window_len(),
        options: parse_options(packet.options()),
    };
    Some(Incoming { via: None, tuple, header, payload: packet.payload() })
}

/// What comes after an option that makes no sense is not looked at: there is no telling where the next one starts.
fn parse_options(mut bytes: &[u8]) -> Options {
    let mut options = Options::default();
    while let Ok((rest, option)) = TcpOption::parse(bytes) {
        match option {
            TcpOption::EndOfList => break,
            TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
            // RFC 7323 2.3: a larger shift count counts as 14.
            TcpOption::WindowScale(shift) => options.window_scale = Some(shift.min(14)),
            TcpOption::SackPermitted => options.sack_permitted = true,
            TcpOption::TimeStamp { tsval, tsecr } => options.timestamps = Some((tsval, tsecr)),
            TcpOption::SackRange(ranges) => {
                for (start, end) in ranges.into_iter().flatten() {
                    options.sack.push(Seq(start), Seq(end));
                }
            }
            TcpOption::NoOperation | TcpOption::Unknown { .. } => {}
        }
        bytes = rest;
    }
    options
}

/// Writes a segment into `buf`, which has room for exactly the header and the payload; `payload` fills the latter.
pub(super) fn emit(tuple: &Tuple, header: &Header, buf: &mut [u8], payload: &dyn Fn(&mut [u8])) {
    let header_len = header.len();
    let Some((head, body)) = buf.split_at_mut_checked(header_len) else { return };
    let (fixed, options) = head.split_at_mut(HEADER_BYTES);
    fixed[0..2].copy_from_slice(&tuple.local_port.to_be_bytes());
    fixed[2..4].copy_from_slice(&tuple.remote_port.to_be_bytes());
    fixed[4..8].copy_from_slice(&header.seq.0.to_be_bytes());
    fixed[8..12].copy_from_slice(&header.ack.0.to_be_bytes());
    fixed[12] = (header_len as u8 / 4) << 4;
    fixed[13] = header.flags;
    fixed[14..16].copy_from_slice(&header.window.to_be_bytes());
    fixed[16..20].fill(0);
    emit_options(&header.options, options);
    payload(body);
    let sum = checksum::compute(tuple.local, tuple.remote, buf);
    buf[16..18].copy_from_slice(&sum);
}

fn emit_options(options: &Options, mut out: &mut [u8]) {
    let mut put = |bytes: &[u8]| {
        let (now, later) = std::mem::take(&mut out).split_at_mut(bytes.len());
        now.copy_from_slice(bytes);
        out = later;
    };
    if let Some(mss) = options.mss {
        let [high, low] = mss.to_be_bytes();
        put(&[2, 4, high, low]);
    }
    if let Some(shift) = options.window_scale {
        put(&[1, 3, 3, shift]);
    }
    if options.sack_permitted {
        put(&[1, 1, 4, 2]);
    }
    if let Some((value, echo)) = options.timestamps {
        put(&[1, 1, 8, 10]);
        put(&value.to_be_bytes());
        put(&echo.to_be_bytes());
    }
    let blocks = options.sack.as_slice();
    if !blocks.is_empty() {
        put(&[1, 1, 5, 2 + 8 * blocks.len() as u8]);
        for (start, end) in blocks {
            put(&start.0.to_be_bytes());
            put(&end.0.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn options() -> impl Strategy<Value = Options> {
        let blocks = prop::collection::vec((any::<u32>(), any::<u32>()), 0..=3);
        (any::<Option<u16>>(), prop::option::of(0u8..=14), any::<bool>(), any::<Option<(u32, u32)>>(), blocks).prop_map(
            |(mss, window_scale, sack_permitted, timestamps, blocks)| {
                let mut sack = SackBlocks::default();
                // A SYN has no SACK blocks; with all options at once there would not be room.
                let blocks = if mss.is_some() { vec![] } else { blocks };
                blocks.into_iter().for_each(|(start, end)| sack.push(Seq(start), Seq(end)));
                let window_scale = window_scale.filter(|_| mss.is_some());
                Options { mss, window_scale, sack_permitted: sack_permitted && mss.is_some(), timestamps, sack }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seq: u32, ack: u32, flags in 0u8..64, window: u16, options in options(), body in prop::collection::vec(any::<u8>(), 0..50)) {
            let header = Header { seq: Seq(seq), ack: Seq(ack), flags, window, options };
            let tuple = Tuple { local: A, remote: B, local_port: 80, remote_port: 5000 };
            let mut buf = vec![0xaa; header.len() + body.len()];
            emit(&tuple, &header, &mut buf, &|out| out.copy_from_slice(&body));
            let read = parse(A, B, &buf, true).expect("a segment");
            prop_assert_eq!(read.header, header);
            prop_assert_eq!(read.payload, &body[..]);
            prop_assert_eq!(read.tuple, Tuple { local: B, remote: A, local_port: 5000, remote_port: 80 });
            let at = usize::from(window) % buf.len();
            buf[at] ^= 1 << (seq % 8);
            prop_assert!(parse(A, B, &buf, true).is_none(), "one wrong bit is seen");
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(A, B, &bytes, false);
        }
    }
}
