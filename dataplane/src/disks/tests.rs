//! One set of expectations for all disks: what is read equals what the files hold, and every chunk comes back.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use hugepages::{Arena, ChunkPool};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

mod writes;

const CHUNK_BYTES: usize = 64 << 10;
/// No machine is this slow; a test that waits longer has found a lost read.
const PATIENCE: Duration = Duration::from_secs(60);

fn pool(chunks: usize) -> ChunkPool {
    ChunkPool::new(Arena::new(chunks * CHUNK_BYTES).unwrap(), CHUNK_BYTES)
}

/// A disk for tests, `None` (with a word) where io_uring is forbidden.
fn uring(pool: &ChunkPool, depth: u16) -> Option<UringDisk> {
    UringDisk::new(pool, depth).inspect_err(|e| eprintln!("skipped: io_uring does not open here: {e}")).ok()
}

fn random_bytes(len: usize, random: &mut StdRng) -> Vec<u8> {
    (0..len).map(|_| random.random()).collect()
}

/// Real files of awkward sizes in `folder`, with what they hold.
fn real_files(folder: &Path, random: &mut StdRng) -> Vec<(MediaFile, Vec<u8>)> {
    [0, 1, 511, 512, 4095, 4096, 4097, CHUNK_BYTES, 1_000_000, 3 << 20]
        .into_iter()
        .map(|size| {
            let path = folder.join(size.to_string());
            let bytes = random_bytes(size, random);
            std::fs::write(&path, &bytes).unwrap();
            (MediaFile::open(&path).unwrap(), bytes)
        })
        .collect()
}

/// Random reads in random batches, all checked. `wait` lets time pass and says what time it is.
fn conform<D: Disk>(
    disk: &mut D,
    depth: usize,
    pool: &ChunkPool,
    files: &[(D::File, Vec<u8>)],
    seed: u64,
    mut wait: impl FnMut(&D) -> u64,
) {
    const READS: u64 = 600;
    println!("{}, seed {seed}", disk.describe());
    let mut random = StdRng::seed_from_u64(seed);
    let mut batch = VecDeque::new();
    let mut expected = HashMap::new();
    let mut done = Vec::with_capacity(7);
    let (mut tag, mut bytes_in_all) = (0, 0);
    let mut now_ns = 0;
    let deadline = Instant::now() + PATIENCE;
    while tag < READS || !expected.is_empty() {
        assert!(Instant::now() < deadline, "{} reads have not come back", expected.len());
        for _ in 0..random.random_range(0..2 * depth) {
            let Some(chunk) = pool.take().filter(|_| tag < READS) else { break };
            let (file, content) = &files[random.random_range(0..files.len())];
            let pages = content.len() as u64 / READ_ALIGN_BYTES + 2;
            let offset = random.random_range(0..pages) * READ_ALIGN_BYTES;
            let len = random.random_range(0..=CHUNK_BYTES / READ_ALIGN_BYTES as usize) * READ_ALIGN_BYTES as usize;
            let start = content.len().min(offset as usize);
            let content = &content[start..content.len().min(start + len)];
            expected.insert(tag, (chunk.index(), content));
            bytes_in_all += content.len() as u64;
            batch.push_back(ReadRequest { tag, file: file.clone(), offset, len, chunk });
            tag += 1;
        }
        let waiting = batch.len();
        let before = disk.in_flight();
        disk.submit(now_ns, &mut batch);
        assert!(disk.in_flight() <= depth);
        assert_eq!(disk.in_flight() - before, waiting - batch.len());
        assert!(batch.is_empty() || disk.in_flight() == depth, "requests left although there is room");

        now_ns = wait(disk);
        done.reserve_exact(random.random_range(1..7));
        let room = done.capacity();
        disk.reap(now_ns, &mut done);
        assert_eq!(done.capacity(), room, "more than there is room for");
        for ReadDone { tag, chunk, result } in done.drain(..) {
            let (index, content) = expected.remove(&tag).expect("a tag that is under way");
            assert_eq!(chunk.index(), index);
            assert_eq!(result, Ok(content.len()), "read {tag}");
            assert!(chunk[..content.len()] == *content, "read {tag}: wrong bytes");
        }
        assert_eq!(disk.in_flight() + batch.len(), expected.len());
    }
    assert_eq!(pool.free(), pool.capacity(), "a chunk is missing");
    assert_eq!(disk.counters(), DiskCounters { reads: READS, bytes: bytes_in_all, ..DiskCounters::default() });
}

fn real_wait<D>(_: &D) -> u64 {
    std::thread::yield_now();
    0
}

/// One read, waited for.
fn read<D: Disk>(disk: &mut D, file: &D::File, offset: u64, len: usize, chunk: Chunk) -> ReadDone {
    let mut batch = VecDeque::from([ReadRequest { tag: 9, file: file.clone(), offset, len, chunk }]);
    let mut done = Vec::with_capacity(1);
    let deadline = Instant::now() + PATIENCE;
    while done.is_empty() {
        assert!(Instant::now() < deadline, "the read has not come back");
        disk.submit(0, &mut batch);
        disk.reap(u64::MAX, &mut done);
        std::thread::yield_now();
    }
    done.remove(0)
}

fn wait_for_all_chunks(pool: &ChunkPool) {
    let deadline = Instant::now() + PATIENCE;
    while pool.free() < pool.capacity() {
        assert!(Instant::now() < deadline, "{pool:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn io_uring_conforms() {
    let pool = pool(40);
    let seed = rand::random();
    let files = real_files(tempfile::tempdir().unwrap().path(), &mut StdRng::seed_from_u64(seed));
    for depth in [1, 3, 32] {
        let Some(mut disk) = uring(&pool, depth) else { return };
        conform(&mut disk, depth.into(), &pool, &files, seed, real_wait);
    }
}

#[test]
fn io_uring_conforms_with_memory_that_is_not_registered() {
    let (registered, pool) = (pool(1), pool(40));
    let seed = rand::random();
    let files = real_files(tempfile::tempdir().unwrap().path(), &mut StdRng::seed_from_u64(seed));
    let Some(mut disk) = uring(&registered, 8) else { return };
    conform(&mut disk, 8, &pool, &files, seed, real_wait);
}

#[test]
fn io_uring_conforms_when_o_direct_is_refused() {
    let pool = pool(40);
    let seed = rand::random();
    let files = real_files(tempfile::tempdir().unwrap().path(), &mut StdRng::seed_from_u64(seed));
    files.iter().for_each(|(file, _)| file.refuse_direct());
    let Some(mut disk) = uring(&pool, 8) else { return };
    conform(&mut disk, 8, &pool, &files, seed, real_wait);
}

#[test]
fn threads_conform() {
    let pool = pool(40);
    let seed = rand::random();
    let files = real_files(tempfile::tempdir().unwrap().path(), &mut StdRng::seed_from_u64(seed));
    for (threads, depth) in [(1, 1), (2, 32)] {
        let mut disk = ThreadDisk::new(threads, depth).unwrap();
        conform(&mut disk, depth.into(), &pool, &files, seed, real_wait);
    }
}

#[test]
fn the_best_disk_conforms_and_says_what_it_is() {
    let pool = pool(40);
    let seed = rand::random();
    let folder = tempfile::tempdir().unwrap();
    let files = real_files(folder.path(), &mut StdRng::seed_from_u64(seed));
    for media in [None, Some(folder.path().join("4097")), Some(folder.path().join("none"))] {
        let (mut disk, note) = AnyDisk::open(&pool, 32, media.as_deref()).unwrap();
        println!("{note}");
        assert!(note.contains("io_uring"), "what is used, or why not: {note}");
        conform(&mut disk, 32, &pool, &files, seed, real_wait);
    }
}

#[test]
fn the_simulated_disk_conforms() {
    let pool = pool(40);
    let seed = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let mut files: Vec<(SimFile, Vec<u8>)> = [0, 1, 4096, 300_001]
        .into_iter()
        .map(|size| {
            let bytes = random_bytes(size, &mut random);
            (SimFile::bytes(size as u64, bytes.clone().into()), bytes)
        })
        .collect();
    files.push((SimFile::pattern(77, 500_003), (0..500_003).map(|i| sim::pattern_byte(77, i)).collect()));
    let slow = Some(sim::SlowPeriods { every_ns: 10_000_000, for_ns: 2_000_000, factor: 20 });
    let mut disk = SimDisk::new(SimDiskConfig { seed, depth: 5, slow, ..SimDiskConfig::default() });
    let mut now_ns = 0;
    conform(&mut disk, 5, &pool, &files, seed, |disk: &SimDisk| {
        now_ns = disk.next_completion_ns().unwrap_or(0).max(now_ns);
        now_ns
    });
}

#[test]
fn a_file_system_without_o_direct_is_read_by_threads() {
    let (disk, note) = AnyDisk::open(&pool(2), 4, Some(Path::new("/proc/version"))).unwrap();
    assert!(matches!(disk, AnyDisk::Threads(_)), "{disk:?}");
    assert!(note.contains("O_DIRECT") || note.contains("io_uring"), "{note}");
}

/// Makes `io_uring_setup` fail with `error` on this thread, as a container's system call filter does.
fn forbid_io_uring(error: i32) {
    let (load, equal, answer) = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::BPF_RET);
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(load, 0, 0, 0),
        step(equal, 0, 1, libc::SYS_io_uring_setup as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(answer, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter are valid for the length of the call; both calls concern this thread alone.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program), 0);
    }
}

#[test]
fn where_io_uring_is_forbidden_threads_read_and_it_is_said() {
    for (error, word) in [(libc::EPERM, "forbidden"), (libc::ENOSYS, "no io_uring")] {
        let forbidden = move || {
            forbid_io_uring(error);
            let pool = pool(40);
            let seed = rand::random();
            let files = real_files(tempfile::tempdir().unwrap().path(), &mut StdRng::seed_from_u64(seed));
            let (mut disk, note) = AnyDisk::open(&pool, 32, None).unwrap();
            assert!(matches!(disk, AnyDisk::Threads(_)) && note.contains(word), "{note}");
            conform(&mut disk, 32, &pool, &files, seed, real_wait);
        };
        std::thread::spawn(forbidden).join().unwrap();
    }
}

/// What can go wrong with a real file, on either disk.
fn check_troubles<D: Disk<File = MediaFile>>(disk: &mut D, pool: &ChunkPool) {
    let len = CHUNK_BYTES;
    let mut temp = tempfile::NamedTempFile::new().unwrap();
    temp.write_all(&[5; 200_000]).unwrap();
    let file = MediaFile::open(temp.path()).unwrap();
    let was_direct = file.is_direct();

    // Not aligned: slower, but right, and the file is not held to refuse O_DIRECT.
    let done = read(disk, &file, 100, 100, pool.take().unwrap());
    assert_eq!((done.result, &done.chunk[..100]), (Ok(100), &[5; 100][..]));
    drop(done);
    assert_eq!(file.is_direct(), was_direct);
    // More than the chunk holds.
    assert_eq!(read(disk, &file, 0, 10 * len, pool.take().unwrap()).result, Ok(len));
    // Nowhere.
    assert!(matches!(read(disk, &file, u64::MAX, len, pool.take().unwrap()).result, Err(DiskError::Os(libc::EINVAL))));
    // Cut behind our back.
    temp.as_file().set_len(70_000).unwrap();
    assert_eq!(read(disk, &file, 65_536, len, pool.take().unwrap()).result, Ok(70_000 - 65_536));
    assert_eq!(read(disk, &file, 131_072, len, pool.take().unwrap()).result, Ok(0));
    // Removed: an open file stays.
    drop(temp);
    assert_eq!(read(disk, &file, 0, len, pool.take().unwrap()).result, Ok(len));
    // A regular file whose reads fail: this process's memory at address 0.
    let broken = MediaFile::open(Path::new("/proc/self/mem")).unwrap();
    assert_eq!(read(disk, &broken, 0, len, pool.take().unwrap()).result, Err(DiskError::Os(libc::EIO)));
    let DiskCounters { errors, in_flight, .. } = disk.counters();
    assert_eq!((errors, in_flight, pool.free()), (2, 0, pool.capacity()));
}

#[test]
fn io_uring_tells_troubles() {
    let pool = pool(4);
    if let Some(mut disk) = uring(&pool, 4) {
        check_troubles(&mut disk, &pool);
    }
}

#[test]
fn threads_tell_troubles() {
    check_troubles(&mut ThreadDisk::new(2, 4).unwrap(), &pool(4));
}

/// Drops a disk that has just been given as many reads as it takes.
fn drop_busy<D: Disk<File = MediaFile>>(mut disk: D, pool: &ChunkPool, file: &MediaFile) {
    let mut batch: VecDeque<_> = std::iter::from_fn(|| pool.take())
        .zip(0u64..)
        .map(|(chunk, tag)| ReadRequest { tag, file: file.clone(), offset: tag * CHUNK_BYTES as u64, len: CHUNK_BYTES, chunk })
        .collect();
    disk.submit(0, &mut batch);
    assert!(disk.in_flight() > 0);
}

#[test]
fn a_disk_dropped_with_reads_in_flight_gives_every_chunk_back() {
    let pool = pool(40);
    let temp = tempfile::NamedTempFile::new().unwrap();
    temp.as_file().set_len(40 * CHUNK_BYTES as u64).unwrap();
    let file = MediaFile::open(temp.path()).unwrap();
    for _ in 0..20 {
        if let Some(disk) = uring(&pool, 32) {
            drop_busy(disk, &pool, &file);
            assert_eq!(pool.free(), pool.capacity(), "waited for");
        }
        drop_busy(ThreadDisk::new(2, 32).unwrap(), &pool, &file);
        wait_for_all_chunks(&pool);
    }
}

#[test]
fn reads_submitted_by_a_thread_that_has_ended_still_finish() {
    let pool = pool(8);
    let temp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temp.path(), vec![3; 8 * CHUNK_BYTES]).unwrap();
    let file = MediaFile::open(temp.path()).unwrap();
    let Some(mut disk) = uring(&pool, 8) else { return };
    let mut batch: VecDeque<_> = std::iter::from_fn(|| pool.take())
        .zip(0u64..)
        .map(|(chunk, tag)| ReadRequest { tag, file: file.clone(), offset: tag % 8 * CHUNK_BYTES as u64, len: CHUNK_BYTES, chunk })
        .collect();
    let mut disk = std::thread::spawn(move || {
        disk.submit(0, &mut batch);
        disk
    })
    .join()
    .unwrap();
    let mut done = Vec::with_capacity(64);
    let deadline = Instant::now() + PATIENCE;
    while disk.in_flight() > 0 {
        assert!(Instant::now() < deadline);
        disk.reap(0, &mut done);
    }
    assert!(done.iter().all(|done| done.result == Ok(CHUNK_BYTES) && done.chunk.iter().all(|&byte| byte == 3)));
}

/// When each of some reads ends, and how.
fn trace(config: &SimDiskConfig) -> Vec<(u64, u64, Result<usize, DiskError>)> {
    let pool = pool(64);
    let mut disk = SimDisk::new(config.clone());
    let mut random = StdRng::seed_from_u64(5);
    let mut batch: VecDeque<_> = std::iter::from_fn(|| pool.take())
        .take(64)
        .zip(0..)
        .map(|(chunk, tag)| {
            let offset = random.random_range(0..1000u64) * READ_ALIGN_BYTES;
            ReadRequest { tag, file: SimFile::pattern(tag % 3, 1 << 30), offset, len: CHUNK_BYTES, chunk }
        })
        .collect();
    let (mut trace, mut done, mut now_ns) = (Vec::new(), Vec::with_capacity(64), 0);
    loop {
        disk.submit(now_ns, &mut batch);
        let Some(next_ns) = disk.next_completion_ns() else { break };
        assert!(next_ns >= now_ns);
        disk.reap(next_ns - 1, &mut done);
        assert!(done.is_empty(), "a read ended early");
        now_ns = next_ns;
        disk.reap(now_ns, &mut done);
        assert!(!done.is_empty());
        trace.extend(done.drain(..).map(|done| (now_ns, done.tag, done.result)));
    }
    trace
}

#[test]
fn the_simulated_disk_repeats_itself_from_its_seed() {
    let config = SimDiskConfig { seed: 1, depth: 6, errors_per_million: 200_000, ..SimDiskConfig::default() };
    let first = trace(&config);
    assert_eq!(first.len(), 64);
    let errors = first.iter().filter(|(_, _, result)| *result == Err(DiskError::Os(libc::EIO))).count();
    assert!((1..40).contains(&errors), "{errors} errors");
    assert_eq!(first, trace(&config));
    assert_ne!(first, trace(&SimDiskConfig { seed: 2, ..config }));
}

#[test]
fn the_simulated_disk_takes_the_time_that_it_is_told_to() {
    let config =
        SimDiskConfig { lanes: 1, seek_min_ns: 1_000_000, seek_max_ns: 1_000_000, bytes_per_s: 65_536_000, ..SimDiskConfig::default() };
    // 64 reads of 1 ms, and as many seeks (all places differ).
    assert_eq!(trace(&config).last().unwrap().0, 128_000_000);
    let slow = Some(sim::SlowPeriods { every_ns: 1, for_ns: 1, factor: 3 });
    assert_eq!(trace(&SimDiskConfig { slow, ..config.clone() }).last().unwrap().0, 3 * 128_000_000);
    assert_eq!(trace(&SimDiskConfig { lanes: 2, ..config }).last().unwrap().0, 64_000_000);
}

proptest! {
    #[test]
    fn a_pattern_file_is_the_same_however_it_is_read(id in any::<u64>(), size in 0u64..5_000, offset in 0u64..6_000, len in 0usize..300) {
        let mut out = vec![0; len];
        let filled = SimFile::pattern(id, size).fill(offset, &mut out);
        prop_assert_eq!(filled as u64, size.saturating_sub(offset).min(len as u64));
        for (i, &byte) in out[..filled].iter().enumerate() {
            prop_assert_eq!(byte, sim::pattern_byte(id, offset + i as u64));
        }
    }
}
