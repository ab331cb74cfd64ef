//! The sender against the receiver: what was done wrong on purpose, and nothing else, is found.
//!
//! First in computed time, where every figure is exact, then over real sockets, where the counts must agree and the times have bounds that
//! no busy machine can break.

use super::pacer::{Books, Media, Outgoing, Pacer};
use super::pattern::Pattern;
use super::{Options, Report, Sender};
use crate::lateness::Meter;
use crate::load::flow::Flow;
use crate::load::{self, TransportKind};

const MS: u64 = 1_000_000;

fn pattern(lose: &str, duplicate: &str, reorder: &str, late: &[&str]) -> Pattern {
    let late = late.iter().map(|l| l.parse().unwrap()).collect();
    Pattern { lose: lose.parse().ok(), duplicate: duplicate.parse().ok(), reorder: reorder.parse().ok(), late }
}

/// All packets of one stream that leave in `seconds`, with the times at which they do.
fn trace(pattern: &Pattern, seconds: u64) -> (Media, Vec<Outgoing>, Books) {
    let media = Media::new(1_400_000, 25).unwrap();
    let mut pacer = Pacer::new(media, pattern.clone(), 1);
    let start_ns = 1_000 * MS;
    pacer.start(0, start_ns);
    let mut out = Vec::new();
    pacer.take_due(start_ns + seconds * 1_000 * MS, usize::MAX, &mut out);
    pacer.stop_all();
    (media, out, pacer.books())
}

/// What the load generator's own accounting makes of a trace.
fn receive(media: &Media, trace: &[Outgoing]) -> load::totals::Totals {
    let mut totals = load::totals::Totals::default();
    totals.judge.steady_ns = (0, u64::MAX);
    let mut flow = Flow::new(90_000, None, Meter::new(90_000, 0.0, 0, 1_024));
    flow.await_run(Some(0));
    for packet in trace {
        let mut head = [0; 12];
        head[0] = 0x80;
        head[2..4].copy_from_slice(&(packet.index as u16).to_be_bytes());
        head[4..8].copy_from_slice(&media.timestamp(packet.index).to_be_bytes());
        flow.on_rtp(packet.planned_ns, &head, 12 + media.payload_bytes as usize, &mut totals);
    }
    flow.finish(None, &mut totals);
    totals
}

#[test]
fn a_stream_has_the_rate_asked_for() {
    for (rate, fps) in [(1_400_000, 25), (64_000, 5), (20_000_000, 50), (300, 25)] {
        let media = Media::new(rate, fps).unwrap();
        let bits = media.payload_bytes * media.packets_per_frame * 8 * u64::from(fps);
        // A frame has a whole number of bytes in each packet.
        assert!(bits <= rate && rate - bits <= 8 * u64::from(fps) * (media.packets_per_frame + 1), "{rate}: {bits}");
        let second = u64::from(fps) * media.packets_per_frame;
        assert_eq!((media.due_ns(second), media.timestamp(second)), (1_000 * MS, 90_000));
        assert!((0..3 * second).all(|k| media.due_ns(k) < media.due_ns(k + 1)));
    }
    assert!(Media::new(1_400_000, 0).is_none() && Media::new(1_400_000, 7).is_none() && Media::new(10, 25).is_none());
}

#[test]
fn faults_are_found_exactly_in_computed_time() {
    for pattern in [
        pattern("", "", "", &[]),
        pattern("1/100", "", "", &[]),
        pattern("", "1/50", "", &[]),
        pattern("", "", "1/20", &[]),
        // Later than the next packet, and than the next frame.
        pattern("", "", "", &["10ms/40", "100ms/90"]),
        pattern("1/10", "1/9", "1/8", &["5ms/7"]),
        pattern("9/10", "1/2", "1/3", &["30ms/5"]),
    ] {
        let (media, sent, books) = trace(&pattern, 60);
        let found = receive(&media, &sent);
        let counts =
            Books { packets: found.packets, lost: found.lost, reordered: found.reordered, duplicates: found.duplicates, late: books.late };
        assert_eq!(counts, books, "{pattern:?}");
        assert_eq!(found.strays + found.restarts, 0);
    }
    let (_, sent, books) = trace(&pattern("1/100", "1/50", "", &[]), 60);
    assert_eq!((books.lost, books.duplicates), (90, 180));
    assert_eq!(sent.len() as u64, books.packets + books.duplicates);
}

#[test]
fn lateness_is_found_exactly_in_computed_time() {
    let (media, sent, books) = trace(&pattern("", "", "", &["5ms/100", "3ms/40"]), 60);
    assert_eq!(books.reordered, 0, "the gap between packets is longer");
    let found = receive(&media, &sent);
    let late = &found.judge.steady.even;
    // The last frame's length is unknown: it is not judged.
    let (judged, _) = sent.split_at(late.len() as usize);
    let of = |ns: u64| judged.iter().filter(|p| p.planned_ns - p.due_ns == ns).count() as u64;
    let between = |from: u64, to: u64| late.count_between(from, to);
    assert!(late.len() + media.packets_per_frame >= books.packets);
    assert!(of(5 * MS) >= 80 && of(3 * MS) >= 200);
    // The histogram keeps three digits; the shares of a frame are rounded down to nanoseconds.
    assert_eq!(between(4_990_000, 5_010_000), of(5 * MS));
    assert_eq!(between(2_990_000, 3_010_000), of(3 * MS));
    assert_eq!(between(0, 10), of(0));
    assert!(found.judge.steady.packet().1, "a paced sender is judged as one");
}

/// Load against the sender, both of this process, over real sockets.
fn play(pattern: Pattern, clients: usize, duration: f64) -> (load::Outcomes, Report) {
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        rate: 400_000,
        fps: 25,
        clients,
        cpu: None,
        seconds: None,
        log: Some("unused".into()),
        pattern,
    };
    let sender = Sender::start(&options).unwrap();
    let load = load::Options {
        url: vec![format!("rtsp://{}/stream", sender.address)],
        titles: 1,
        clients,
        ramp: 100.0,
        duration,
        transport: TransportKind::Udp,
        video_only: false,
        seek_every: None,
        churn: None,
        from: None,
        cpu: None,
        drift_ppm: None,
        settle: 0.2,
        starve: 1.0,
        sweep_ms: 2,
        noise: 0.0,
        per_stream: false,
        ordinary: true,
        quiet: true,
    };
    let outcomes = load::run(&load, &mut |_| true).unwrap();
    (outcomes, sender.stop().unwrap())
}

#[test]
fn faults_are_found_exactly_over_sockets() {
    let (outcomes, report) = play(pattern("1/50", "1/30", "1/20", &["30ms/25"]), 10, 3.0);
    let totals = &outcomes.totals;
    assert_eq!((totals.accepted, totals.failed_all(), totals.strays), (10, 0, 0), "{:?}", totals.failed);
    assert_eq!(outcomes.receiver_drops, 0);
    let Books { packets, lost, reordered, duplicates, late } = report.sent.books;
    assert!(packets > 500 && lost > 10 && reordered > 20 && duplicates > 15 && late > 15, "{:?}", report.sent.books);
    assert_eq!((totals.packets, totals.lost, totals.reordered, totals.duplicates), (packets, lost, reordered, duplicates));
}

#[test]
fn lateness_over_sockets_is_at_least_what_was_sent_late() {
    let (outcomes, report) = play(pattern("", "", "", &["60ms/25"]), 4, 4.0);
    let judge = &outcomes.totals.judge;
    // Packets may be later than on purpose on a busy machine, never earlier. The line that all are measured from lies at the least
    // delay of thousands of packets; 20 ms of the 60 are left to it.
    let found: u64 = [&judge.ramp.even, &judge.steady.even].into_iter().map(|h| h.count_between(40 * MS, u64::MAX >> 20)).sum();
    // Of each stream the frames that were open at the end are not judged.
    let open = 4 * 2;
    assert!(report.sent.books.late > 20);
    assert!(found + open >= report.sent.books.late, "{found} of {} late packets found", report.sent.books.late);
    let log = report.log_csv();
    assert_eq!(log.lines().count() as u64, 1 + report.sent.books.packets);
    assert!(report.sent.log.iter().all(|l| l.sent_ns >= l.due_ns));
}
