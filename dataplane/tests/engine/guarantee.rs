//! What is guaranteed, under random loads from a seed: thousands of short runs over disks that seek, queue, slow down and fail.
//!
//! In each world guaranteed sessions are admitted by the disk's budget until it is full, beside best-effort ones that want more than the
//! disk has; in every third world a file is copied on the same disk. In some, sessions play from another disk that slows down, fails or
//! goes away. While the promise holds: no guaranteed packet is later than a period, every byte arrives, best-effort reads get the rest of
//! the disk's time, memory stays within what was reserved, every buffer comes back, and equal seeds give equal traces. What happens to the
//! other disk nobody notices but its own sessions.

use std::hash::Hasher;

use dataplane::disks::sim::{SimDiskConfig, SimFile, SlowPeriods};
use dataplane::disks::{CyclicConfig, Disk};
use dataplane::gdsl::Class;
use dataplane::transfer::import::IMPORT_CHUNKS;
use pacing::disk::{DiskBudget, Reads};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::stage::{CHUNK_BYTES, Config, Film, MS, SECOND, Stage, client, udp};

/// The origin's period (SYSTEMS 1.3).
const PERIOD_NS: u64 = 8 * MS;
const READ_AHEAD_NS: u64 = SECOND;
const SHARE_PERMILLE: u64 = 800;
const GUARANTEED_MAX: u64 = 8;
const WORLDS: u64 = 2_000;

/// The disk beside the one that gives guarantees.
const OTHER: u64 = 1;
const OTHER_SESSIONS: std::ops::Range<u64> = 60..62;

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Slow,
    StandsStill,
    Fails,
    IsGone,
}

struct World {
    rng: StdRng,
    trouble: Option<Trouble>,
    stage: Stage,
    disk: SimDiskConfig,
    /// Once everybody has read ahead.
    errors_per_million: u32,
    read_ns: u64,
    budget: DiskBudget,
    guaranteed: Vec<(u64, Film)>,
    best_effort: Vec<(u64, Film)>,
    /// Source and copy.
    import: Option<(SimFile, SimFile)>,
    buffers: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let lanes = rng.random_range(1..=4);
        // Some hundred reads a second, however many go on side by side.
        let seek_min_ns = rng.random_range(1_500_000..4 * MS) * lanes as u64;
        let seek_max_ns = seek_min_ns + rng.random_range(0..2 * MS) * lanes as u64;
        // Slow for less than what is read ahead, and not more often than the promised share leaves time for.
        let slow = rng.random_bool(0.3).then(|| SlowPeriods { every_ns: 2 * SECOND, for_ns: rng.random_range(10..60) * MS, factor: 3 });
        let errors_per_million = if rng.random_bool(0.3) { 2_000 } else { 0 };
        let bytes_per_s = rng.random_range(10..200) * 1_000_000;
        let disk = SimDiskConfig {
            seed,
            depth: 128,
            lanes,
            seek_min_ns,
            seek_max_ns,
            seek_always: true,
            bytes_per_s,
            slow,
            ..SimDiskConfig::default()
        };
        let troubles = [Trouble::Slow, Trouble::StandsStill, Trouble::Fails, Trouble::IsGone];
        let trouble = rng.random_bool(0.3).then(|| troubles[rng.random_range(0..troubles.len())]);
        let chunks = if trouble.is_some() { 900 } else { 700 };
        let mut config = Config { disk: disk.clone(), chunks, ..Config::default() };
        config.core.disk = CyclicConfig::for_read_ahead(READ_AHEAD_NS, rng.random_range(4..=32));
        let transfer_ns = CHUNK_BYTES as u64 * SECOND / bytes_per_s;
        let read_ns = ((seek_min_ns + seek_max_ns) / 2 + transfer_ns) / lanes as u64;
        let budget = DiskBudget::new(config.core.disk.cycle_ns, SHARE_PERMILLE, read_ns);
        let mut stage = Stage::new(config);
        stage.quantum_ns = MS / 2;
        Self {
            errors_per_million,
            rng,
            trouble,
            stage,
            disk,
            read_ns,
            budget,
            guaranteed: Vec::new(),
            best_effort: Vec::new(),
            import: None,
            buffers: 0,
        }
    }

    fn film(&mut self, id: u64, class: Class) -> Film {
        let bytes = match class {
            Class::Guaranteed => self.rng.random_range(1_000..9_000),
            // Half as much again as the whole disk gives.
            Class::BestEffort => (CHUNK_BYTES as u64 * SECOND / self.read_ns * 3 / 2 / 25) as u32,
        };
        let mut film = Film::plain(id, 5, bytes);
        let window_ns = READ_AHEAD_NS + SECOND;
        film.link_blocks = match class {
            Class::Guaranteed => film.title.resident_blocks_max(CHUNK_BYTES as u64, window_ns) as usize + 3,
            Class::BestEffort => 64,
        };
        film.read_ahead_ns = READ_AHEAD_NS;
        film.class = class;
        film
    }

    fn play(&mut self, session: u64, film: &Film) {
        for track in 0..film.title.tracks.len() {
            let random = (self.rng.random(), self.rng.random(), self.rng.random(), self.rng.random());
            let setup = film.setup_from(track, udp(session, track), random);
            self.stage.ask(|reply| dataplane::engine::Command::SetupTrack { reply, session, setup });
        }
        let plan = film.plan(0);
        self.stage.start(session, Some(plan));
        self.stage.run(session);
        self.buffers += film.link_blocks * film.title.tracks.len();
    }

    /// Guaranteed sessions while the disk has time to promise.
    fn admit(&mut self, session: u64) {
        let film = self.film(session, Class::Guaranteed);
        let window_ns = READ_AHEAD_NS + SECOND;
        let reads = Reads::of(film.title.resident_blocks_max(CHUNK_BYTES as u64, window_ns), window_ns, self.budget.cycle_ns());
        if self.budget.reserve(reads).is_ok() {
            self.play(session, &film);
            self.guaranteed.push((session, film));
        }
    }

    /// Sessions that play from the other disk, which is good for now.
    fn play_from_the_other(&mut self) {
        self.stage.core.disk_mut().set_device(OTHER, SimDiskConfig::default());
        for session in OTHER_SESSIONS {
            let mut film = self.film(session, Class::Guaranteed);
            film.file = film.file.on_device(OTHER);
            self.play(session, &film);
        }
    }

    /// It is good no more.
    fn strike(&mut self, trouble: Trouble) {
        let standstill_ns = 2 * SECOND;
        let worse = match trouble {
            Trouble::Slow => SimDiskConfig { lanes: 1, seek_min_ns: 60 * MS, seek_max_ns: 90 * MS, ..SimDiskConfig::default() },
            Trouble::StandsStill => SimDiskConfig { seek_min_ns: standstill_ns, seek_max_ns: standstill_ns, ..SimDiskConfig::default() },
            Trouble::Fails => SimDiskConfig { errors_per_million: 700_000, ..SimDiskConfig::default() },
            Trouble::IsGone => return self.stage.core.disk_mut().take_away(OTHER),
        };
        self.stage.core.disk_mut().set_device(OTHER, SimDiskConfig { seek_always: true, ..worse });
    }

    /// Its sessions end; what it was given comes back, whatever happened to it.
    fn leave_the_other(&mut self) -> Result<(), String> {
        let stranger = self.stage.finished.iter().find(|(session, _)| !OTHER_SESSIONS.contains(session));
        if let Some(stranger) = stranger {
            return Err(format!("{stranger:?}, because of another disk"));
        }
        for session in OTHER_SESSIONS {
            self.stage.destroy(session);
        }
        Ok(())
    }

    /// More than can be copied before the world ends.
    fn begin_import(&mut self) {
        let (from, to) = (SimFile::pattern(200, 1 << 30), SimFile::writable(201, 1 << 30));
        self.stage.import(1, &from, &to, 1 << 30);
        self.import = Some((from, to));
        self.buffers += IMPORT_CHUNKS;
    }

    /// Disk time spent on the files of these sessions.
    fn busy_ns(&self, sessions: &[(u64, Film)]) -> u64 {
        sessions.iter().map(|(_, film)| self.stage.core.disk().busy_ns(film.file.id())).sum()
    }

    /// Disk time spent so far on all files.
    fn worked_ns(&self) -> u64 {
        let copied = self.import.iter().flat_map(|(from, to)| [from.id(), to.id()]).map(|id| self.stage.core.disk().busy_ns(id));
        let given = self.busy_ns(&self.guaranteed) + self.busy_ns(&self.best_effort) + copied.sum::<u64>();
        given - self.stage.core.disk().ahead_ns(0, self.stage.now())
    }

    fn run(mut self) -> Result<u64, String> {
        if self.trouble.is_some() {
            self.play_from_the_other();
        }
        for session in 1..=GUARANTEED_MAX {
            self.admit(session);
            if session == 3 {
                let greedy = self.film(100, Class::BestEffort);
                self.play(100, &greedy);
                self.best_effort.push((100, greedy));
            }
            if session == 4 && self.disk.seed.is_multiple_of(3) {
                self.begin_import();
            }
            let pause = self.rng.random_range(0..40) * MS;
            self.stage.run_for(pause);
        }
        // Until all have read ahead.
        self.stage.run_for(5 * SECOND / 4);
        let failing = SimDiskConfig { errors_per_million: self.errors_per_million, ..self.disk.clone() };
        self.stage.core.disk_mut().set_device(0, failing);
        if let Some(trouble) = self.trouble {
            self.strike(trouble);
        }
        let (from_ns, guaranteed, worked) = (self.stage.now(), self.busy_ns(&self.guaranteed), self.worked_ns());
        self.stage.run_for(SECOND);
        let lanes_ns = (self.stage.now() - from_ns) * self.disk.lanes as u64;
        let guaranteed_ns = self.busy_ns(&self.guaranteed) - guaranteed;
        let best_effort_ns = (self.worked_ns() - worked).saturating_sub(guaranteed_ns);
        let rest_ns = lanes_ns.saturating_sub(guaranteed_ns);
        if best_effort_ns < rest_ns * 95 / 100 {
            return Err(format!("best-effort reads got {best_effort_ns} ns of the {rest_ns} ns of disk time that were left"));
        }
        let used = self.stage.core.pool().capacity() - self.stage.core.pool().free();
        if used > self.buffers + 128 {
            return Err(format!("{used} buffers are in use, {} were reserved", self.buffers));
        }
        if self.trouble.is_some() {
            self.leave_the_other()?;
        }
        self.check_and_end()
    }

    fn check_and_end(mut self) -> Result<u64, String> {
        for (session, film) in std::mem::take(&mut self.guaranteed) {
            let late_us = self.stage.status(session).lateness.snapshot().max_us;
            if late_us > PERIOD_NS / 1000 {
                return Err(format!("a packet of guaranteed session {session} was {late_us} us late"));
            }
            for track in 0..film.title.tracks.len() {
                let got = self.stage.payload_to(client(session, track));
                if got.is_empty() || film.bytes_up_to(track, got.len()) != got {
                    return Err(format!("session {session}, track {track}: {} bytes that are not the film's", got.len()));
                }
            }
            self.stage.destroy(session);
        }
        for (session, film) in std::mem::take(&mut self.best_effort) {
            let got = self.stage.payload_to(client(session, 0));
            if self.stage.status(session).tracks[0].sent.skips == 0 && film.bytes_up_to(0, got.len()) != got {
                return Err(format!("best-effort session {session} lost something"));
            }
            self.stage.destroy(session);
        }
        if let Some((from, to)) = self.import.take() {
            let copied = to.written().unwrap_or_default();
            let mut expected = vec![0; copied.len()];
            from.fill(0, &mut expected);
            // Blocks that are still on their way, or failed and are tried again, are holes so far.
            let missing = copied.chunks(CHUNK_BYTES).zip(expected.chunks(CHUNK_BYTES)).filter(|(a, b)| a != b).count();
            if missing > 8 || !self.stage.over.is_empty() {
                return Err(format!("{} bytes were copied, {missing} blocks are missing, over: {:?}", copied.len(), self.stage.over));
            }
            self.stage.stop_transfer(1);
            self.stage.run_for(SECOND / 2);
            if self.stage.gone != [1] {
                return Err("the import is not gone".into());
            }
        }
        self.stage.run_for(SECOND / 4);
        // A disk in trouble answers at some time, one read after another.
        let patience = if self.trouble.is_some() { 64 } else { 0 };
        for _ in 0..patience {
            if self.stage.core.disk().in_flight() == 0 {
                break;
            }
            self.stage.run_for(SECOND);
        }
        let (free, all) = (self.stage.core.chunks_free(), self.stage.core.pool().capacity());
        if free != all {
            return Err(format!("{} buffers did not come back", all - free));
        }
        let mut trace = xxhash_rust::xxh3::Xxh3::new();
        for sent in &self.stage.sent {
            trace.write_u64(sent.at_ns);
            trace.write(&sent.bytes);
        }
        Ok(trace.finish())
    }
}

fn must(seed: u64) -> u64 {
    World::new(seed).run().unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}\n(run again with TACTUS_SIM_SEED={seed})"))
}

#[test]
fn what_is_promised_is_kept_in_thousands_of_worlds() {
    if let Some(seed) = std::env::var("TACTUS_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        must(seed);
        return;
    }
    // Each half on a core of its own.
    std::thread::scope(|scope| {
        let halves = [0, 1].map(|half| scope.spawn(move || (0..WORLDS).filter(|seed| seed % 2 == half).map(must).collect::<Vec<_>>()));
        let traces: usize = halves.into_iter().map(|half| half.join().expect("a world went wrong, see above").len()).sum();
        assert_eq!(traces as u64, WORLDS);
    });
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [3, 77, 1234] {
        assert_eq!(must(seed), must(seed));
    }
    assert_ne!(must(3), must(77));
}

#[test]
fn a_disk_that_stands_still_holds_up_nobody_on_another() {
    let mut config = Config { chunks: 1200, ..Config::default() };
    config.disk = SimDiskConfig { depth: 128, ..config.disk };
    let mut stage = Stage::new(config);
    let films: Vec<Film> = (1..=6)
        .map(|id| {
            let mut film = Film::plain(id, 5, 6_000);
            film.file = film.file.clone().on_device(id % 2);
            film
        })
        .collect();
    let standstill = SimDiskConfig { lanes: 1, seek_min_ns: 20 * SECOND, seek_max_ns: 20 * SECOND, ..SimDiskConfig::default() };
    stage.core.disk_mut().set_device(1, standstill);
    for film in &films {
        stage.play(film.file.id(), film);
    }
    stage.run_for(8 * SECOND);
    for film in films.iter().filter(|film| film.file.id() % 2 == 0) {
        let session = film.file.id();
        assert!(stage.status(session).lateness.snapshot().max_us < 5_000);
        assert!(stage.payload_to(client(session, 0)) == film.bytes(0));
    }
    assert!(films.iter().filter(|film| film.file.id() % 2 == 1).all(|film| stage.rtp_to(client(film.file.id(), 0)).is_empty()));
}

#[test]
fn sessions_end_when_their_disk_is_gone_and_go_on_behind_what_it_cannot_read() {
    let mut config = Config { chunks: 1200, ..Config::default() };
    config.disk = SimDiskConfig { seed: 5, bad_per_million: 30_000, ..config.disk };
    let mut stage = Stage::new(config);
    let mut other = Film::plain(2, 6, 6_000);
    other.file = other.file.clone().on_device(1);
    let scratched = Film::plain(1, 6, 6_000);
    stage.core.disk_mut().set_device(1, SimDiskConfig::default());
    stage.play(1, &scratched);
    stage.play(2, &other);
    stage.run_for(2 * SECOND);
    stage.core.disk_mut().take_away(1);
    stage.run_for(8 * SECOND);
    let mut finished = stage.finished.clone();
    finished.sort_by_key(|end| end.0);
    use dataplane::gdsl::Outcome;
    assert_eq!(finished, [(1, Outcome::Ended), (2, Outcome::Failed("the file or its disk is gone"))]);
    let skips: u64 = stage.status(1).tracks.iter().map(|track| track.sent.skips).sum();
    assert!(skips >= 2, "{skips}");
    assert!(stage.status(1).lateness.snapshot().max_us < 20_000, "{:?}", stage.status(1).lateness.snapshot());
    stage.destroy(1);
    stage.destroy(2);
    stage.assert_empty();
}
