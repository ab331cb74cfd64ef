//! A transmitter: sends one frame after another at a rate, and knows when each has left.

/// What Ethernet adds to a frame as it lies in memory: preamble and start delimiter (8), frame check sequence (4), gap (12).
/// IEEE 802.3 3.1.1, 4.4.2.
pub const ETHERNET_OVERHEAD_BYTES: usize = 24;
/// Shortest Ethernet frame without its frame check sequence; shorter ones are padded by the sender. IEEE 802.3 4.4.2.
pub const ETHERNET_FRAME_BYTES_MIN: usize = 60;

/// A transmitter. The part of a nanosecond that a frame's time has too much is carried to the next frame, so that a busy line keeps its rate
/// exactly.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Line {
    /// Bits per second; 0 sends in no time.
    rate_bps: u64,
    /// Added to each frame.
    overhead_bytes: usize,
    free_ns: u64,
    /// Billionths of a bit, times the rate, that the line is ahead of `free_ns`.
    carry: u64,
}

impl Line {
    pub(super) fn new(rate_bps: u64, overhead_bytes: usize) -> Self {
        Self { rate_bps, overhead_bytes, free_ns: 0, carry: 0 }
    }

    /// Changes the rate for the frames to come.
    pub(super) fn change(&mut self, rate_bps: u64, overhead_bytes: usize) {
        *self = Self { rate_bps, overhead_bytes, free_ns: self.free_ns, carry: 0 };
    }

    /// When the last bit of what was sent so far has left.
    pub(super) fn free_ns(&self) -> u64 {
        self.free_ns
    }

    /// Sends a frame, at `ready_ns` or as soon as the line is free. Gives the times of its first and its last bit.
    pub(super) fn send(&mut self, ready_ns: u64, frame_bytes: usize) -> (u64, u64) {
        let start_ns = ready_ns.max(self.free_ns);
        if ready_ns > self.free_ns {
            self.carry = 0;
        }
        let mut took_ns = 0;
        if self.rate_bps > 0 {
            let bytes = (frame_bytes.max(ETHERNET_FRAME_BYTES_MIN) + self.overhead_bytes) as u128;
            let rate_bps = u128::from(self.rate_bps);
            let due = bytes * 8_000_000_000 + u128::from(self.carry);
            took_ns = u64::try_from(due / rate_bps).unwrap_or(u64::MAX);
            // A remainder is smaller than its divisor, which had 64 bits.
            self.carry = (due % rate_bps) as u64;
        }
        self.free_ns = start_ns.saturating_add(took_ns);
        (start_ns, self.free_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_takes_its_bits_and_the_overhead() {
        let mut line = Line::new(1_000_000_000, ETHERNET_OVERHEAD_BYTES);
        // 1514 + 24 bytes are 12,304 bits.
        assert_eq!(line.send(1000, 1514), (1000, 13_304));
        assert_eq!(line.send(1000, 1514), (13_304, 25_608));
        // The shortest frame: 84 bytes with all that belongs to it, the 1,488,095 per second of the books.
        assert_eq!(line.send(1_000_000, 1), (1_000_000, 1_000_672));
    }

    #[test]
    fn parts_of_a_nanosecond_add_up() {
        let mut line = Line::new(10_000_000_000, ETHERNET_OVERHEAD_BYTES);
        for _ in 0..10 {
            line.send(0, 60);
        }
        assert_eq!(line.free_ns(), 672);
        // An idle line has nothing to carry.
        let mut line = Line::new(3, 0);
        assert_eq!(line.send(0, 60).1, 160_000_000_000);
        let mut line = Line::new(7, 0);
        assert_eq!(line.send(0, 60).1, 68_571_428_571);
        assert_eq!(line.send(70_000_000_000, 60).1, 138_571_428_571);
        assert_eq!(line.send(0, 60).1, 207_142_857_142);
        assert_eq!(line.send(0, 60).1, 275_714_285_714);
    }

    #[test]
    fn without_a_rate_nothing_takes_time() {
        let mut line = Line::new(0, ETHERNET_OVERHEAD_BYTES);
        assert_eq!(line.send(5, 1514), (5, 5));
        assert_eq!(line.send(3, 1514), (5, 5));
        let mut slow = Line::new(1, usize::from(u16::MAX));
        slow.send(u64::MAX - 5, 60);
        assert_eq!(slow.free_ns(), u64::MAX);
    }
}
