//! Drives the emulated wires of a topology in real time: one thread, all links.
//!
//! ```text
//! interface A ─► receive ring ─► Wire ─► sendmmsg ─► interface B        and back; each frame enters at the time that the kernel took it
//! ```
//!
//! A frame's delay counts from its kernel timestamp, so what this thread is late in fetching it is not added, as long as the delay is
//! longer ([`Clocks`]). It leaves when its time has come or later, never earlier; how much later is counted. Between frames the thread sleeps, and spins
//! only for the last few microseconds before a frame is due ([`Waiting`]).

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use stack::wire::{Wire, WireConfig};

use super::packet::PacketPort;
use super::stats::{DirectionStats, LinkStats, NetStats};
use super::sys::{self, Waiter};
use crate::load::sys::{monotonic_ns, realtime_ns, thread_cpu_ns};

/// Frames taken from one interface before the others get their turn.
const RECEIVE_MAX: usize = 64;
/// A timestamp further away than this is a clock that was set.
const AGE_NS_MAX: u64 = 1_000_000_000;
/// A kernel timer fires this much late on an ordinary machine.
const SPIN_NS: u64 = 20_000;

/// How the thread waits for the next frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Waiting {
    /// Sleeps, and spins for the last 20 us.
    #[default]
    Adaptive,
    /// Never sleeps: exact, and a core of its own.
    Busy,
    /// Sleeps always: a frame may leave a timer's delay late.
    Sleep,
}

/// An emulated link.
pub struct Link {
    /// Name.
    pub name: String,
    /// The hosts at its ends.
    pub hosts: [String; 2],
    /// The interfaces at its ends.
    pub ports: [PacketPort; 2],
    /// From the first to the second, and back.
    pub wires: [Wire; 2],
    /// Time of the last frame that each wire took.
    pub latest_ns: [u64; 2],
}

/// A wish of the control side. Each is answered, the answer being awaited by whoever wished.
pub enum Command {
    /// The figures.
    Stats(Sender<Box<NetStats>>),
    /// Changes the wires of a link; the answer is false when there is no such link.
    Change {
        /// The link.
        link: String,
        /// Which directions.
        directions: [bool; 2],
        /// Changes the settings.
        change: Box<dyn Fn(&mut WireConfig) + Send>,
        /// The answer.
        done: Sender<bool>,
    },
}

/// The wires of a topology.
pub struct Driver {
    /// Name of the topology.
    pub name: String,
    /// Its links.
    pub links: Vec<Link>,
    /// How to wait.
    pub waiting: Waiting,
    /// Wishes.
    pub commands: Receiver<Command>,
    /// Becomes readable when there are wishes.
    pub wake: std::os::unix::net::UnixDatagram,
}

/// The kernel's clock of timestamps beside the one that the wires run by.
///
/// The thread may be kept from running between the two readings, and between these and the receiving. The wall clock is read first and
/// timestamps may lie ahead of it, so that the first makes a frame late and the second nothing at all: neither makes it early.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    wall_ns: u64,
    now_ns: u64,
}

impl Clocks {
    fn read() -> Self {
        let wall_ns = realtime_ns();
        Self { wall_ns, now_ns: monotonic_ns() }
    }

    /// When a frame came.
    fn came_ns(&self, stamp_ns: u64) -> u64 {
        if stamp_ns.abs_diff(self.wall_ns) < AGE_NS_MAX { (self.now_ns + stamp_ns).saturating_sub(self.wall_ns) } else { self.now_ns }
    }
}

impl Link {
    fn receive(&mut self, clocks: Clocks) -> usize {
        let mut taken = 0;
        for ((port, wire), latest_ns) in self.ports.iter_mut().zip(&mut self.wires).zip(&mut self.latest_ns) {
            taken += port.receive(RECEIVE_MAX, &mut |stamp_ns, frame| {
                *latest_ns = clocks.came_ns(stamp_ns).max(*latest_ns);
                wire.push(*latest_ns, frame);
            });
        }
        taken
    }

    fn send(&mut self, now_ns: u64) {
        for (wire, port) in self.wires.iter_mut().zip(self.ports.iter_mut().rev()) {
            while let Some(frame) = wire.pop(now_ns) {
                port.send(frame);
            }
            port.flush();
        }
    }

    fn next_ns(&self) -> Option<u64> {
        self.wires.iter().filter_map(Wire::next_ns).min()
    }

    fn stats(&mut self) -> LinkStats {
        let [a, b] = &mut self.ports;
        let ([a, b], [there, back], [from, to]) = ([a.counters(), b.counters()], &self.wires, &self.hosts);
        LinkStats {
            name: self.name.clone(),
            forward: DirectionStats::new(from, to, there, a, b),
            backward: DirectionStats::new(to, from, back, b, a),
        }
    }
}

impl Driver {
    /// Runs until the control side is gone.
    pub fn run(mut self) {
        sys::exact_timeouts();
        sys::prefer_thread();
        let ports = self.links.iter().flat_map(|link| &link.ports).map(AsRawFd::as_raw_fd);
        let fds: Vec<RawFd> = ports.chain([self.wake.as_raw_fd()]).collect();
        let mut waiter = Waiter::new(fds);
        let started_ns = monotonic_ns();
        let mut sleeps = 0;
        loop {
            if !self.obey(started_ns, sleeps) {
                return;
            }
            let clocks = Clocks::read();
            let mut taken = 0;
            for link in &mut self.links {
                taken += link.receive(clocks);
            }
            for link in &mut self.links {
                link.send(clocks.now_ns);
            }
            if taken > 0 || self.waiting == Waiting::Busy {
                continue;
            }
            let spin_ns = if self.waiting == Waiting::Adaptive { SPIN_NS } else { 0 };
            let next_ns = self.links.iter().filter_map(Link::next_ns).min();
            let left_ns = next_ns.map(|next_ns| next_ns.saturating_sub(monotonic_ns()));
            if left_ns.is_none_or(|left_ns| left_ns > spin_ns) {
                sleeps += 1;
                waiter.wait(left_ns.map(|left_ns| Duration::from_nanos(left_ns - spin_ns)));
                self.look_after(&waiter);
            }
        }
    }

    /// Takes away what would end the next wait at once.
    fn look_after(&self, waiter: &Waiter) {
        let mut place = 0;
        for port in self.links.iter().flat_map(|link| &link.ports) {
            if waiter.has_error(place) {
                port.clear_error();
            }
            place += 1;
        }
        while waiter.has_input(place) && self.wake.recv(&mut [0; 8]).is_ok() {}
    }

    /// Does what the control side wishes; false when it is gone.
    fn obey(&mut self, started_ns: u64, sleeps: u64) -> bool {
        use crossbeam_channel::TryRecvError;
        loop {
            match self.commands.try_recv() {
                Ok(command) => {
                    self.execute(command, started_ns, sleeps);
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Whoever asked may have gone before the answer; that is his affair.
    fn execute(&mut self, command: Command, started_ns: u64, sleeps: u64) {
        match command {
            Command::Stats(answer) => {
                let stats = NetStats {
                    name: self.name.clone(),
                    seconds: (monotonic_ns() - started_ns) as f64 / 1e9,
                    cpu_seconds: thread_cpu_ns() as f64 / 1e9,
                    sleeps,
                    links: self.links.iter_mut().map(Link::stats).collect(),
                };
                let _ = answer.send(Box::new(stats));
            }
            Command::Change { link, directions, change, done } => {
                let found = self.links.iter_mut().find(|one| one.name == link);
                let is_there = found.is_some();
                if let Some(link) = found {
                    let now_ns = monotonic_ns();
                    for (wire, _) in link.wires.iter_mut().zip(directions).filter(|(_, wanted)| *wanted) {
                        let mut config = *wire.config();
                        change(&mut config);
                        wire.reconfigure(now_ns, config);
                    }
                }
                let _ = done.send(is_there);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_between_two_readings_makes_no_frame_early() {
        let clocks = |wall_ns, now_ns| Clocks { wall_ns, now_ns };
        let wall_ns = 1_700_000_000_000_000_000;
        // Undisturbed: came 300 ns ago, or since.
        assert_eq!(clocks(wall_ns, 5_000).came_ns(wall_ns - 300), 4_700);
        assert_eq!(clocks(wall_ns, 5_000).came_ns(wall_ns + 2_000_000), 2_005_000);
        // Kept from running for 1 ms between the readings.
        assert_eq!(clocks(wall_ns, 1_005_000).came_ns(wall_ns - 300), 1_004_700);
        // The wall clock was set.
        assert_eq!(clocks(wall_ns, 5_000).came_ns(wall_ns - 2 * AGE_NS_MAX), 5_000);
        assert_eq!(clocks(wall_ns, 5_000).came_ns(wall_ns + 2 * AGE_NS_MAX), 5_000);
        assert_eq!(clocks(wall_ns, 5).came_ns(wall_ns - 300), 0);
    }
}
