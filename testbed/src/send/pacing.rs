//! The thread that sends: takes what is due from the [`Pacer`], marks it, hands it to the kernel in batches, and writes down when that was.

use std::io;
use std::net::SocketAddrV4;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use hdrhistogram::Histogram;
use socket2::Socket;

use super::pacer::{Books, Media, Outgoing, Pacer};
use super::pattern::Pattern;
use super::rtsp::Identity;
use super::sys::{BATCH, HEADER_BYTES, Wire, sleep_exactly};
use crate::lateness::histogram_ns;
use crate::load::sys;

/// The longest sleep, so that commands are seen.
const SLEEP_MAX_NS: u64 = 500_000;
/// The rest of a wait is spun, so that packets leave on time.
const SPIN_NS: u64 = 80_000;
/// RFC 3550 5.1: version 2; RFC 3551: a dynamic payload type.
const RTP_VERSION: u8 = 0x80;
/// The payload type of the streams.
pub const PAYLOAD_TYPE: u8 = 96;

/// To the sending thread.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Send a stream.
    Start {
        /// In this slot.
        slot: u32,
        /// Marked so.
        identity: Identity,
        /// To this address.
        to: SocketAddrV4,
    },
    /// End the stream in this slot.
    Stop(u32),
    /// End.
    End,
}

/// One line of the log: a packet and its times, monotonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Of which stream.
    pub ssrc: u32,
    /// Its number.
    pub seq: u16,
    /// When the media's rate wanted it.
    pub due_ns: u64,
    /// When the kernel had it.
    pub sent_ns: u64,
}

/// What was sent, and when.
#[derive(Debug)]
pub struct Sent {
    /// What a receiver must find.
    pub books: Books,
    /// Time after the call that sent a packet minus its due time: what a receiver must find, less what the path adds.
    pub late_ns: Histogram<u64>,
    /// The same minus what was late on purpose: how badly this sender keeps its own plan.
    pub own_ns: Histogram<u64>,
    /// Calls of the kernel.
    pub calls: u64,
    /// Packets that the kernel refused: the books count them as sent.
    pub refused: u64,
    /// CPU time of the thread, ns.
    pub cpu_ns: u64,
    /// Packets and their times, as many as were asked for.
    pub log: Vec<Logged>,
}

/// What the thread is made with.
#[derive(Debug)]
pub struct Settings {
    /// The shape of the streams.
    pub media: Media,
    /// What goes wrong on purpose.
    pub pattern: Pattern,
    /// Room for streams.
    pub slots: usize,
    /// Pin to this core.
    pub cpu: Option<usize>,
    /// Packets to log.
    pub log: usize,
}

/// Starts the thread, which sends from `socket`.
///
/// # Errors
/// The system has no thread to give.
pub fn start(settings: Settings, socket: Socket) -> io::Result<(Sender<Command>, JoinHandle<io::Result<Sent>>)> {
    let (commands, receiver) = crossbeam_channel::unbounded();
    let thread = std::thread::Builder::new().name("sender".into()).spawn(move || {
        if let Some(cpu) = settings.cpu {
            sys::pin_to_cpu(cpu)?;
        }
        sleep_exactly();
        Line::new(&settings, socket).run(&receiver)
    })?;
    Ok((commands, thread))
}

struct Line {
    pacer: Pacer,
    media: Media,
    receivers: Vec<(Identity, SocketAddrV4)>,
    wire: Wire,
    socket: Socket,
    sent: Sent,
    log_max: usize,
}

impl Line {
    fn new(settings: &Settings, socket: Socket) -> Self {
        let nobody = (Identity::of(0), SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0));
        Self {
            pacer: Pacer::new(settings.media, settings.pattern.clone(), settings.slots),
            media: settings.media,
            receivers: vec![nobody; settings.slots],
            wire: Wire::new(vec![0; settings.media.payload_bytes as usize].into()),
            socket,
            sent: Sent {
                books: Books::default(),
                late_ns: histogram_ns(),
                own_ns: histogram_ns(),
                calls: 0,
                refused: 0,
                cpu_ns: 0,
                log: Vec::with_capacity(settings.log),
            },
            log_max: settings.log,
        }
    }

    fn run(mut self, commands: &Receiver<Command>) -> io::Result<Sent> {
        let mut out = Vec::with_capacity(BATCH);
        loop {
            match commands.try_recv() {
                Ok(Command::Start { slot, identity, to }) => {
                    if let Some(receiver) = self.receivers.get_mut(slot as usize) {
                        *receiver = (identity, to);
                        self.pacer.start(slot, sys::monotonic_ns());
                    }
                }
                Ok(Command::Stop(slot)) => self.pacer.stop(slot),
                Ok(Command::End) | Err(TryRecvError::Disconnected) => break,
                Err(TryRecvError::Empty) => {}
            }
            let now = sys::monotonic_ns();
            out.clear();
            // One place is left for a packet that is sent twice.
            self.pacer.take_due(now, BATCH - 1, &mut out);
            if out.is_empty() {
                self.wait(now);
            } else {
                self.send(&out);
            }
        }
        self.pacer.stop_all();
        self.sent.books = self.pacer.books();
        self.sent.cpu_ns = sys::thread_cpu_ns();
        Ok(self.sent)
    }

    fn wait(&self, now: u64) {
        let until = self.pacer.next_ns().unwrap_or(u64::MAX).min(now + SLEEP_MAX_NS);
        match until.saturating_sub(now) {
            gap if gap > 2 * SPIN_NS => std::thread::sleep(Duration::from_nanos(gap - SPIN_NS)),
            _ => std::hint::spin_loop(),
        }
    }

    fn send(&mut self, out: &[Outgoing]) {
        for packet in out {
            if let Some(&(identity, to)) = self.receivers.get(packet.slot as usize) {
                self.wire.push(header(&self.media, identity, packet.index), to);
            }
        }
        let flushed = self.wire.flush(&self.socket);
        self.sent.calls += flushed.calls;
        self.sent.refused += flushed.refused;
        let sent_ns = sys::monotonic_ns();
        for packet in out.iter().filter(|packet| !packet.again) {
            self.sent.late_ns.saturating_record(sent_ns.saturating_sub(packet.due_ns));
            self.sent.own_ns.saturating_record(sent_ns.saturating_sub(packet.planned_ns));
            if self.sent.log.len() < self.log_max
                && let Some((identity, _)) = self.receivers.get(packet.slot as usize)
            {
                let seq = identity.seq.wrapping_add(packet.index as u16);
                self.sent.log.push(Logged { ssrc: identity.ssrc, seq, due_ns: packet.due_ns, sent_ns });
            }
        }
    }
}

/// RFC 3550 5.1.
fn header(media: &Media, identity: Identity, index: u64) -> [u8; HEADER_BYTES] {
    let [s0, s1] = identity.seq.wrapping_add(index as u16).to_be_bytes();
    let [t0, t1, t2, t3] = identity.timestamp.wrapping_add(media.timestamp(index)).to_be_bytes();
    let [c0, c1, c2, c3] = identity.ssrc.to_be_bytes();
    let marker = if media.ends_frame(index) { 0x80 } else { 0 };
    [RTP_VERSION, marker | PAYLOAD_TYPE, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_follow_the_packet() {
        let media = Media::new(1_400_000, 25).unwrap();
        let identity = Identity { ssrc: 0x0102_0304, seq: 0xffff, timestamp: 0xffff_ffff };
        assert_eq!(header(&media, identity, 0), [0x80, 96, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
        let last = media.packets_per_frame - 1;
        assert_eq!(header(&media, identity, last)[..4], [0x80, 0x80 | 96, 0, last as u8 - 1]);
        assert_eq!(header(&media, identity, last + 1)[4..8], 3599u32.to_be_bytes());
    }
}
