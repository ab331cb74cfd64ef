//! Two engine cores on one interface, each with a queue of it: whatever comes by the wrong queue, players receive the file bit by bit, and a
//! hundred clients lose nothing.

mod support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::clip::{self, ClipSpec, catalogue};
use testbed::load::report::Report;
use testbed::load::{self, Options, TransportKind};
use testbed::own_stack;
use testbed::player::compare::Comparison;
use testbed::player::ffmpeg;
use testbed::serve::Server;

const CLIP: &str = "h264-aac.mp4";
const CLIENTS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the test named so once more, in a network namespace of its own, where servers have two engine cores over AF_XDP; true in there.
fn inside(test: &str) -> bool {
    if std::env::var_os(own_stack::CORES_VARIABLE).is_some() {
        return true;
    }
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !root {
        assert!(std::env::var("CI").is_err(), "{test} needs root, and CI must run everything");
        eprintln!("SKIPPED (needs root): {test}");
        return false;
    }
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(own_stack::VARIABLE, "af_xdp").env(own_stack::CORES_VARIABLE, "2");
    assert!(command.status().unwrap().success(), "{test}, in its namespace");
    false
}

#[test]
fn players_and_a_hundred_clients_on_two_engine_cores() {
    if !support::have(&["ffmpeg", "ip", "ethtool", "unshare"]) || !inside("players_and_a_hundred_clients_on_two_engine_cores") {
        return;
    }
    let media = tempfile::tempdir().unwrap();
    let film = support::clips().join(CLIP);
    std::fs::copy(&film, media.path().join(CLIP)).unwrap();
    let spec = ClipSpec { seconds: 30, ..ClipSpec::default() };
    clip::make_clips(&spec, 4, &media.path().join("titles")).unwrap();
    let server = Server::start(media.path(), &["--memory", "256MiB"]).unwrap();
    std::thread::scope(|scope| {
        for transport in ["udp", "tcp"] {
            let url = server.url(CLIP);
            let film = &film;
            scope.spawn(move || bit_by_bit(&url, transport, film));
        }
        for transport in [TransportKind::Udp, TransportKind::Tcp] {
            without_loss(&server, transport);
        }
    });
    add_up(&server);
}

fn bit_by_bit(url: &str, transport: &str, film: &Path) {
    let video = catalogue::entry(CLIP).unwrap().video;
    let file = ffmpeg::file_packets(film, video).unwrap();
    let receive = ffmpeg::Receive { url, transport, video, seek_s: None, raw_audio: None, limit: PATIENCE };
    let (got, outcome) = ffmpeg::receive(&receive).unwrap();
    assert!(outcome.ok(), "{transport}: {}", outcome.stderr);
    let found = Comparison::default().streams(&file, &got).unwrap();
    assert_eq!(found.len(), file.len());
    assert!(found.iter().all(|stream| stream.missing_at_end == 0), "{transport}: {found:?}");
}

fn without_loss(server: &Server, transport: TransportKind) {
    let url = server.url("titles/clip-000{n}.mp4");
    let options = Options {
        url: vec![url],
        titles: 4,
        clients: CLIENTS,
        ramp: 200.0,
        duration: 3.0,
        transport,
        video_only: true,
        seek_every: None,
        churn: None,
        from: None,
        cpu: None,
        drift_ppm: None,
        settle: 1.0,
        starve: 5.0,
        sweep_ms: 2,
        noise: 0.0,
        ordinary: true,
        per_stream: false,
        quiet: true,
    };
    let outcomes = load::run(&options, &mut |_| true).unwrap();
    let report = Report::new(&options, &outcomes, None);
    assert_eq!(report.metric("playing"), CLIENTS as f64, "{transport:?}: {:?} {:?}", report.refused, report.failed);
    // What this machine drops at the clients' own sockets is no loss of the server's.
    let lost = report.metric("loss") - report.metric("receiver_drops");
    assert!(lost <= 0.0 && report.metric("packets") > 1000.0, "{transport:?}:\n{}", report.table());
}

/// Both cores have served, both have handed over, and what one handed over the other has taken over.
fn add_up(server: &Server) {
    let start = Instant::now();
    loop {
        let status = server.json("/api/v1/status").unwrap();
        let of = |core: usize, name: &str| status["cores"][core]["own_stack"][name].as_u64().unwrap_or(0);
        assert!(status["cores"][2].is_null() && (0..2).all(|core| status["cores"][core]["packets"].as_u64() > Some(1000)), "{status}");
        assert!((0..2).all(|core| of(core, "handed_over") > 0 && of(core, "tcp_established") > 0), "{status}");
        assert!((0..2).all(|core| of(core, "handover_dropped") == 0 && of(core, "malformed") == 0), "{status}");
        assert_eq!(status["cores"][0]["own_stack"]["on_other_queues"], 0, "{status}");
        // The cores are asked one after the other, and a frame may be under way between them.
        if of(0, "handed_over") == of(1, "taken_over") && of(1, "handed_over") == of(0, "taken_over") {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}
