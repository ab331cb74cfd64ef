//! The pinned thread around an engine core, and the control core's handle of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use hugepages::ChunkPool;
use pacing::Clock;
use stack::host::Host;

use super::command::{Command, Event};
use super::core::{CoreConfig, EngineCore, Turn};
use super::eventfd::EventFd;
use super::realtime;
use crate::disks::Disk;

/// Whether an idle core spins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poll {
    /// Spins always: the most punctual, one CPU at 100 %.
    Busy,
    /// Sleeps to the next deadline when there is nothing to do.
    #[default]
    Adaptive,
}

/// With adaptive polling turns begin at least this far apart, so that deadlines that lie close together are served by one wake-up, which
/// costs as much as sending ten packets or more.
const PERIOD_NS_MIN: u64 = 250_000;
/// So much farther apart for each packet of a turn: the more there is to send, the more wake-ups are worth saving.
const PERIOD_NS_PER_PACKET: u64 = 5_000;
/// It bounds the lateness that adaptive polling adds.
const PERIOD_NS_MAX: u64 = 650_000;
/// Shorter sleeps are not worth their wake-up.
const SLEEP_NS_MIN: u64 = 50_000;
/// A sleep is at most this long.
const IDLE_NS: u64 = 500_000_000;

/// How the thread is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadConfig {
    /// CPU to pin to.
    pub cpu: Option<usize>,
    /// Whether an idle core spins.
    pub poll: Poll,
    /// SCHED_FIFO and locked memory, where the kernel grants them.
    pub realtime: bool,
    /// Sizes.
    pub core: CoreConfig,
    /// Commands that may wait; the control core is told to come back when there are more.
    pub commands_max: usize,
}

/// What a core turned out to be, once it runs.
#[derive(Clone, Debug)]
pub struct CoreFacts {
    /// CPU it is pinned to; `None` when pinning was refused or not asked for.
    pub cpu: Option<usize>,
    /// Its RTP and RTCP ports.
    pub ports: (u16, u16),
    /// How it reaches the network.
    pub net: String,
    /// How it reads files.
    pub disk: String,
    /// What pages its buffers lie on.
    pub memory: String,
    /// Buffers in all.
    pub chunks: usize,
    /// Bytes of a buffer.
    pub chunk_bytes: usize,
    /// Things that an operator should know (fall-backs taken).
    pub notes: Vec<String>,
}

/// What a core's thread is made of; made on that thread, before it is pinned.
pub struct Parts<H, D> {
    /// The network.
    pub host: H,
    /// The disk.
    pub disk: D,
    /// The buffers.
    pub pool: ChunkPool,
    /// What the network is, in words.
    pub net: String,
    /// Things that an operator should know.
    pub notes: Vec<String>,
}

/// The command queue is full: the core is overloaded, or gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine core takes no commands at the moment")]
pub struct Overloaded;

/// The control core's handle of an engine core.
#[derive(Debug)]
pub struct CoreHandle<S, F> {
    commands: Sender<Command<S, F>>,
    events: Receiver<Event<F>>,
    wake: Arc<EventFd>,
    asleep: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    facts: CoreFacts,
}

impl<S, F> CoreHandle<S, F> {
    /// Queues a command, and wakes the core if it sleeps.
    ///
    /// # Errors
    /// [`Overloaded`]; the command is dropped.
    pub fn send(&self, command: Command<S, F>) -> Result<(), Overloaded> {
        self.commands.try_send(command).map_err(|_| Overloaded)?;
        // Pairs with the fence of the core: either it sees the command, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake.notify();
        }
        Ok(())
    }

    /// What the core tells. Must be read all the time.
    pub fn events(&self) -> &Receiver<Event<F>> {
        &self.events
    }

    /// What the core turned out to be.
    pub fn facts(&self) -> &CoreFacts {
        &self.facts
    }

    /// Has the thread ended?
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts an engine core that `wake` wakes. `make` runs on the new thread.
///
/// # Errors
/// What `make` answers, or that the thread could not be started.
pub fn spawn<H, D, C, M>(
    index: usize,
    config: ThreadConfig,
    wake: Arc<EventFd>,
    clock: C,
    make: M,
) -> Result<CoreHandle<H::Stream, D::File>, String>
where
    H: Host + 'static,
    D: Disk + 'static,
    C: Clock + Send + 'static,
    M: FnOnce(&C) -> Result<Parts<H, D>, String> + Send + 'static,
{
    let (commands, commands_rx) = bounded(config.commands_max.max(64));
    // Every command brings at most a reply and a box back, every session at most one end, every track one box, every transfer three.
    let events_max = 4 * config.commands_max + config.core.sessions_max as usize + config.core.tracks_max as usize + 64;
    let (events_tx, events) = bounded(events_max);
    let asleep = Arc::new(AtomicBool::new(false));
    let (facts_tx, facts_rx) = bounded(1);
    let (core_wake, core_asleep) = (Arc::clone(&wake), Arc::clone(&asleep));
    let body = move || {
        let parts = match make(&clock) {
            Ok(parts) => parts,
            Err(why) => {
                let _ = facts_tx.send(Err(why));
                return;
            }
        };
        // Pinned only now: threads that `make` started (disk readers) must not share this CPU.
        let cpu = config.cpu.filter(|&id| core_affinity::set_for_current(core_affinity::CoreId { id }));
        let mut facts = facts_of(&parts, cpu, config.cpu);
        if config.poll == Poll::Adaptive {
            // A refusal makes each sleep 50 us longer, nothing else.
            let _ = stack::kernel::set_timer_slack_min();
        }
        if config.realtime {
            facts.notes.extend(realtime::ask(config.poll == Poll::Busy));
        }
        let mut core = EngineCore::new(config.core, clock, parts.host, parts.disk, parts.pool, commands_rx, events_tx);
        if facts_tx.send(Ok(facts)).is_ok() {
            run(&mut core, config.poll, &core_wake, &core_asleep);
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("engine-{index}"))
        .spawn(body)
        .map_err(|e| format!("cannot start the thread of engine core {index}: {e}"))?;
    let facts = facts_rx.recv().map_err(|_| format!("engine core {index} ended while it started"))??;
    Ok(CoreHandle { commands, events, wake, asleep, thread, facts })
}

fn facts_of<H: Host, D: Disk>(parts: &Parts<H, D>, cpu: Option<usize>, wanted: Option<usize>) -> CoreFacts {
    let mut notes = parts.notes.clone();
    if let (None, Some(wanted)) = (cpu, wanted) {
        notes.push(format!("pinning to CPU {wanted} was refused; the kernel may move this engine core about"));
    }
    let port = |i: usize| parts.host.local_ports().get(i).copied().unwrap_or(0);
    CoreFacts {
        cpu,
        ports: (port(0), port(1)),
        net: parts.net.clone(),
        disk: parts.disk.describe().to_owned(),
        memory: parts.pool.backing().to_string(),
        chunks: parts.pool.capacity(),
        chunk_bytes: parts.pool.chunk_bytes(),
        notes,
    }
}

/// How long to sleep after `turn`, which began at `begin_ns` and is over at `now_ns`; 0 for not at all.
fn sleep_ns(turn: &Turn, begin_ns: u64, now_ns: u64) -> u64 {
    let period_ns = PERIOD_NS_MIN.saturating_add(turn.packets.saturating_mul(PERIOD_NS_PER_PACKET)).min(PERIOD_NS_MAX);
    let next_ns = turn.next_ns.unwrap_or(u64::MAX).max(begin_ns.saturating_add(period_ns));
    let sleep_ns = next_ns.saturating_sub(now_ns).min(IDLE_NS);
    if sleep_ns < SLEEP_NS_MIN { 0 } else { sleep_ns }
}

fn run<H: Host, D: Disk, C: Clock>(core: &mut EngineCore<H, D, C>, poll: Poll, wake: &EventFd, asleep: &AtomicBool) {
    loop {
        let begin_ns = core.clock().now_ns();
        let turn = core.turn();
        if turn.stopped {
            return;
        }
        if poll == Poll::Busy {
            std::hint::spin_loop();
            continue;
        }
        let sleep_ns = sleep_ns(&turn, begin_ns, core.clock().now_ns());
        if sleep_ns == 0 {
            continue;
        }
        asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !core.has_commands() {
            core.host_mut().wait(sleep_ns, wake.as_raw());
        }
        asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    fn after(packets: u64, next_ns: Option<u64>) -> Turn {
        Turn { worked: packets > 0, packets, next_ns, stopped: false }
    }

    #[test]
    fn turns_begin_a_period_apart_that_grows_with_the_packets() {
        // One packet, the next one due at once; a turn of 30 us.
        assert_eq!(sleep_ns(&after(1, Some(0)), 1_000 * US, 1_030 * US), 225 * US);
        assert_eq!(sleep_ns(&after(20, Some(0)), 1_000 * US, 1_030 * US), 320 * US);
        assert_eq!(sleep_ns(&after(100, Some(0)), 1_000 * US, 1_150 * US), 500 * US);
        // However many there are, the period is bounded, and a turn that lasted longer is followed by the next one at once.
        assert_eq!(sleep_ns(&after(u64::MAX, Some(0)), 1_000 * US, 1_590 * US), 60 * US);
        assert_eq!(sleep_ns(&after(400, Some(0)), 1_000 * US, 1_610 * US), 0);
        assert_eq!(sleep_ns(&after(400, Some(0)), 1_000 * US, 9_000 * US), 0);
    }

    #[test]
    fn a_later_deadline_is_slept_to() {
        assert_eq!(sleep_ns(&after(1, Some(7_000 * US)), 1_000 * US, 1_030 * US), 5_970 * US);
        assert_eq!(sleep_ns(&after(0, None), 1_000 * US, 1_030 * US), IDLE_NS);
        assert_eq!(sleep_ns(&after(0, Some(u64::MAX)), 1_000 * US, 1_030 * US), IDLE_NS);
    }
}
