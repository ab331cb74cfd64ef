#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| testbed::fuzz::recording_notes::run(data));
