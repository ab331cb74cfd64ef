//! A simulated disk: seek and transfer times, a queue, faults; the same from the same seed, in simulated time.
//!
//! ```text
//! submit(now) ─► the lane that is free first: starts, seeks (unless it goes on where it was), transfers ─► reap(now >= its end)
//! ```
//!
//! It is not told the time by anyone but its caller. [`SimDisk::next_completion_ns`] says when a simulated loop has to come back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskCounters, DiskError, ReadDone, ReadRequest, WriteDone, WriteRequest};

/// What a simulated file holds.
#[derive(Clone, Debug)]
enum Content {
    Bytes(Arc<[u8]>),
    Pattern,
    Written(Arc<Mutex<Vec<u8>>>),
}

/// A file of a simulated disk.
#[derive(Clone, Debug)]
pub struct SimFile {
    id: u64,
    device: u64,
    size: u64,
    content: Content,
}

impl SimFile {
    /// A file that holds `bytes`. Files are told apart by `id`: a change of file costs a seek.
    pub fn bytes(id: u64, bytes: Arc<[u8]>) -> Self {
        Self { id, device: 0, size: bytes.len() as u64, content: Content::Bytes(bytes) }
    }

    /// A file of `size` bytes that takes no memory: byte `i` is [`pattern_byte`]`(id, i)`.
    pub fn pattern(id: u64, size: u64) -> Self {
        Self { id, device: 0, size, content: Content::Pattern }
    }

    /// An empty file that can be written up to `room` bytes; beyond them the disk is full (ENOSPC). Clones are handles of the same file.
    pub fn writable(id: u64, room: u64) -> Self {
        Self { id, device: 0, size: room, content: Content::Written(Arc::default()) }
    }

    /// What was written so far; `None` of a file that is not for writing.
    pub fn written(&self) -> Option<Vec<u8>> {
        match &self.content {
            Content::Written(bytes) => Some(lock(bytes).clone()),
            Content::Bytes(_) | Content::Pattern => None,
        }
    }

    /// Writes what fits.
    fn put(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let Content::Written(content) = &self.content else { return Err(DiskError::Os(libc::EBADF)) };
        let Some(end) = offset.checked_add(bytes.len() as u64).filter(|&end| end <= self.size) else {
            return Err(DiskError::Os(libc::ENOSPC));
        };
        let mut content = lock(content);
        if (content.len() as u64) < end {
            content.resize(end as usize, 0);
        }
        if let Some(place) = content.get_mut(offset as usize..end as usize) {
            place.copy_from_slice(bytes);
        }
        Ok(())
    }

    /// The same file on another device; without this it is device 0.
    pub fn on_device(self, device: u64) -> Self {
        Self { device, ..self }
    }

    /// The file's number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Bytes; of a file for writing, those that it may have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Copies what lies at `offset` to the start of `out`; how many bytes that is (fewer than fit only at the end of the file).
    pub fn fill(&self, offset: u64, out: &mut [u8]) -> usize {
        if let Content::Written(content) = &self.content {
            let content = lock(content);
            let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or(&[]);
            let len = rest.len().min(out.len());
            out[..len].copy_from_slice(&rest[..len]);
            return len;
        }
        let len = self.size.saturating_sub(offset).min(out.len() as u64) as usize;
        let out = &mut out[..len];
        match &self.content {
            Content::Bytes(bytes) if len > 0 => out.copy_from_slice(&bytes[offset as usize..][..len]),
            Content::Bytes(_) | Content::Written(_) => {}
            Content::Pattern => fill_pattern(self.id, offset, out),
        }
        len
    }
}

fn lock(content: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    content.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Byte `offset` of the pattern file `id`: a byte of [`pattern_word`], little end first.
pub fn pattern_byte(id: u64, offset: u64) -> u8 {
    pattern_word(id, offset / 8).to_le_bytes()[(offset % 8) as usize]
}

/// Bytes `8 * word .. 8 * word + 8` of the pattern file `id`, little end first: the output function of SplitMix64 (Steele, Lea, Flood,
/// OOPSLA 2014) at the word's number, turned by the file's. Any 8 aligned bytes tell which file and place they come from.
pub fn pattern_word(id: u64, word: u64) -> u64 {
    split_mix(word.wrapping_mul(GOLDEN_GAMMA).wrapping_add(split_mix(id)))
}

fn fill_pattern(id: u64, offset: u64, out: &mut [u8]) {
    let head = ((8 - offset % 8) % 8).min(out.len() as u64) as usize;
    let (head, body) = out.split_at_mut(head);
    for (i, byte) in (offset..).zip(head) {
        *byte = pattern_byte(id, i);
    }
    for (word, bytes) in (offset.div_ceil(8)..).zip(body.chunks_mut(8)) {
        bytes.copy_from_slice(&pattern_word(id, word).to_le_bytes()[..bytes.len()]);
    }
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn split_mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(GOLDEN_GAMMA);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A disk that is slow now and then, as when it cleans up or retries a bad sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowPeriods {
    /// One begins this often.
    pub every_ns: u64,
    /// It lasts this long.
    pub for_ns: u64,
    /// What starts in it takes this many times as long.
    pub factor: u32,
}

/// What a simulated disk is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimDiskConfig {
    /// Seed of all chance.
    pub seed: u64,
    /// Reads, and as many writes, taken at once; the rest stays in the batch.
    pub depth: usize,
    /// Reads and writes served side by side (an SSD's channels), each at the full speed; 1 for a spinning disk.
    pub lanes: usize,
    /// Least time to get to another place.
    pub seek_min_ns: u64,
    /// Most time to get to another place.
    pub seek_max_ns: u64,
    /// What goes on where the last one ended costs as much as any other.
    pub seek_always: bool,
    /// Speed of a lane.
    pub bytes_per_s: u64,
    /// Reads of a million that fail with EIO.
    pub errors_per_million: u32,
    /// Writes of a million that fail with EIO, half done.
    pub write_errors_per_million: u32,
    /// Blocks of a million that can never be read (EIO): bad places, the same ones at every try.
    pub bad_per_million: u32,
    /// When it is slow.
    pub slow: Option<SlowPeriods>,
}

impl Default for SimDiskConfig {
    /// A modest SSD: 4 lanes of 500 MB/s, 60-120 us to get to another place, no faults.
    fn default() -> Self {
        Self {
            seed: 0,
            depth: 32,
            lanes: 4,
            seek_min_ns: 60_000,
            seek_max_ns: 120_000,
            seek_always: false,
            bytes_per_s: 500_000_000,
            errors_per_million: 0,
            write_errors_per_million: 0,
            bad_per_million: 0,
            slow: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    free_at_ns: u64,
    /// File and offset after the last read or write.
    head: (u64, u64),
}

/// One device.
#[derive(Debug)]
struct Drive {
    device: u64,
    config: SimDiskConfig,
    lanes: Vec<Lane>,
    /// It is not there any more.
    gone: bool,
}

/// Simulated disks: as many devices as the files that are read say.
#[derive(Debug)]
pub struct SimDisk {
    config: SimDiskConfig,
    random: u64,
    drives: Vec<Drive>,
    /// Reads under way by (end, order of submission), with how they end.
    under_way: BTreeMap<(u64, u64), (ReadRequest<SimFile>, Option<i32>)>,
    /// The same of writes.
    writing: BTreeMap<(u64, u64), (WriteRequest<SimFile>, Option<i32>)>,
    /// Time that lanes spent on each file.
    busy_ns: BTreeMap<u64, u64>,
    description: String,
    counters: DiskCounters,
}

impl SimDisk {
    /// A disk as `config` says.
    pub fn new(config: SimDiskConfig) -> Self {
        let description = format!("simulated disk, {} lanes of {} bytes/s, depth {}", config.lanes, config.bytes_per_s, config.depth);
        Self {
            random: config.seed,
            drives: vec![Drive::new(0, config.clone())],
            busy_ns: BTreeMap::new(),
            config,
            under_way: BTreeMap::new(),
            writing: BTreeMap::new(),
            description,
            counters: DiskCounters::default(),
        }
    }

    /// When the next read or write ends, `None` when none is under way.
    pub fn next_completion_ns(&self) -> Option<u64> {
        let next = |keys: Option<&(u64, u64)>| keys.map(|&(end_ns, _)| end_ns);
        [next(self.under_way.keys().next()), next(self.writing.keys().next())].into_iter().flatten().min()
    }

    /// What device `device` is like from now on; `depth` counts for all devices together and stays.
    pub fn set_device(&mut self, device: u64, config: SimDiskConfig) {
        let drive = self.drive(device);
        drive.lanes.resize(config.lanes.max(1), Lane::default());
        drive.config = config;
    }

    /// Takes device `device` away: whatever is asked of it fails with ENODEV from now on.
    pub fn take_away(&mut self, device: u64) {
        self.drive(device).gone = true;
    }

    /// Time that lanes have spent, or will have spent on what is under way, on the file with this number.
    pub fn busy_ns(&self, file: u64) -> u64 {
        self.busy_ns.get(&file).copied().unwrap_or(0)
    }

    /// Of the time that the device's lanes spend on what they were given, what still lies ahead at `now_ns`.
    pub fn ahead_ns(&self, device: u64, now_ns: u64) -> u64 {
        let drives = self.drives.iter().filter(|drive| drive.device == device);
        drives.flat_map(|drive| &drive.lanes).map(|lane| lane.free_at_ns.saturating_sub(now_ns)).sum()
    }

    fn drive(&mut self, device: u64) -> &mut Drive {
        let known = self.drives.iter().position(|drive| drive.device == device).unwrap_or(self.drives.len());
        if known == self.drives.len() {
            self.drives.push(Drive::new(device, self.config.clone()));
        }
        &mut self.drives[known]
    }

    fn chance(&mut self) -> u64 {
        self.random = self.random.wrapping_add(GOLDEN_GAMMA);
        split_mix(self.random)
    }

    /// When a read (or a write) that is submitted at `now_ns` ends, and how.
    fn serve(&mut self, now_ns: u64, file: &SimFile, offset: u64, len: u64, is_write: bool) -> (u64, Option<i32>) {
        let (seek, fate) = (self.chance(), self.chance());
        let drive = self.drive(file.device);
        let (end_ns, service_ns) = drive.serve(now_ns, (file.id, offset), len, seek);
        let errors_per_million = if is_write { drive.config.write_errors_per_million } else { drive.config.errors_per_million };
        let is_bad = !is_write && drive.is_bad(file.id, offset) || fate % 1_000_000 < u64::from(errors_per_million);
        let fails = if drive.gone { Some(libc::ENODEV) } else { is_bad.then_some(libc::EIO) };
        *self.busy_ns.entry(file.id).or_default() += service_ns;
        (end_ns, fails)
    }
}

impl Drive {
    fn new(device: u64, config: SimDiskConfig) -> Self {
        Self { device, lanes: vec![Lane::default(); config.lanes.max(1)], config, gone: false }
    }

    fn is_bad(&self, file: u64, offset: u64) -> bool {
        split_mix(self.config.seed ^ split_mix(file) ^ offset) % 1_000_000 < u64::from(self.config.bad_per_million)
    }

    /// When the read or write ends, and how long it keeps its lane.
    fn serve(&mut self, now_ns: u64, (file, offset): (u64, u64), len: u64, chance: u64) -> (u64, u64) {
        let seek_range_ns = self.config.seek_max_ns.saturating_sub(self.config.seek_min_ns).saturating_add(1);
        let seek_ns = self.config.seek_min_ns + chance % seek_range_ns;
        let first = self.lanes.iter().enumerate().min_by_key(|(_, lane)| lane.free_at_ns).map_or(0, |(i, _)| i);
        let lane = &mut self.lanes[first];
        let start_ns = lane.free_at_ns.max(now_ns);
        let transfer_ns = (u128::from(len) * 1_000_000_000 / u128::from(self.config.bytes_per_s.max(1))) as u64;
        let mut service_ns = transfer_ns + if lane.head == (file, offset) && !self.config.seek_always { 0 } else { seek_ns };
        if let Some(slow) = self.config.slow
            && start_ns % slow.every_ns.max(1) < slow.for_ns
        {
            service_ns = service_ns.saturating_mul(slow.factor.into());
        }
        lane.free_at_ns = start_ns.saturating_add(service_ns);
        lane.head = (file, offset.saturating_add(len));
        (lane.free_at_ns, service_ns)
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn device_of(file: &SimFile) -> u64 {
        file.device
    }

    fn place_of(file: &SimFile) -> u64 {
        file.id
    }

    fn submit(&mut self, now_ns: u64, batch: &mut VecDeque<ReadRequest<SimFile>>) {
        while self.under_way.len() < self.config.depth.max(1) {
            let Some(request) = batch.pop_front() else { break };
            let (end_ns, fails) = self.serve(now_ns, &request.file, request.offset, request.len as u64, false);
            self.under_way.insert((end_ns, self.counters.reads), (request, fails));
            self.counters.reads += 1;
        }
    }

    fn reap(&mut self, now_ns: u64, done: &mut Vec<ReadDone>) {
        while done.len() < done.capacity() {
            let Some(next) = self.under_way.first_entry().filter(|next| next.key().0 <= now_ns) else { break };
            let (ReadRequest { tag, file, offset, len, mut chunk }, fails) = next.remove();
            let len = len.min(chunk.len());
            let result = fails.map_or_else(|| Ok(file.fill(offset, &mut chunk[..len])), |error| Err(DiskError::Os(error)));
            self.counters.count(result);
            done.push(ReadDone { tag, chunk, result });
        }
    }

    fn submit_writes(&mut self, now_ns: u64, batch: &mut VecDeque<WriteRequest<SimFile>>) {
        while self.writing.len() < self.config.depth.max(1) {
            let Some(request) = batch.pop_front() else { break };
            let (end_ns, fails) = self.serve(now_ns, &request.file, request.offset, request.slice.len() as u64, true);
            self.writing.insert((end_ns, self.counters.writes), (request, fails));
            self.counters.writes += 1;
        }
    }

    fn reap_writes(&mut self, now_ns: u64, done: &mut Vec<WriteDone>) {
        while done.len() < done.capacity() {
            let Some(next) = self.writing.first_entry().filter(|next| next.key().0 <= now_ns) else { break };
            let (WriteRequest { tag, file, offset, slice }, fails) = next.remove();
            let result = match fails {
                None => file.put(offset, &slice),
                Some(error) => {
                    // What a write that fails leaves behind is anybody's guess.
                    let _ = file.put(offset, slice.get(..slice.len() / 2).unwrap_or(&[]));
                    Err(DiskError::Os(error))
                }
            };
            self.counters.count_write(slice.len(), result);
            done.push(WriteDone { tag, slice, result });
        }
    }

    fn in_flight(&self) -> usize {
        self.under_way.len() + self.writing.len()
    }

    fn describe(&self) -> &str {
        &self.description
    }

    fn counters(&self) -> DiskCounters {
        DiskCounters { in_flight: self.in_flight() as u32, ..self.counters }
    }
}
