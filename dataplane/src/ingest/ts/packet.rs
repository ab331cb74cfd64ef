//! MPEG-2 transport packets (ISO 13818-1 2.4.3.2).

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 188;
const SYNC_BYTE: u8 = 0x47;
/// PID of packets that carry nothing.
pub const NULL_PID: u16 = 0x1fff;

/// A packet's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TsPacket<'a> {
    /// Which elementary stream or table it belongs to.
    pub pid: u16,
    /// A PES packet or section begins in its payload.
    pub starts: bool,
    /// Continuity counter, 0 to 15.
    pub counter: u8,
    /// The counter need not go on from the one before.
    pub discontinuity: bool,
    /// Empty in a packet without payload, and in one that is scrambled.
    pub payload: &'a [u8],
}

impl<'a> TsPacket<'a> {
    /// Reads a packet; `None` when it is none, or is marked as damaged.
    pub fn parse(packet: &'a [u8]) -> Option<Self> {
        let (&[sync, second, third, fourth], rest) = packet.get(..PACKET_BYTES)?.split_first_chunk::<4>()?;
        if sync != SYNC_BYTE || second & 0x80 != 0 {
            return None;
        }
        let pid = u16::from(second & 0x1f) << 8 | u16::from(third);
        let (mut payload, mut discontinuity) = (rest, false);
        if fourth & 0x20 != 0 {
            let (&len, after) = rest.split_first()?;
            let field = after.get(..usize::from(len))?;
            discontinuity = field.first().is_some_and(|flags| flags & 0x80 != 0);
            payload = after.get(usize::from(len)..)?;
        }
        let scrambled = fourth & 0xc0 != 0;
        if fourth & 0x10 == 0 || scrambled {
            payload = &[];
        }
        Some(Self { pid, starts: second & 0x40 != 0, counter: fourth & 0xf, discontinuity, payload })
    }
}

/// What a packet's counter says of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuity {
    /// Nothing is missing.
    Whole,
    /// The packet came before: it is a duplicate.
    Again,
    /// So many packets are missing, modulo 16.
    Lost(u8),
}

/// Counts the packets of one PID.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter(Option<u8>);

impl Counter {
    /// The next packet that has a payload.
    pub fn next(&mut self, packet: &TsPacket<'_>) -> Continuity {
        let before = self.0.replace(packet.counter);
        match before {
            Some(before) if !packet.discontinuity => match packet.counter.wrapping_sub(before) & 0xf {
                0 => Continuity::Again,
                1 => Continuity::Whole,
                ahead => Continuity::Lost(ahead - 1),
            },
            _ => Continuity::Whole,
        }
    }
}
