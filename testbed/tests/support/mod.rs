//! What the end-to-end tests share.

#![allow(dead_code)] // Each test binary uses a part.

use std::path::PathBuf;
use std::sync::Mutex;

use testbed::clip::catalogue;

/// True when all programs can be run. Where they cannot, the test is skipped loudly; in CI that is a failure.
pub fn have(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|p| !testbed::player::have(p)).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var("CI").is_err(), "{missing:?} not installed, and CI must run everything");
    eprintln!("SKIPPED: {missing:?} not installed; `make setup` installs what the end-to-end tests need");
    false
}

/// The folder with the catalogue of real clips.
pub fn clips() -> PathBuf {
    let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("testbed-clips");
    std::fs::create_dir_all(&cache).unwrap();
    catalogue::ensure(&cache).unwrap()
}

/// Runs `check` on all `jobs`, `parallel` at a time, and fails with the list of all that failed.
pub fn run_all<J: std::fmt::Debug + Sync>(jobs: &[J], parallel: usize, check: impl Fn(&J) -> Result<String, String> + Sync) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..parallel.min(jobs.len()) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    match check(job) {
                        Ok(said) => println!("ok   {job:?}: {said}"),
                        Err(why) => failures.lock().unwrap().push(format!("{job:?}: {why}")),
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), jobs.len(), failures.join("\n"));
}
