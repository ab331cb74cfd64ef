//! A port that writes what passes through it to a pcap file, for Wireshark and `tcpdump -r`.
//!
//! The format is the classic one with nanoseconds (magic number a1b23c4d, link type 1), see draft-ietf-opsawg-pcap 4 and 5. Received and
//! sent frames are told apart by their addresses. A frame is written when it is committed, with the time of the last `receive` or
//! `flush`: the port has no clock.
//!
//! Writing costs a copy and now and then a system call, so this is for looking at a problem, not for operation.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::RawFd;

use super::{Port, PortCounters, PortRefusal};

/// Nanosecond resolution, in the byte order of this machine (readers find out).
const MAGIC_NS: u32 = 0xa1b2_3c4d;
const VERSION: (u16, u16) = (2, 4);
const LINK_TYPE_ETHERNET: u32 = 1;
const SNAP_BYTES: u32 = 262_144;
const NS_PER_S: u64 = 1_000_000_000;

/// A port that writes frames to `W`; hand it a buffered writer.
///
/// Traffic goes on when writing fails; nothing more is written then, and [`Traced::error`] says why.
pub struct Traced<P, W: Write> {
    port: P,
    out: W,
    epoch_ns: u64,
    now_ns: u64,
    error: Option<io::Error>,
}

impl<P: Port, W: Write> Traced<P, W> {
    /// Writes the file header. `epoch_ns` is added to the times that the port is told, to make them times since 1970.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub fn new(port: P, mut out: W, epoch_ns: u64) -> io::Result<Self> {
        out.write_all(&MAGIC_NS.to_ne_bytes())?;
        out.write_all(&VERSION.0.to_ne_bytes())?;
        out.write_all(&VERSION.1.to_ne_bytes())?;
        // Two reserved fields.
        out.write_all(&[0; 8])?;
        out.write_all(&SNAP_BYTES.to_ne_bytes())?;
        out.write_all(&LINK_TYPE_ETHERNET.to_ne_bytes())?;
        Ok(Self { port, out, epoch_ns, now_ns: 0, error: None })
    }

    /// Why nothing is written any more.
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
    }

    /// Ends the trace: the port and the writer, which is not flushed yet.
    pub fn into_parts(self) -> (P, W) {
        (self.port, self.out)
    }
}

fn write_frame(out: &mut impl Write, time_ns: u64, frame: &[u8]) -> io::Result<()> {
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let kept = len.min(SNAP_BYTES);
    // The field has 32 bits: seconds are good until 2106.
    out.write_all(&((time_ns / NS_PER_S) as u32).to_ne_bytes())?;
    out.write_all(&((time_ns % NS_PER_S) as u32).to_ne_bytes())?;
    out.write_all(&kept.to_ne_bytes())?;
    out.write_all(&len.to_ne_bytes())?;
    out.write_all(frame.get(..kept as usize).unwrap_or(frame))
}

impl<P: Port, W: Write> Port for Traced<P, W> {
    fn mac(&self) -> [u8; 6] {
        self.port.mac()
    }

    fn mtu_bytes(&self) -> usize {
        self.port.mtu_bytes()
    }

    fn frame_bytes(&self) -> usize {
        self.port.frame_bytes()
    }

    fn receive(&mut self, now_ns: u64, limit: usize, sink: &mut dyn FnMut(&[u8])) -> usize {
        self.now_ns = now_ns;
        let time_ns = self.epoch_ns.wrapping_add(now_ns);
        let (out, error) = (&mut self.out, &mut self.error);
        self.port.receive(now_ns, limit, &mut |frame| {
            if error.is_none() {
                *error = write_frame(out, time_ns, frame).err();
            }
            sink(frame);
        })
    }

    fn frame(&mut self) -> Option<&mut [u8]> {
        self.port.frame()
    }

    fn commit(&mut self, len: usize) {
        let time_ns = self.epoch_ns.wrapping_add(self.now_ns);
        // The port gives the same frame again as long as it is not committed.
        if let (None, Some(frame)) = (&self.error, self.port.frame()) {
            self.error = write_frame(&mut self.out, time_ns, frame.get(..len).unwrap_or(frame)).err();
        }
        self.port.commit(len);
    }

    fn flush(&mut self, now_ns: u64) -> usize {
        self.now_ns = now_ns;
        self.port.flush(now_ns)
    }

    fn queued(&self) -> usize {
        self.port.queued()
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

    fn counters(&self) -> PortCounters {
        self.port.counters()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn both_directions_are_written_with_their_times() {
        let mut fake = Fake::new(4);
        fake.arriving.push_back(vec![7; 60]);
        let mut port = Traced::new(fake, Vec::new(), 1_000_000_000_000).unwrap();
        let mut seen = 0;
        assert_eq!(port.receive(5_000_000_007, 8, &mut |frame| seen += frame.len()), 1);
        port.frame().unwrap()[..3].copy_from_slice(b"abc");
        port.commit(3);
        port.flush(6_000_000_000);
        port.frame().unwrap()[..2].copy_from_slice(b"de");
        port.commit(2);
        assert!(port.error().is_none());
        let (fake, file) = port.into_parts();
        assert_eq!((seen, fake.sent), (60, vec![b"abc".to_vec()]));
        assert_eq!((word(&file, 0), word(&file, 20), file.len()), (MAGIC_NS, 1, 24 + 16 + 60 + 16 + 3 + 16 + 2));
        assert_eq!([word(&file, 24), word(&file, 28), word(&file, 32), word(&file, 36)], [1005, 7, 60, 60]);
        let second = 24 + 16 + 60;
        assert_eq!([word(&file, second), word(&file, second + 4), word(&file, second + 8)], [1005, 7, 3]);
        assert_eq!(&file[second + 16..second + 19], b"abc");
        let third = second + 16 + 3;
        assert_eq!([word(&file, third), word(&file, third + 4), word(&file, third + 8)], [1006, 0, 2]);
    }

    /// Takes a file header and no more.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_stops_the_trace_and_not_the_traffic() {
        let mut port = Traced::new(Fake::new(4), Full(24), 0).unwrap();
        for _ in 0..2 {
            assert!(port.frame().is_some());
            port.commit(60);
        }
        port.flush(1);
        assert_eq!(port.error().unwrap().kind(), io::ErrorKind::StorageFull);
        assert_eq!(port.into_parts().0.sent.len(), 2);
        assert!(Traced::new(Fake::new(4), Full(23), 0).is_err());
    }
}
