//! The course of a run: clients begin (ramp), what could be set up is measured (steady), sessions end (stop).

use super::options::Options;
use super::runner::{LoadError, MS, Runner, SECOND};
use super::sockets::Pair;
use super::sys;
use super::totals::Totals;

/// Once all clients have begun, the slowest get this long until the steady part starts without them.
const STRAGGLERS_MAX_NS: u64 = 15 * SECOND;
/// For all TEARDOWNs at the end.
const STOP_MAX_NS: u64 = 5 * SECOND;
/// TEARDOWNs begun per turn of the loop at the end.
const LEAVES_PER_TURN: usize = 16;
/// Clients begun per turn of the loop.
const BEGINS_PER_TURN: usize = 32;
/// Between two calls of the watcher.
const WATCH_NS: u64 = 100 * MS;

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Phase {
    /// Clients begin.
    Ramp,
    /// All that could be set up is; this is measured.
    Steady,
    /// Sessions end.
    Stop,
}

/// How a run goes, for whoever watches it.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Where it is.
    pub phase: Phase,
    /// Since the start, ns.
    pub elapsed_ns: u64,
    /// Sessions begun.
    pub asked: u64,
    /// Sessions that play now.
    pub playing: u64,
    /// Sessions refused.
    pub refused: u64,
    /// Sessions failed or dropped.
    pub failed: u64,
    /// RTP packets so far.
    pub packets: u64,
    /// RTP bytes so far.
    pub bytes: u64,
    /// CPU time of the generator's thread so far.
    pub cpu_ns: u64,
}

/// What a run leaves.
#[derive(Debug)]
pub struct Outcomes {
    /// The sums.
    pub totals: Totals,
    /// How it stood when the steady part began and ended.
    pub steady: (Snapshot, Snapshot),
    /// From the first client's start until the last session played.
    pub ramp_ns: u64,
    /// Datagrams that this machine dropped at the generator's sockets.
    pub receiver_drops: u64,
    /// The watcher stopped it.
    pub stopped: bool,
    /// The generator ran before ordinary threads.
    pub preferred: bool,
}

/// What calls of the watcher, the phases and the clients still have before them.
struct Course<'w> {
    watch: &'w mut dyn FnMut(&Snapshot) -> bool,
    phase: Phase,
    start_ns: u64,
    /// When the steady or the stop phase ends.
    phase_end_ns: u64,
    /// When the ramp ends, whoever is still missing.
    ramp_limit_ns: u64,
    watch_at_ns: u64,
    second_at_ns: u64,
    begun: usize,
    left: usize,
    steady: Option<Snapshot>,
    steady_end: Option<Snapshot>,
    ramp_ns: u64,
    stopped: bool,
}

/// Makes a run. `watch` is called about ten times a second and whenever the phase changes; it stops the run by answering false.
///
/// # Errors
/// The run cannot begin, or the kernel refuses something that it depends on. What servers do wrong is counted instead.
pub fn run(options: &Options, watch: &mut dyn FnMut(&Snapshot) -> bool) -> Result<Outcomes, LoadError> {
    let preferred = (!options.ordinary).then(sys::Preferred::new);
    let _pinned = options.cpu.map(sys::Pinned::to).transpose().map_err(|e| LoadError::System("pin to the core", e))?;
    let mut runner = Runner::new(options)?;
    let start_ns = sys::monotonic_ns();
    let mut course = Course {
        watch,
        phase: Phase::Ramp,
        start_ns,
        phase_end_ns: 0,
        ramp_limit_ns: start_ns + (options.clients as f64 / options.ramp * 1e9) as u64 + STRAGGLERS_MAX_NS,
        watch_at_ns: 0,
        second_at_ns: start_ns + SECOND,
        begun: 0,
        left: 0,
        steady: None,
        steady_end: None,
        ramp_ns: 0,
        stopped: false,
    };
    while !course.turn(&mut runner)? {}
    let now = sys::monotonic_ns();
    runner.close_all(now);
    let last = course.snapshot(&runner, now);
    let steady_end = course.steady_end.unwrap_or(last);
    Ok(Outcomes {
        steady: (course.steady.unwrap_or(steady_end), steady_end),
        ramp_ns: course.ramp_ns,
        receiver_drops: runner.shared.iter().map(Pair::drops).sum(),
        stopped: course.stopped,
        preferred: preferred.is_some_and(|p| p.granted()),
        totals: runner.totals,
    })
}

impl Course<'_> {
    /// One turn of the loop; true when the run is over.
    fn turn(&mut self, runner: &mut Runner<'_>) -> Result<bool, LoadError> {
        if self.phase == Phase::Ramp {
            self.begin_due(runner);
        }
        runner.turn()?;
        let now = sys::monotonic_ns();
        if now >= self.second_at_ns && !runner.stopping {
            self.second_at_ns += SECOND;
            runner.note_starving(now);
        }
        let over = self.advance(runner, now);
        if now >= self.watch_at_ns {
            self.watch_at_ns = now + WATCH_NS;
            self.tell(runner, now);
        }
        if self.stopped && self.phase != Phase::Stop {
            runner.totals.judge.steady_ns.1 = now;
            self.stop(runner, now);
        }
        Ok(over)
    }

    fn begin_due(&mut self, runner: &mut Runner<'_>) {
        let elapsed_s = (sys::monotonic_ns() - self.start_ns) as f64 / 1e9;
        let due = ((elapsed_s * runner.options.ramp) as usize + 1).min(runner.clients()).min(self.begun + BEGINS_PER_TURN);
        while self.begun < due {
            runner.begin(self.begun, true);
            self.begun += 1;
        }
    }

    /// Goes to the next phase when it is time; true at the end of the last.
    fn advance(&mut self, runner: &mut Runner<'_>, now: u64) -> bool {
        match self.phase {
            Phase::Ramp => {
                let complete = self.begun == runner.clients() && runner.unsettled == 0;
                if complete || now >= self.ramp_limit_ns {
                    self.phase = Phase::Steady;
                    self.ramp_ns = now - self.start_ns;
                    self.phase_end_ns = now + (runner.options.duration * 1e9) as u64;
                    runner.totals.judge.steady_ns = (now, self.phase_end_ns);
                    self.steady = Some(self.tell(runner, now));
                }
            }
            Phase::Steady if now >= self.phase_end_ns => {
                self.steady_end = Some(self.snapshot(runner, now));
                self.stop(runner, now);
            }
            Phase::Steady => {}
            Phase::Stop => {
                let until = (self.left + LEAVES_PER_TURN).min(runner.clients());
                (self.left..until).for_each(|n| runner.leave(n, now));
                self.left = until;
                return (self.left == runner.clients() && runner.all_idle()) || now >= self.phase_end_ns;
            }
        }
        false
    }

    fn stop(&mut self, runner: &mut Runner<'_>, now: u64) {
        self.phase = Phase::Stop;
        self.phase_end_ns = now + STOP_MAX_NS;
        runner.stopping = true;
        self.tell(runner, now);
    }

    fn tell(&mut self, runner: &Runner<'_>, now: u64) -> Snapshot {
        let snapshot = self.snapshot(runner, now);
        self.stopped |= !(self.watch)(&snapshot);
        snapshot
    }

    fn snapshot(&self, runner: &Runner<'_>, now: u64) -> Snapshot {
        let totals = &runner.totals;
        Snapshot {
            phase: self.phase,
            elapsed_ns: now - self.start_ns,
            asked: totals.asked,
            playing: runner.playing,
            refused: totals.refused_all(),
            failed: totals.failed_all() + totals.dropped,
            packets: totals.packets,
            bytes: totals.bytes,
            cpu_ns: sys::thread_cpu_ns(),
        }
    }
}
