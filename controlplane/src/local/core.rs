//! One engine core as the control core sees it: its handle, what is reserved on it, and who waits for its answers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataplane::disks::MediaFile;
use dataplane::engine::local::{LocalCore, LocalCoreConfig, Told, start};
use dataplane::engine::net::{ByteStream, SocketControl};
use dataplane::engine::own::Seat;
use dataplane::engine::{Command, CoreFacts, Event, Refusal, Reply};
use dataplane::gdsl::Outcome;
use dataplane::ingest::Described;
use pacing::cpu::{Cost, CpuBudget, Work};
use tokio::sync::oneshot;

use super::buffers::{Buffers, Share};
use super::disks::DiskShare;
use super::transfers::Told as OfTransfer;
use crate::engine::EngineError;

/// An engine core answers within this time, or the request fails.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Buffers that are never reserved: reads of sessions that are gone may still be under way.
const CHUNK_SLACK: usize = 32;

/// How often a command that must not get lost is offered again.
const INSIST_EVERY: Duration = Duration::from_millis(20);

pub(super) type Order = Command<ByteStream, MediaFile>;

/// What an engine core tells without being asked.
#[derive(Debug)]
pub(super) enum Notice {
    Finished { session: u64, outcome: Outcome },
    StreamClosed { token: u64 },
    ChannelDescribed { channel: u64, described: Box<Described> },
    ChannelLost { channel: u64, why: &'static str },
    Transfer { transfer: u64, told: OfTransfer },
}

/// An answer that is to come.
pub(super) struct Answer {
    id: u64,
    rx: oneshot::Receiver<Reply>,
}

pub(super) struct Core {
    pub(super) index: usize,
    handle: LocalCore,
    next_reply: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    pub(super) sessions: AtomicU32,
    sessions_max: u32,
    buffers: Mutex<Buffers>,
    cpu: Mutex<CpuBudget>,
}

/// A session's share of an engine core; given back when dropped.
pub(super) struct Reservation {
    pub(super) core: Arc<Core>,
    share: Share,
    pub(super) work: Work,
    /// Of the disk, for guaranteed sessions.
    _disk: Option<DiskShare>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.core.sessions.fetch_sub(1, Ordering::AcqRel);
        self.core.buffers().release(self.share);
        self.core.cpu().release(self.work);
    }
}

impl Core {
    pub(super) fn start(
        index: usize,
        config: LocalCoreConfig,
        seat: Option<Seat>,
        cpu_share_permille: u64,
        told: Told,
    ) -> Result<(Self, Option<SocketControl>), String> {
        let sessions_max = config.sessions_max;
        let (handle, sockets) = start(index, config, seat, told)?;
        let chunks_max = handle.facts().chunks.saturating_sub(CHUNK_SLACK);
        let core = Self {
            index,
            next_reply: AtomicU64::new(1),
            waiting: Mutex::new(HashMap::new()),
            sessions: AtomicU32::new(0),
            sessions_max,
            buffers: Mutex::new(Buffers::new(chunks_max)),
            cpu: Mutex::new(CpuBudget::new(cpu_share_permille)),
            handle,
        };
        Ok((core, sockets))
    }

    pub(super) fn facts(&self) -> &CoreFacts {
        self.handle.facts()
    }

    /// Reserves a session's place, its share of the buffers, and time for its guaranteed work (none for a best-effort one); `disk` is its
    /// share of the disk.
    pub(super) fn reserve(self: &Arc<Self>, share: Share, work: Work, disk: Option<DiskShare>) -> Result<Reservation, EngineError> {
        let take = |n: u32| (n < self.sessions_max).then_some(n + 1);
        if self.sessions.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            return Err(EngineError::Capacity(format!("{} sessions are the limit (--max-sessions)", self.sessions_max)));
        }
        let reserved = self.buffers().reserve(share);
        if let Err(missing) = reserved {
            self.sessions.fetch_sub(1, Ordering::AcqRel);
            let needed = share.chunks;
            return Err(EngineError::Capacity(format!("no buffers for {needed} more blocks of read-ahead, {missing} too few (--memory)")));
        }
        let reserved = self.cpu().reserve(work);
        if let Err(refused) = reserved {
            self.sessions.fetch_sub(1, Ordering::AcqRel);
            self.buffers().release(share);
            return Err(EngineError::Capacity(format!("{refused} (--cpu-share)")));
        }
        Ok(Reservation { core: Arc::clone(self), share, work, _disk: disk })
    }

    /// Reserves `chunks` buffers for what is no session.
    pub(super) fn take_chunks(&self, chunks: usize) -> Result<(), EngineError> {
        let taken = self.buffers().take(chunks);
        taken.map_err(|missing| EngineError::Capacity(format!("no buffers for {chunks} more blocks, {missing} too few (--memory)")))
    }

    /// Gives back what [`Self::take_chunks`] has reserved.
    pub(super) fn give_chunks_back(&self, chunks: usize) {
        self.buffers().give_back(chunks);
    }

    /// Corrects what work is reckoned with by what it costs.
    pub(super) fn observe(&self, cost: Cost) {
        self.cpu().set_cost(cost);
    }

    /// Of the core's time, what is promised, 0 to 1.
    pub(super) fn promised(&self) -> f64 {
        self.cpu().promised_permille() as f64 / 1000.0
    }

    /// Buffers that are promised.
    pub(super) fn chunks_reserved(&self) -> usize {
        self.buffers().reserved()
    }

    fn buffers(&self) -> std::sync::MutexGuard<'_, Buffers> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cpu(&self) -> std::sync::MutexGuard<'_, CpuBudget> {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a command that has no answer.
    pub(super) fn tell(&self, order: Order) -> Result<(), EngineError> {
        self.handle.send(order).map_err(|e| EngineError::Unavailable(e.to_string()))
    }

    /// Sends a command and waits for its answer.
    pub(super) async fn ask(&self, order: impl FnOnce(u64) -> Order + Send) -> Result<Reply, EngineError> {
        let answer = self.send(order)?;
        self.answer(answer).await
    }

    /// Sends a command whose answer is to be waited for by [`Self::answer`]. Commands are carried out in the order of these calls.
    pub(super) fn send(&self, order: impl FnOnce(u64) -> Order) -> Result<Answer, EngineError> {
        let id = self.next_reply.fetch_add(1, Ordering::Relaxed);
        let (tx, rx) = oneshot::channel();
        self.waiting().insert(id, tx);
        if let Err(error) = self.tell(order(id)) {
            self.waiting().remove(&id);
            return Err(error);
        }
        Ok(Answer { id, rx })
    }

    /// Sends a command that must not get lost: when the engine core takes none at the moment it is sent later. `kept` is dropped once the
    /// command is on its way. Its answer goes to nobody: reply numbers start at 1.
    pub(super) fn insist<K: Send + 'static>(self: &Arc<Self>, order: impl Fn(u64) -> Order + Send + 'static, kept: K) {
        if self.tell(order(0)).is_ok() {
            return;
        }
        let core = Arc::clone(self);
        let later = async move {
            while core.tell(order(0)).is_err() && !core.is_finished() {
                tokio::time::sleep(INSIST_EVERY).await;
            }
            drop(kept);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(later)),
            Err(_) => tracing::error!(core = self.index, "engine core overloaded: what it was to free stays in use"),
        }
    }

    pub(super) async fn answer(&self, Answer { id, rx }: Answer) -> Result<Reply, EngineError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, rx).await {
            Ok(Ok(Reply::Refused(refusal))) => Err(error_of(refusal)),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(EngineError::Unavailable("the engine core ended".into())),
            Err(_) => {
                self.waiting().remove(&id);
                Err(EngineError::Unavailable(format!("engine core {} did not answer in {ANSWER_TIMEOUT:?}", self.index)))
            }
        }
    }

    /// Reads the core's events until it ends; runs on a thread of its own. What it hands back is freed here.
    pub(super) fn read_events(&self, notice: impl Fn(Notice)) {
        for event in self.handle.events() {
            match event {
                Event::Reply { id, reply } => {
                    let waiting = self.waiting().remove(&id);
                    if let Some(waiting) = waiting {
                        let _ = waiting.send(reply);
                    }
                }
                Event::Finished { session, outcome } => notice(Notice::Finished { session, outcome }),
                Event::StreamClosed { token } => notice(Notice::StreamClosed { token }),
                Event::ChannelLost { channel, why } => notice(Notice::ChannelLost { channel, why }),
                Event::ChannelDescribed { channel, described } => notice(Notice::ChannelDescribed { channel, described }),
                Event::TransferOver { transfer, report } => notice(Notice::Transfer { transfer, told: OfTransfer::Over(report) }),
                Event::TransferGone { transfer } => notice(Notice::Transfer { transfer, told: OfTransfer::Gone }),
                Event::Discard(_) | Event::DiscardAll(_) | Event::DiscardSetup(_) | Event::DiscardPlan(_) => {}
                Event::DiscardChannel(_) | Event::DiscardIngest(_) | Event::DiscardReport(_) => {}
                Event::Stopped => break,
            }
        }
        // Whoever still waits is told by the drop of its sender.
        self.waiting().clear();
    }

    pub(super) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Reply>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn error_of(refusal: Refusal) -> EngineError {
    match refusal {
        Refusal::NoSession | Refusal::NoStream | Refusal::NoTransfer => EngineError::NoSession,
        Refusal::Full => EngineError::Capacity(refusal.to_string()),
        Refusal::Listen | Refusal::Family | Refusal::Device | Refusal::CannotListen => EngineError::Unavailable(refusal.to_string()),
        Refusal::NoChannel => EngineError::NotFound(refusal.to_string()),
        Refusal::NoKeyFrame => EngineError::Unavailable(refusal.to_string()),
        Refusal::State => EngineError::State(refusal.to_string()),
        Refusal::Unreachable => EngineError::State(refusal.to_string()),
    }
}
