//! The most that one engine core holds with no packet lost and 99.9 % of packets less late than a period of the published engine: streams, when
//! all are of different titles, so that each of them is read from the disk; and paced packets, when few titles of a high rate are in memory.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Args, BenchError, Observed, Place, trouble, video_over_udp};
use crate::clip::{ClipSpec, make_clips};
use crate::net;
use crate::peers::Peer;

/// Rate of different titles, as the published measurements have it.
const RATE_BPS: u64 = 1_420_000;
/// Rate of the titles in memory, how many there are, and how often they are played at most.
const PACKETS_RATE_BPS: u64 = 14_200_000;
const PACKETS_TITLES: usize = 8;
const PACKETS_STREAMS_MAX: usize = 500;
/// 99.9 % of packets are less late than this, the published engine's period.
const LATE_P999_MAX_MS: f64 = 8.0;
/// Length of a trial.
const SECONDS: f64 = 6.0;
/// Clients that begin per second.
const RAMP: f64 = 400.0;
/// Stragglers and the end come on top of ramp and trial.
const EXTRA_SECONDS: f64 = 16.0;
/// The search ends when the least that failed is above the most that held by no more than one in so many.
const CLOSE: usize = 16;
/// The load generator runs here; the engine core is the last one.
const GENERATOR_CPU: usize = 0;

/// What is asked of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum What {
    /// As many different titles as it can.
    Titles,
    /// As many packets as it can.
    Packets,
}

impl What {
    fn rate_bps(self) -> u64 {
        if self == Self::Titles { RATE_BPS } else { PACKETS_RATE_BPS }
    }

    /// Most streams that can be asked for.
    fn streams_max(self, args: &Args) -> usize {
        if self == Self::Titles { args.titles } else { PACKETS_STREAMS_MAX }
    }

    fn titles(self, args: &Args) -> usize {
        if self == Self::Titles { args.titles } else { PACKETS_TITLES }
    }
}

/// One number of streams that was tried.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// How many.
    pub streams: usize,
    /// Packets sent in a second.
    pub packets_per_s: f64,
    /// Packets lost.
    pub lost: f64,
    /// Lateness of packets, milliseconds.
    pub late_p999_ms: f64,
    /// The longest wait of a spinning thread in the second before, milliseconds.
    pub noise_max_ms: f64,
    /// How busy the engine core was, as it says itself, percent.
    pub busy_percent: Option<f64>,
    /// Why it does not count, if it does not.
    pub failed: Option<String>,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// What was asked.
    pub what: What,
    /// How the server reached its clients.
    pub over: &'static str,
    /// No more streams than this could be found.
    pub streams_max: usize,
    /// Trials in the order made.
    pub trials: Vec<Trial>,
}

impl Held {
    /// The most that held.
    pub fn most(&self) -> Option<&Trial> {
        self.trials.iter().filter(|trial| trial.failed.is_none()).max_by_key(|trial| trial.streams)
    }

    fn least_failed(&self) -> Option<&Trial> {
        self.trials.iter().filter(|trial| trial.failed.is_some()).min_by_key(|trial| trial.streams)
    }

    /// The next number to try; `None` when the search is over.
    fn next(&self) -> Option<usize> {
        let most = self.most().map_or(0, |trial| trial.streams);
        let next = match self.least_failed().map(|trial| trial.streams) {
            // A disturbed trial below what held before says nothing about what is above.
            Some(failed) if failed <= most => return None,
            Some(failed) => most + (failed - most) / 2,
            None if most == 0 => (self.streams_max / 4).max(1),
            None => (2 * most).min(self.streams_max),
        };
        let is_close = self.least_failed().is_some_and(|failed| failed.streams - most <= failed.streams / CLOSE);
        (next > most && !is_close).then_some(next)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.what == What::Titles { "Different titles, from disk, of" } else { "A few titles, from memory, of" };
        let rate = self.what.rate_bps() as f64 / 1e6;
        write!(f, "{what} {rate:.2} Mbps on one engine core, over {}, none lost and p99.9 below {LATE_P999_MAX_MS} ms: ", self.over)?;
        match self.most() {
            None => write!(f, "none of the numbers tried")?,
            Some(most) => {
                let busy = most.busy_percent.map_or(String::new(), |busy| format!(", busy {busy:.0} %"));
                let more = if most.streams == self.streams_max { " (no more were asked for)" } else { "" };
                let Trial { streams, packets_per_s, late_p999_ms, noise_max_ms, .. } = most;
                write!(
                    f,
                    "{streams} streams{more}, {packets_per_s:.0} packets/s, p99.9 {late_p999_ms:.2} ms{busy}, noise {noise_max_ms:.1} ms"
                )?;
            }
        }
        match self.least_failed() {
            Some(trial) => write!(f, "; {} did not: {}", trial.streams, trial.failed.as_deref().unwrap_or_default()),
            None => Ok(()),
        }
    }
}

/// Searches over kernel sockets, and over AF_XDP where that is allowed.
///
/// # Errors
/// The titles cannot be made, or nothing can be measured.
pub fn search(args: &Args, peer: &Peer) -> Result<Vec<Held>, BenchError> {
    let mut found = Vec::new();
    for what in [What::Titles, What::Packets] {
        let media = media(args, what)?;
        found.push(over(args, peer, &media, what, "kernel sockets", &|| Ok(Place::Loopback))?);
        if net::is_root() {
            found.push(over(args, peer, &media, what, "AF_XDP", &Place::cable)?);
        } else {
            eprintln!("SKIPPED (needs root): the same over AF_XDP");
        }
    }
    Ok(found)
}

fn media(args: &Args, what: What) -> Result<PathBuf, BenchError> {
    let seconds = (SECONDS + what.streams_max(args) as f64 / RAMP + EXTRA_SECONDS).ceil() as u32;
    let titles = what.titles(args);
    let media = args.out.join(format!("hold-{titles}-{}bps-{seconds}s", what.rate_bps()));
    if !media.is_dir() {
        eprintln!("making {titles} titles");
        // In a folder of another name until all are there.
        let part = media.with_extension("part");
        make_clips(&ClipSpec { rate_bps: what.rate_bps(), audio_bps: 0, seconds, ..ClipSpec::default() }, titles as u32, &part)?;
        std::fs::rename(&part, &media).map_err(|e| BenchError::File(media.clone(), e))?;
    }
    Ok(media)
}

fn over(
    args: &Args,
    peer: &Peer,
    media: &Path,
    what: What,
    over: &'static str,
    place: &dyn Fn() -> Result<Place, BenchError>,
) -> Result<Held, BenchError> {
    let mut held = Held { what, over, streams_max: what.streams_max(args), trials: Vec::new() };
    while let Some(streams) = held.next() {
        eprintln!("{streams} streams ({what:?}) over {over}");
        let trial = attempt(args, peer, media, what, streams, &place()?)?;
        if let Some(why) = &trial.failed {
            eprintln!("  {why}");
        }
        held.trials.push(trial);
    }
    Ok(held)
}

fn attempt(args: &Args, peer: &Peer, media: &Path, what: What, streams: usize, place: &Place) -> Result<Trial, BenchError> {
    let cache = if what == What::Titles { "off" } else { "on" };
    let peer = peer.with_options(&[("--cache", cache), ("--poll", "busy"), ("--cpu-share", "100")]);
    let mut server = place.start(&peer, media, streams + 16, &args.out.join(format!("hold-{streams}.log")))?;
    let url = (0..streams).map(|n| server.url(&format!("clip-{:04}.mp4", n % what.titles(args)))).collect();
    let mut options = video_over_udp(url, streams, RAMP, SECONDS);
    options.cpu = Some(GENERATOR_CPU);
    let (Observed { report, died, .. }, busy) = place.observe(&mut server, options)?;
    let (lost, late_p999_ms) = (report.metric("loss"), report.metric("late_p999_ms"));
    let failed = trouble(&report, streams, died).or_else(|| {
        if lost > 0.0 {
            Some(format!("{lost} packets were lost"))
        } else {
            (late_p999_ms >= LATE_P999_MAX_MS).then(|| format!("p99.9 of lateness was {late_p999_ms:.1} ms"))
        }
    });
    let busy_percent = busy.map(|busy| 100.0 * busy);
    Ok(Trial {
        streams,
        packets_per_s: report.metric("packets_per_s"),
        lost,
        late_p999_ms,
        noise_max_ms: report.metric("noise_max_ms"),
        busy_percent,
        failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a server that holds `capacity` streams.
    fn found(streams_max: usize, capacity: usize) -> Held {
        let mut held = Held { what: What::Titles, over: "air", streams_max, trials: Vec::new() };
        while let Some(streams) = held.next() {
            assert!(held.trials.len() < 64 && (1..=streams_max).contains(&streams), "{held:?}");
            let failed = (streams > capacity).then(|| "too many".to_owned());
            held.trials.push(Trial {
                streams,
                packets_per_s: 1.0,
                lost: 0.0,
                late_p999_ms: 1.0,
                noise_max_ms: 0.1,
                busy_percent: Some(50.0),
                failed,
            });
        }
        held
    }

    #[test]
    fn the_search_ends_near_what_can_be_held() {
        use proptest::prelude::*;
        proptest!(|(titles in 1usize..5000, capacity in 0usize..6000)| {
            let held = found(titles, capacity);
            let most = held.most().map_or(0, |trial| trial.streams);
            let can = capacity.min(titles);
            prop_assert!(most <= can && can - most <= can / CLOSE + 1, "{most} of {can}: {held:?}");
        });
    }

    #[test]
    fn the_sentence_tells_where_it_ended() {
        let text = found(1000, 700).to_string();
        assert!(text.contains("1.42 Mbps") && text.contains("did not: too many"), "{text}");
        assert!(found(100, 700).to_string().contains("100 streams (no more were asked for"));
        assert!(found(100, 0).to_string().contains("none of the numbers tried"));
    }
}
