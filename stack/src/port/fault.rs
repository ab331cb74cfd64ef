//! A port on which things go wrong: frames are lost, damaged and refused, from a seed.
//!
//! The same seed and the same calls give the same faults. A lost frame completes in the next flush, as on a device that sends it into a
//! cut cable; a refusal is what a full device looks like, and may be over at the next call.

use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::{Port, PortCounters, PortRefusal};

/// How often what goes wrong, each in events per 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Received frames that are not shown.
    pub rx_lost: u16,
    /// Received frames that are shown with one bit flipped.
    pub rx_corrupt: u16,
    /// Committed frames that do not reach the device.
    pub tx_lost: u16,
    /// Committed frames that leave with one bit flipped.
    pub tx_corrupt: u16,
    /// Times that [`Port::frame`] has none, although one is free.
    pub refused: u16,
}

/// What the decorator has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Frames lost, of both directions.
    pub lost: u64,
    /// Frames damaged, of both directions.
    pub corrupted: u64,
    /// Frames refused.
    pub refused: u64,
}

/// splitmix64 (Steele, Lea, Flood 2014): small, and good enough for faults.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn hits(&mut self, per_1024: u16) -> bool {
        per_1024 > 0 && self.next() % 1024 < u64::from(per_1024)
    }

    fn flip_a_bit(&mut self, bytes: &mut [u8]) {
        let at = self.next();
        let len = bytes.len().max(1) as u64;
        if let Some(byte) = bytes.get_mut((at / 8 % len) as usize) {
            *byte ^= 1 << (at % 8);
        }
    }
}

/// A port with faults in front of another.
pub struct Faulty<P> {
    port: P,
    faults: Faults,
    random: Random,
    counters: FaultCounters,
    /// Where a received frame is damaged: the port's own is read-only.
    copy: Box<[u8]>,
    /// An open frame that was not refused when it was first asked for.
    granted: bool,
    /// Frames committed and lost since the last flush.
    lost: usize,
}

impl<P: Port> Faulty<P> {
    /// Faults in front of `port`.
    pub fn new(port: P, faults: Faults, seed: u64) -> Self {
        let copy = vec![0; port.frame_bytes()].into_boxed_slice();
        Self { port, faults, random: Random(seed), counters: FaultCounters::default(), copy, granted: false, lost: 0 }
    }

    /// Other faults from now on.
    pub fn set(&mut self, faults: Faults) {
        self.faults = faults;
    }

    /// What was done so far.
    pub fn faults_done(&self) -> FaultCounters {
        self.counters
    }

    /// The port behind.
    pub fn inner(&mut self) -> &mut P {
        &mut self.port
    }
}

impl<P: Port> Port for Faulty<P> {
    fn mac(&self) -> [u8; 6] {
        self.port.mac()
    }

    fn mtu_bytes(&self) -> usize {
        self.port.mtu_bytes()
    }

    fn frame_bytes(&self) -> usize {
        self.port.frame_bytes()
    }

    /// Of the port's answer, lost frames are taken off.
    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        let Self { port, faults, random, counters, copy, .. } = self;
        let mut lost = 0;
        let received = port.receive(now_ns, limit, &mut |frame| {
            if random.hits(faults.rx_lost) {
                lost += 1;
                return;
            }
            match copy.get_mut(..frame.len()) {
                Some(copy) if random.hits(faults.rx_corrupt) => {
                    copy.copy_from_slice(frame);
                    random.flip_a_bit(copy);
                    counters.corrupted += 1;
                    sink(copy);
                }
                _ => sink(frame),
            }
        });
        counters.lost += lost as u64;
        received.saturating_sub(lost)
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        if self.queued() >= self.capacity() {
            return None;
        }
        if !self.granted && self.random.hits(self.faults.refused) {
            self.counters.refused += 1;
            return None;
        }
        let frame = self.port.frame()?;
        self.granted = true;
        Some(frame)
    }

    fn commit(&mut self, len: usize) {
        if !std::mem::take(&mut self.granted) {
            return;
        }
        if self.random.hits(self.faults.tx_lost) {
            // The port's frame stays open and is used again.
            self.lost += 1;
            self.counters.lost += 1;
            return;
        }
        if self.random.hits(self.faults.tx_corrupt)
            && let Some(frame) = self.port.frame().and_then(|frame| frame.get_mut(..len))
        {
            self.random.flip_a_bit(frame);
            self.counters.corrupted += 1;
        }
        self.port.commit(len);
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        self.port.flush(now_ns) + std::mem::take(&mut self.lost)
    }

    fn queued(&self) -> usize {
        self.port.queued() + self.lost
    }

    fn capacity(&self) -> usize {
        self.port.capacity()
    }

    fn listen(&mut self, addr: SocketAddr) -> Result<(), PortRefusal> {
        self.port.listen(addr)
    }

    fn wait(&mut self, timeout_ns: u64, wake: RawFd) {
        self.port.wait(timeout_ns, wake);
    }

    /// Those of the port behind.
    fn counters(&self) -> PortCounters {
        self.port.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    const ALL: u16 = 1024;

    /// Sends numbered frames and receives some; answers what was sent and seen.
    fn run(faults: Faults, seed: u64) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, FaultCounters) {
        let mut fake = Fake::new(8);
        fake.arriving.extend((0..200).map(|i| vec![i; 60]));
        let mut port = Faulty::new(fake, faults, seed);
        let mut seen = Vec::new();
        let (mut committed, mut completed) = (0, 0);
        while committed < 200 {
            while committed < 200
                && let Some(frame) = port.frame()
            {
                frame[..60].fill(committed as u8);
                port.commit(60);
                committed += 1;
            }
            assert!(port.queued() <= port.capacity());
            completed += port.flush(0);
            port.receive(0, 16, &mut |frame| seen.push(frame.to_vec()));
        }
        while port.queued() > 0 {
            completed += port.flush(0);
        }
        assert_eq!(completed, 200, "every frame is completed once");
        let done = port.faults_done();
        (std::mem::take(&mut port.inner().sent), seen, done)
    }

    #[test]
    fn without_faults_nothing_changes() {
        let (sent, seen, done) = run(Faults::default(), 1);
        let expected: Vec<_> = (0..200).map(|i| vec![i; 60]).collect();
        assert_eq!((&sent, &seen, done), (&expected, &expected, FaultCounters::default()));
    }

    #[test]
    fn a_seed_decides_what_goes_wrong() {
        let faults = Faults { rx_lost: 100, rx_corrupt: 100, tx_lost: 100, tx_corrupt: 100, refused: 100 };
        assert_eq!(run(faults, 7), run(faults, 7));
        assert_ne!(run(faults, 7), run(faults, 8));
        let (sent, seen, done) = run(faults, 7);
        assert_eq!((400 - sent.len() - seen.len()) as u64, done.lost);
        let damaged = sent.iter().chain(&seen).filter(|frame| frame.iter().any(|byte| *byte != frame[0])).count();
        assert_eq!(damaged as u64, done.corrupted);
        assert!(done.lost > 0 && done.corrupted > 0 && done.refused > 0, "{done:?}");
    }

    #[test]
    fn everything_can_be_lost_or_refused() {
        let (sent, seen, done) = run(Faults { rx_lost: ALL, tx_lost: ALL, ..Faults::default() }, 1);
        assert_eq!((sent.len(), seen.len(), done.lost), (0, 0, 400));
        let mut port = Faulty::new(Fake::new(2), Faults { refused: ALL, ..Faults::default() }, 1);
        assert!(port.frame().is_none());
        port.set(Faults::default());
        assert!(port.frame().is_some());
        // A frame that was given out is not refused any more, and without one a commit does nothing.
        port.set(Faults { refused: ALL, ..Faults::default() });
        assert!(port.frame().is_some());
        port.commit(60);
        port.commit(60);
        assert_eq!(port.queued(), 1);
    }
}
