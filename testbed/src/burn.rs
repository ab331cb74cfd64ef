//! A load on the processors of a known size: a process with a thread on each core that uses a given share of it. What `testbed figures`
//! measures punctuality against.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::load::sys;

/// The share is kept in each of these.
const PERIOD_NS: u64 = 10_000_000;

/// `testbed burn`.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Args {
    /// Share of each core, percent
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub share: u8,
}

/// Burns until the process is ended.
///
/// # Errors
/// A core cannot be had.
pub fn run(args: Args) -> io::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let threads: Vec<_> = (0..cores).map(|cpu| std::thread::spawn(move || burn(cpu, args.share))).collect();
    for thread in threads {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed")))?;
    }
    Ok(())
}

fn burn(cpu: usize, share: u8) -> io::Result<()> {
    sys::pin_to_cpu(cpu)?;
    let busy_ns = PERIOD_NS * u64::from(share) / 100;
    let mut period_ns = sys::monotonic_ns();
    loop {
        // CPU time, not time that passes: a thread that had to wait has not burnt anything.
        let from_ns = sys::thread_cpu_ns();
        while sys::thread_cpu_ns() - from_ns < busy_ns {
            std::hint::spin_loop();
        }
        let now = sys::monotonic_ns();
        // What could not be had in its period is not made up for later.
        period_ns = (period_ns + PERIOD_NS).max(now);
        std::thread::sleep(Duration::from_nanos(period_ns - now));
    }
}

/// A process that burns, ended when this is dropped and with the thread that started it.
#[derive(Debug)]
pub struct Burner(Option<Child>);

impl Burner {
    /// Starts one; none for a share of 0.
    ///
    /// # Errors
    /// The `testbed` program is not this one, nor beside it.
    pub fn start(share: u8) -> io::Result<Self> {
        if share == 0 {
            return Ok(Self(None));
        }
        let own = std::env::current_exe()?;
        let program = if own.file_name().is_some_and(|name| name == "testbed") { own } else { own.with_file_name("testbed") };
        let mut command = Command::new(program);
        command.args(["burn", "--share", &share.to_string()]).stdin(Stdio::null()).stdout(Stdio::null());
        sys::end_with_parent(&mut command);
        command.spawn().map(|child| Self(Some(child)))
    }

    /// The process.
    pub fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
