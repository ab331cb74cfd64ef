//! For tests that need root.

/// True as root. Otherwise says loudly that the test is skipped, which continuous integration does not take for an answer.
pub(super) fn root_or_skip(test: &str) -> bool {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        println!("SKIPPED (needs root): {test}");
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} needs root and must not be skipped here");
    }
    root
}
