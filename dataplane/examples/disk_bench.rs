//! How fast our reader reads a file beside fio, in pairs: the same file, the same size and number of reads under way, io_uring, O_DIRECT,
//! registered buffers on pages of the same kind.
//!
//! `cargo run --release -p dataplane --example disk_bench -- FILE [CHUNK_KIB [DEPTH [PAIRS]]]`
//!
//! Each pair is one run of either, in turns who is first, so that what else the machine does meets both. The ratio is the median of the
//! pairs' ratios. A file that is not there is made (1 GiB) and removed.

use std::collections::VecDeque;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use dataplane::disks::{Disk, MediaFile, ReadRequest, UringDisk};
use hugepages::{Arena, Backing, ChunkPool};

const MADE_BYTES: u64 = 1 << 30;
/// Of fio's rate, what ours is to be at least.
const GOAL: f64 = 0.95;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: disk_bench FILE [CHUNK_KIB [DEPTH [PAIRS]]]")?;
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (chunk_kib, depth, pairs) = (number(256)?, number(32)?, number(9)?);
    let path = Path::new(&path);
    let made = !path.exists();
    if made {
        make(path)?;
    }
    let result = compare(path, chunk_kib << 10, u16::try_from(depth)?, pairs.max(1));
    if made {
        std::fs::remove_file(path)?;
    }
    result
}

fn compare(path: &Path, chunk_bytes: usize, depth: u16, pairs: usize) -> Result<(), Box<dyn Error>> {
    let pool = ChunkPool::new(Arena::new(usize::from(depth) * chunk_bytes)?, chunk_bytes);
    let backing = pool.backing();
    if !backing.is_reserved() {
        println!("no huge pages are reserved, and fio has no transparent ones: its buffers lie on small pages. For equal terms, as root:");
        println!("    sysctl vm.nr_hugepages={}", 2 + 2 * (usize::from(depth) * chunk_bytes).div_ceil(2 << 20));
    }
    let (mut ours, mut fios) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        for turn in 0..2 {
            match (pair + turn) % 2 {
                0 => ours.push(read(&pool, path, depth)?),
                _ => fios.push(fio(path, chunk_bytes, depth, backing)?),
            }
        }
    }
    let mut ratios: Vec<f64> = ours.iter().zip(&fios).map(|(ours, fio)| ours / fio).collect();
    println!("{} KiB, {depth} reads under way, {pairs} pairs, buffers on {backing}: medians", chunk_bytes >> 10);
    println!("our reader {:>7.0} MB/s", median(&mut ours) / 1e6);
    println!("fio        {:>7.0} MB/s", median(&mut fios) / 1e6);
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    println!("ratio      {:>7.3} (of the pairs; {least:.3} to {most:.3}; goal {GOAL})", median(&mut ratios));
    Ok(())
}

/// Bytes per second of one run through our reader.
fn read(pool: &ChunkPool, path: &Path, depth: u16) -> Result<f64, Box<dyn Error>> {
    let mut disk = UringDisk::new(pool, depth)?;
    let file = MediaFile::open(path)?;
    if !file.is_direct() {
        return Err(format!("the file system of {} refuses O_DIRECT", path.display()).into());
    }
    let (mut batch, mut done) = (VecDeque::new(), Vec::with_capacity(256));
    let (mut offset, mut bytes) = (0, 0);
    let started = Instant::now();
    while bytes < file.size() {
        while offset < file.size()
            && let Some(chunk) = pool.take()
        {
            let len = chunk.len();
            batch.push_back(ReadRequest { tag: offset, file: file.clone(), offset, len, chunk });
            offset += len as u64;
        }
        disk.submit(0, &mut batch);
        disk.reap(0, &mut done);
        if done.is_empty() {
            std::thread::yield_now();
        }
        for finished in done.drain(..) {
            bytes += finished.result? as u64;
        }
    }
    Ok(bytes as f64 / started.elapsed().as_secs_f64())
}

/// Bytes per second of one run of fio.
fn fio(path: &Path, chunk_bytes: usize, depth: u16, backing: Backing) -> Result<f64, Box<dyn Error>> {
    let memory = match backing {
        Backing::Huge2M | Backing::Huge1G => "--mem=mmaphuge",
        Backing::Transparent | Backing::Small => "--mem=mmap",
    };
    let output = Command::new("fio")
        .args(["--name=read", "--rw=read", "--direct=1", "--ioengine=io_uring", "--fixedbufs=1", "--output-format=terse", memory])
        .args(["--terse-version=3", "--invalidate=0"])
        .args([format!("--bs={chunk_bytes}"), format!("--iodepth={depth}"), format!("--filename={}", path.display())])
        .output()
        .map_err(|error| format!("fio: {error}; is it installed?"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Terse version 3: the seventh field is the rate of reads in KiB per second.
    let rate = text.lines().find_map(|line| line.strip_prefix("3;")?.split(';').nth(5)?.parse::<f64>().ok());
    match rate {
        Some(kib_per_s) if output.status.success() && kib_per_s > 0.0 => Ok(kib_per_s * 1024.0),
        _ => Err(format!("fio failed: {text}{}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

fn make(path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    let mut block = vec![0u8; 1 << 20];
    for at in 0..MADE_BYTES >> 20 {
        block.fill(at as u8);
        file.write_all(&block)?;
    }
    file.sync_all()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
