//! The same for writes: a file holds what was written to it, whatever its length, and every slice comes back.

use hugepages::Slice;
use rand::seq::SliceRandom;

use super::*;
use crate::disks::new_file::NewFile;

/// Lengths around pages and chunks, and any.
fn lengths(random: &mut StdRng) -> Vec<usize> {
    let mut lengths = vec![0, 1, 4095, 4096, 4097, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES + 8192 + 77];
    lengths.extend((0..12).map(|_| random.random_range(0..20 * CHUNK_BYTES)));
    lengths
}

fn slice_of(pool: &ChunkPool, bytes: &[u8]) -> Option<Slice> {
    let mut chunk = pool.take()?;
    chunk[..bytes.len()].copy_from_slice(bytes);
    Some(chunk.freeze(bytes.len()))
}

/// Writes `content` block by block, in any order, as many at once as the disk takes, with reads of `other` between them.
fn write_in_blocks<D: Disk>(
    disk: &mut D,
    pool: &ChunkPool,
    file: &D::File,
    content: &[u8],
    other: &(D::File, Vec<u8>),
    random: &mut StdRng,
    mut wait: impl FnMut(&D) -> u64,
) {
    let before = disk.counters();
    let mut blocks: Vec<(u64, &[u8])> = (0u64..).zip(content.chunks(CHUNK_BYTES)).collect();
    blocks.shuffle(random);
    let (mut batch, mut reads) = (VecDeque::new(), VecDeque::new());
    let (mut written, mut read) = (Vec::with_capacity(3), Vec::with_capacity(5));
    let (mut left, mut read_left, mut now_ns) = (blocks.len(), blocks.len(), 0);
    let deadline = Instant::now() + PATIENCE;
    while left + read_left > 0 {
        assert!(Instant::now() < deadline, "{left} writes and {read_left} reads have not come back");
        while let Some(&(number, bytes)) = blocks.last() {
            let Some(slice) = slice_of(pool, bytes) else { break };
            blocks.pop();
            batch.push_back(WriteRequest { tag: number, file: file.clone(), offset: number * CHUNK_BYTES as u64, slice });
            if let Some(chunk) = pool.take() {
                reads.push_back(ReadRequest { tag: number, file: other.0.clone(), offset: 0, len: CHUNK_BYTES, chunk });
            } else {
                read_left -= 1;
            }
        }
        disk.submit(now_ns, &mut reads);
        disk.submit_writes(now_ns, &mut batch);
        now_ns = wait(disk);
        disk.reap_writes(now_ns, &mut written);
        disk.reap(now_ns, &mut read);
        assert!(written.capacity() == 3 && read.capacity() == 5, "more than there is room for");
        for WriteDone { tag, slice, result } in written.drain(..) {
            assert_eq!(result, Ok(()), "block {tag}");
            let start = tag as usize * CHUNK_BYTES;
            assert!(slice[..] == content[start..content.len().min(start + CHUNK_BYTES)], "its own slice");
            left -= 1;
        }
        for done in read.drain(..) {
            let bytes = done.result.unwrap();
            assert!(done.chunk[..bytes] == other.1[..bytes.min(other.1.len())]);
            read_left -= 1;
        }
    }
    let after = disk.counters();
    assert_eq!(after.writes - before.writes, content.len().div_ceil(CHUNK_BYTES) as u64);
    assert_eq!(after.write_bytes - before.write_bytes, content.len() as u64);
    assert_eq!((after.write_errors, after.errors, disk.in_flight(), pool.free()), (0, 0, 0, pool.capacity()));
}

/// Files of all lengths on a real disk. `refuse`: as if the file system did not take O_DIRECT.
fn conform_writes<D: Disk<File = MediaFile>>(disk: &mut D, pool: &ChunkPool, refuse: bool) {
    let seed = rand::random();
    println!("{}, seed {seed}", disk.describe());
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let other = real_files(folder.path(), &mut random).pop().unwrap();
    for (number, length) in lengths(&mut random).into_iter().enumerate() {
        let content = random_bytes(length, &mut random);
        let path = folder.path().join(format!("new-{number}"));
        // Some are given their place beforehand, some grow.
        let new = NewFile::create(&path, if number % 2 == 0 { length as u64 } else { 0 }, false).unwrap();
        if refuse {
            new.file().refuse_direct();
        }
        write_in_blocks(disk, pool, new.file(), &content, &other, &mut random, real_wait);
        assert_eq!(std::fs::read(new.finish(length as u64).unwrap()).unwrap(), content, "{length} bytes");
    }
}

#[test]
fn io_uring_writes_files_of_any_length() {
    let pool = pool(40);
    for depth in [1, 3, 32] {
        let Some(mut disk) = uring(&pool, depth) else { return };
        conform_writes(&mut disk, &pool, false);
    }
}

#[test]
fn io_uring_writes_memory_that_is_not_registered_and_files_without_o_direct() {
    let (registered, pool) = (pool(1), pool(40));
    let Some(mut disk) = uring(&registered, 8) else { return };
    conform_writes(&mut disk, &pool, false);
    conform_writes(&mut disk, &pool, true);
}

#[test]
fn threads_write_files_of_any_length() {
    let pool = pool(40);
    for (threads, depth) in [(1, 1), (2, 32)] {
        conform_writes(&mut ThreadDisk::new(threads, depth).unwrap(), &pool, false);
    }
}

#[test]
fn the_simulated_disk_writes_files_of_any_length() {
    let pool = pool(40);
    let mut random = StdRng::seed_from_u64(rand::random());
    let slow = Some(sim::SlowPeriods { every_ns: 10_000_000, for_ns: 2_000_000, factor: 20 });
    let mut disk = SimDisk::new(SimDiskConfig { depth: 5, slow, ..SimDiskConfig::default() });
    let other = (SimFile::pattern(7, CHUNK_BYTES as u64), (0..CHUNK_BYTES as u64).map(|i| sim::pattern_byte(7, i)).collect());
    let mut now_ns = 0;
    for (id, length) in (100..).zip(lengths(&mut random)) {
        let (file, content) = (SimFile::writable(id, length as u64), random_bytes(length, &mut random));
        write_in_blocks(&mut disk, &pool, &file, &content, &other, &mut random, |disk: &SimDisk| {
            now_ns = disk.next_completion_ns().unwrap_or(0).max(now_ns);
            now_ns
        });
        assert_eq!(file.written(), Some(content));
    }
}

/// One write, waited for.
fn write<D: Disk>(disk: &mut D, file: &D::File, offset: u64, slice: Slice) -> WriteDone {
    let mut batch = VecDeque::from([WriteRequest { tag: 9, file: file.clone(), offset, slice }]);
    let mut done = Vec::with_capacity(1);
    let deadline = Instant::now() + PATIENCE;
    while done.is_empty() {
        assert!(Instant::now() < deadline, "the write has not come back");
        disk.submit_writes(0, &mut batch);
        disk.reap_writes(u64::MAX, &mut done);
        std::thread::yield_now();
    }
    done.remove(0)
}

/// Pieces of any length, one after the other, through whatever way each of them has to take.
fn write_in_pieces<D: Disk<File = MediaFile>>(disk: &mut D, pool: &ChunkPool) {
    let mut random = StdRng::seed_from_u64(rand::random());
    let folder = tempfile::tempdir().unwrap();
    let new = NewFile::create(&folder.path().join("pieces"), 0, false).unwrap();
    let mut content = Vec::new();
    while content.len() < 1_000_000 {
        let bytes = random_bytes(random.random_range(1..CHUNK_BYTES), &mut random);
        let whole = slice_of(pool, &bytes).unwrap();
        // Memory that is not aligned, either.
        let skip = if random.random_bool(0.3) { random.random_range(0..bytes.len()) } else { 0 };
        let part = whole.sub(skip..bytes.len()).unwrap();
        drop(whole);
        assert_eq!(write(disk, new.file(), content.len() as u64, part).result, Ok(()));
        content.extend_from_slice(&bytes[skip..]);
    }
    assert!(std::fs::read(new.finish(content.len() as u64).unwrap()).unwrap() == content);
}

/// What can go wrong with a real file that is written, on either disk.
fn check_write_troubles<D: Disk<File = MediaFile>>(disk: &mut D, pool: &ChunkPool) {
    let slice = || slice_of(pool, &[5; CHUNK_BYTES]).unwrap();
    let os = |number| Err(DiskError::Os(number));
    let temp = tempfile::NamedTempFile::new().unwrap();
    let for_reading = MediaFile::open(temp.path()).unwrap();
    assert_eq!(write(disk, &for_reading, 0, slice()).result, os(libc::EBADF));
    let full = std::fs::OpenOptions::new().read(true).write(true).open("/dev/full").unwrap();
    let full = MediaFile::writable(full, Path::new("/dev/none")).unwrap();
    assert_eq!(write(disk, &full, 0, slice()).result, os(libc::ENOSPC));
    assert!(!DiskError::Os(libc::ENOSPC).may_pass() && DiskError::Os(libc::EIO).may_pass());
    let folder = tempfile::tempdir().unwrap();
    let new = NewFile::create(&folder.path().join("x"), 0, false).unwrap();
    assert_eq!(write(disk, new.file(), u64::MAX - 5, slice()).result, os(libc::EINVAL));
    let DiskCounters { writes, write_errors, in_flight, .. } = disk.counters();
    assert_eq!((writes, write_errors, in_flight, pool.free()), (3, 3, 0, pool.capacity()));
}

#[test]
fn pieces_and_troubles_on_io_uring() {
    let pool = pool(4);
    if let Some(mut disk) = uring(&pool, 4) {
        check_write_troubles(&mut disk, &pool);
        write_in_pieces(&mut disk, &pool);
    }
}

#[test]
fn pieces_and_troubles_on_threads() {
    let pool = pool(4);
    let mut disk = ThreadDisk::new(2, 4).unwrap();
    check_write_troubles(&mut disk, &pool);
    write_in_pieces(&mut disk, &pool);
}

#[test]
fn a_simulated_disk_fills_up_fails_and_is_taken_away() {
    let pool = pool(4);
    let mut disk = SimDisk::new(SimDiskConfig::default());
    let file = SimFile::writable(1, 1000);
    let ten = |disk: &mut SimDisk, offset| write(disk, &file, offset, slice_of(&pool, &[9; 10]).unwrap()).result;
    assert_eq!(ten(&mut disk, 990), Ok(()));
    assert_eq!(ten(&mut disk, 991), Err(DiskError::Os(libc::ENOSPC)));
    disk.set_device(0, SimDiskConfig { write_errors_per_million: 1_000_000, ..SimDiskConfig::default() });
    assert_eq!(ten(&mut disk, 0), Err(DiskError::Os(libc::EIO)));
    assert_eq!(file.written().unwrap()[..10], [9, 9, 9, 9, 9, 0, 0, 0, 0, 0]);
    disk.take_away(0);
    assert_eq!(ten(&mut disk, 0), Err(DiskError::Os(libc::ENODEV)));
    assert_eq!((disk.counters().write_errors, disk.counters().write_bytes, pool.free()), (3, 10, pool.capacity()));
}
