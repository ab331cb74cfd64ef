//! Shares of the port: RTP takes any frame, everybody else leaves the last few to it.

use std::net::IpAddr;

use crate::iface::{Asker, FrameOut, Interface, Path, PathFailure};
use crate::port::Port;
use crate::tcp::{LinkAddress, SegmentOut, SendOutcome};

/// Protocol number of TCP.
const TCP: u8 = 6;
/// Frames that may be queued when something is added that others made us say. Few, for RTP stands behind them: at 1 Gbps 32 of the shortest
/// take 22 us.
pub(super) const ANSWER_FRAMES: usize = 32;

/// What is not RTP may use of a port.
pub(super) struct Share<'a, P> {
    pub(super) port: &'a mut P,
    /// Frames that are left alone.
    pub(super) reserve: usize,
    /// Frames that may be queued when an answer is added that can wait.
    pub(super) answers_below: usize,
}

impl<P: Port> FrameOut for Share<'_, P> {
    fn frame(&mut self) -> Option<&mut [u8]> {
        if self.port.queued().saturating_add(self.reserve) >= self.port.capacity() { None } else { self.port.frame() }
    }

    fn commit(&mut self, len: usize) {
        self.port.commit(len);
    }

    fn is_crowded(&self) -> bool {
        self.port.queued() >= self.answers_below
    }
}

/// The way of TCP segments out.
pub(super) struct Segments<'a, P> {
    pub(super) share: Share<'a, P>,
    pub(super) iface: &'a mut Interface,
    pub(super) now_ns: u64,
}

impl<P: Port> SegmentOut for Segments<'_, P> {
    fn queued(&self) -> usize {
        self.share.port.queued()
    }

    fn segment(&mut self, local: IpAddr, remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let path = self.iface.path(self.now_ns, remote, Asker::Foreign);
        self.send(path, (local, remote), len, fill)
    }

    fn answer(&mut self, via: LinkAddress, local: IpAddr, remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let path = self.iface.path_back(self.now_ns, remote, via);
        self.send(path, (local, remote), len, fill)
    }
}

impl<P: Port> Segments<'_, P> {
    fn send(
        &mut self,
        path: Result<Path, PathFailure>,
        (local, remote): (IpAddr, IpAddr),
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> SendOutcome {
        let path = match path {
            Ok(path) => path,
            Err(PathFailure::Unresolved) => return SendOutcome::Unresolved,
            Err(PathFailure::NoRoute) => return SendOutcome::NoRoute,
        };
        let Some(frame) = self.share.frame() else { return SendOutcome::Full };
        let written = self.iface.ip_frame(frame, &path, local, remote, TCP, len);
        let Some((at, segment)) = written.and_then(|at| Some((at, frame.get_mut(at..at + len)?))) else { return SendOutcome::NoRoute };
        fill(segment);
        self.share.commit(at + len);
        SendOutcome::Sent
    }
}
