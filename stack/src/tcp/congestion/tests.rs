use super::*;

const MSS: u64 = 1448;
const RTT_NS: u64 = 100_000_000;

/// The window after each of `rounds` round trips in which a full window was acknowledged, in segments.
fn rounds(congestion: &mut Congestion, from_ns: u64, rounds: u64) -> Vec<u64> {
    let mut windows = Vec::new();
    for round in 0..rounds {
        let segments = congestion.cwnd / MSS;
        for i in 0..segments {
            let now_ns = from_ns + round * RTT_NS + i * RTT_NS / segments;
            congestion.acknowledged(MSS, Acked { now_ns, bytes: MSS, srtt_ns: RTT_NS });
        }
        windows.push(congestion.cwnd / MSS);
    }
    windows
}

#[test]
fn the_initial_window_is_ten_segments_within_bounds() {
    assert_eq!(Congestion::initial(1448), 14_480);
    assert_eq!(Congestion::initial(536), 5_360);
    assert_eq!(Congestion::initial(1460), 14_600);
    assert_eq!(Congestion::initial(8948), 17_896, "two segments at least");
}

#[test]
fn slow_start_doubles_and_ends_at_the_threshold() {
    let mut congestion = Congestion::new(Algorithm::NewReno, MSS);
    congestion.ssthresh = 50 * MSS;
    assert_eq!(rounds(&mut congestion, 0, 5), [20, 40, 50, 51, 52]);
}

#[test]
fn newreno_halves_and_grows_by_one() {
    let mut congestion = Congestion::new(Algorithm::NewReno, MSS);
    congestion.cwnd = 100 * MSS;
    congestion.congested(80 * MSS, MSS);
    assert_eq!(congestion.ssthresh, 40 * MSS, "half of what was in flight, not of the window");
    congestion.cwnd = congestion.ssthresh;
    assert_eq!(rounds(&mut congestion, 0, 3), [41, 42, 43]);
    congestion.undo();
    assert_eq!((congestion.cwnd, congestion.ssthresh), (100 * MSS, u64::MAX));
}

#[test]
fn cubic_returns_to_the_old_window_in_k_seconds() {
    let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
    congestion.cwnd = 500 * MSS;
    congestion.congested(500 * MSS, MSS);
    assert!(congestion.ssthresh.abs_diff(350 * MSS) <= 1);
    congestion.cwnd = congestion.ssthresh;
    // RFC 9438 4.2: K = cbrt((500 - 350) / 0.4) = 7.2 s.
    let windows = rounds(&mut congestion, 1_000_000_000, 110);
    let after = |seconds: f64| windows[(seconds * 10.0) as usize - 1];
    let formula = |t: f64| (0.4 * (t - 7.21f64).powi(3) + 500.0) as u64;
    for seconds in [2.0, 4.0, 7.2, 10.0] {
        let (is, should) = (after(seconds), formula(seconds));
        assert!(is.abs_diff(should) <= 6, "{is} segments after {seconds} s, {should} by the formula");
    }
}

#[test]
fn cubic_is_no_slower_than_reno_on_a_short_path() {
    let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
    congestion.cwnd = 20 * MSS;
    congestion.congested(20 * MSS, MSS);
    congestion.cwnd = congestion.ssthresh;
    // 14 segments, 0.53 more in each round trip of 100 ms as Reno would; the cubic law alone would need 2.5 s for 6 segments.
    let windows = rounds(&mut congestion, 1, 10);
    assert!((18..=20).contains(&windows[9]), "{windows:?}");
}

#[test]
fn fast_convergence_gives_way() {
    let after_six_seconds = |second: u64| {
        let mut congestion = Congestion::new(Algorithm::Cubic, MSS);
        for cwnd in [1000, second] {
            congestion.cwnd = cwnd * MSS;
            congestion.congested(cwnd * MSS, MSS);
        }
        congestion.cwnd = congestion.ssthresh;
        *rounds(&mut congestion, 1, 60).last().unwrap()
    };
    // RFC 9438 4.7: 765 is the goal after a loss at 900 that follows one at 1000; 900 would be without it.
    let (high, low) = (after_six_seconds(1000), after_six_seconds(900));
    assert!((980..=995).contains(&high), "{high}");
    assert!((755..=775).contains(&low), "{low}");
}
