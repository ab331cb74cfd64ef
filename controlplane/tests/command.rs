//! The `tactus` command as a process: exit codes, what goes to which stream.

use std::process::{Command, Output};

fn tactus(folder: &std::path::Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_tactus")).args(args).current_dir(folder).env_remove("RUST_LOG").output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn exit_codes_and_streams_are_as_documented() {
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("films")).unwrap();
    std::fs::write(here.path().join("bad.toml"), "medai = 1\nrtp-port = 3\n").unwrap();
    std::fs::write(here.path().join("good.toml"), "media = \"films\"\npoll = \"busy\"\n").unwrap();
    for (args, code, stdout, stderr) in [
        (&["--help"][..], 0, "Examples:", ""),
        (&["serve", "--help"], 0, "--stall-timeout <S>", ""),
        (&["--version"], 0, concat!("tactus ", env!("CARGO_PKG_VERSION")), ""),
        (&["serve", "--check", "--media", "films"], 0, "media = \"films\"", ""),
        (&["serve", "--print-config", "-c", "good.toml", "--rtp-port", "7000"], 0, "poll = \"busy\"", ""),
        (&[], 1, "", "there is no folder ./media here"),
        (&["serve", "--media", "none"], 1, "", "media folder none: No such file or directory"),
        (&["probe", "none.mp4"], 1, "none.mp4: cannot be served: No such file", ""),
        (&["probe", "--json", "none.mp4"], 1, "\"servable\": false", ""),
        (&["serve", "--check", "--media", "none"], 1, "media = \"none\"", "No such file"),
        (&["check", "--root", "films"], 1, "UNTUNED  huge-pages", ""),
        (&["check", "--json", "--root", "films"], 1, "\"tuned\": false", ""),
        (&["check", "--net", "dpdk:0"], 2, "", "af_xdp:IFACE"),
        (&["probe"], 2, "", "Usage:"),
        (&["sevre"], 2, "", "a similar subcommand exists: 'serve'"),
        (&["serve", "--medai", "x"], 2, "", "a similar argument exists: '--media'"),
        (&["serve", "--rtp-port", "3"], 2, "", "invalid value '3' for '--rtp-port <N>': 3 is odd"),
        (&["serve", "--net", "xdp"], 2, "", "there is \"kernel\""),
        (&["serve", "-c", "none.toml"], 2, "", "none.toml: cannot read the configuration"),
        (
            &["serve", "-c", "bad.toml"],
            2,
            "",
            "bad.toml:1:1: unknown key \"medai\"; did you mean \"media\"?\nbad.toml:2:12: rtp-port: 3 is odd",
        ),
        (&["serve", "--media", "films", "--engine-cores", "1023"], 2, "", "CPU 1023 is not among those"),
        (&["serve", "--memory", "1 MiB", "--chunk", "1 MiB"], 2, "", "holds only 1 chunks"),
    ] {
        let (got, out, err) = tactus(here.path(), args);
        assert_eq!(got, code, "tactus {args:?}\n{out}{err}");
        assert!(out.contains(stdout), "tactus {args:?} stdout:\n{out}");
        assert!(err.contains(stderr), "tactus {args:?} stderr:\n{err}");
        assert!(!stderr.is_empty() || err.is_empty(), "tactus {args:?} stderr:\n{err}");
    }
}

#[test]
fn what_check_prints_is_a_configuration() {
    let here = tempfile::tempdir().unwrap();
    let args = ["serve", "--check", "--media", ".", "--engine-cores", "0", "--http", "off", "--memory", "1 GiB"];
    let (code, printed, err) = tactus(here.path(), &args);
    // CPU 0 may be out of bounds for this process; what is printed is the same.
    assert!(code == 0 || err.contains("CPU 0"), "{err}");
    std::fs::write(here.path().join("t.toml"), &printed).unwrap();
    assert_eq!(tactus(here.path(), &["serve", "--check", "-c", "t.toml"]).1, printed);
}
