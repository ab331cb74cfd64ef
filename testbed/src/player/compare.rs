//! Received packets against those of the file: same bytes, same order, nothing missing, same times.

use super::ffmpeg::{Packet, Stream};

/// What comparing one stream found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// "video" or "audio".
    pub kind: String,
    /// Index in the file of the first packet received.
    pub first: usize,
    /// The file's presentation time of that packet, nanoseconds.
    pub first_pts_ns: Option<i64>,
    /// Packets received, all equal to the file's from `first` on.
    pub packets: usize,
    /// Packets of the file behind the last one received.
    pub missing_at_end: usize,
    /// Largest difference between received and file times, after one common shift of all streams, nanoseconds.
    pub deviation_ns_max: i64,
    /// Longest packet of the file's stream, nanoseconds: one sample.
    pub sample_ns: i64,
}

/// Compares the streams of one reception. One time shift, that of the first packet with a time, is taken off all streams, so that sound out
/// of step with the picture shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    /// Packets at the front that may be left-overs from before a seek: what was still in the player's sockets, and a frame of which it got
    /// one half.
    pub stale_max: usize,
    /// Leave the time of each stream's first packet out: ffmpeg's parsers give it the time from before a seek.
    pub ignore_first_time: bool,
    shift_ns: Option<i64>,
}

impl Comparison {
    /// For a reception that began with a seek (see the fields).
    pub fn after_seek(stale_max: usize, ignore_first_time: bool) -> Self {
        Self { stale_max, ignore_first_time, shift_ns: None }
    }

    /// Compares all streams of `got` with those of `file`, the n-th of a kind with the n-th of that kind.
    ///
    /// # Errors
    /// The first difference in content.
    pub fn streams(&mut self, file: &[Stream], got: &[Stream]) -> Result<Vec<Match>, String> {
        let mut found = Vec::new();
        for (index, stream) in got.iter().enumerate() {
            let before = got.iter().take(index).filter(|s| s.kind == stream.kind).count();
            let of_file = file.iter().filter(|s| s.kind == stream.kind).nth(before);
            let of_file = of_file.ok_or_else(|| format!("the file has no {} stream number {before}", stream.kind))?;
            let from = |stale: usize| stream.packets.get(stale..).unwrap_or_default();
            let stale = (1..=self.stale_max).find(|n| follow(&of_file.packets, from(*n)).is_some_and(|(_, equal)| equal == from(*n).len()));
            let all = follow(&of_file.packets, &stream.packets).is_some_and(|(_, equal)| equal == stream.packets.len());
            let packets = if all { &stream.packets } else { from(stale.unwrap_or(0)) };
            found.push(self.stream(&stream.kind, &of_file.packets, packets)?);
        }
        Ok(found)
    }

    fn stream(&mut self, kind: &str, file: &[Packet], got: &[Packet]) -> Result<Match, String> {
        let Some(head) = got.first() else { return Err(format!("{kind}: nothing received")) };
        let Some((first, equal)) = follow(file, got) else {
            return Err(format!("{kind}: the first packet received ({} bytes, {}) is not in the file", head.size, head.md5));
        };
        if equal < got.len() {
            let elsewhere = got.get(equal).and_then(|g| file.iter().position(|f| f.md5 == g.md5));
            return Err(format!(
                "{kind}: packet {equal} of {} received (file packet {}) differs: file {:?}, received {:?}, which the file has at {elsewhere:?}",
                got.len(),
                first + equal,
                file.get(first + equal),
                got.get(equal),
            ));
        }
        let mut deviation_ns_max = 0;
        for (f, g) in file.iter().skip(first).zip(got).skip(usize::from(self.ignore_first_time)) {
            // What only primes a decoder has negative times; ffmpeg makes those of decode order up.
            if let (Some(in_file @ 0..), Some(received)) = (f.pts_ns, g.pts_ns) {
                let difference = received - in_file;
                deviation_ns_max = deviation_ns_max.max((difference - *self.shift_ns.get_or_insert(difference)).abs());
            }
        }
        Ok(Match {
            kind: kind.to_owned(),
            first,
            first_pts_ns: file.get(first).and_then(|p| p.pts_ns),
            packets: got.len(),
            missing_at_end: file.len() - first - got.len(),
            deviation_ns_max,
            sample_ns: file.iter().map(|p| p.duration_ns).max().unwrap_or(0),
        })
    }

    /// Compares audio that has no packets of its own (G.711): `got` holds the bytes of `packets`, `file` all of the file's.
    /// `Match::first` and `Match::missing_at_end` are then bytes.
    ///
    /// # Errors
    /// The first difference in content.
    pub fn bytes(&mut self, file: &[u8], got: &[u8], packets: &[Packet], bytes_per_second: i64) -> Result<Match, String> {
        // Left-overs are whole packets.
        let without = |stale: usize| packets.iter().take(stale).map(|p| p.size as usize).sum::<usize>();
        let find = |got: &[u8]| file.windows(got.len().max(1)).position(|w| w == got);
        let stale = (0..=self.stale_max).find(|n| got.get(without(*n)..).is_some_and(|got| find(got).is_some())).unwrap_or(0);
        let (got, packets) = (got.get(without(stale)..).unwrap_or_default(), packets.get(stale..).unwrap_or_default());
        let head = got.get(..got.len().min(800)).unwrap_or_default();
        let first = find(head).ok_or("audio: the first bytes received are not in the file")?;
        if let Some(at) = file.iter().skip(first).zip(got).position(|(f, g)| f != g) {
            return Err(format!("audio: byte {at} received differs from byte {} of the file", first + at));
        }
        let missing_at_end = (file.len() - first).checked_sub(got.len()).ok_or("audio: more bytes received than the file has")?;
        let mut deviation_ns_max = 0;
        let mut position = first as i64;
        for packet in packets {
            let in_file = position * 1_000_000_000 / bytes_per_second.max(1);
            if let Some(received) = packet.pts_ns {
                let difference = received - in_file;
                deviation_ns_max = deviation_ns_max.max((difference - *self.shift_ns.get_or_insert(difference)).abs());
            }
            position += packet.size as i64;
        }
        let first_pts_ns = Some(first as i64 * 1_000_000_000 / bytes_per_second.max(1));
        let packets = packets.len();
        Ok(Match { kind: "audio".into(), first, first_pts_ns, packets, missing_at_end, deviation_ns_max, sample_ns: 20_000_000 })
    }
}

/// Where `got` begins in `file`, and how many packets from there on are equal. A packet may occur twice in a file: of all places where the
/// first one fits the one where most of the others do, too.
fn follow(file: &[Packet], got: &[Packet]) -> Option<(usize, usize)> {
    let head = got.first()?;
    let equal = |start: usize| file.iter().skip(start).zip(got).take_while(|(f, g)| f.md5 == g.md5).count();
    let starts = file.iter().enumerate().filter(|(_, f)| f.md5 == head.md5).map(|(i, _)| (i, equal(i)));
    starts.max_by_key(|(start, equal)| (*equal, usize::MAX - *start))
}

/// The NAL units of an Annex B stream, without those types that `leave_out` names (given the first header byte).
pub fn nal_units(annex_b: &[u8], leave_out: impl Fn(u8) -> bool) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(window) = annex_b.get(at..at + 3) {
        if window == [0, 0, 1] {
            starts.push(at);
            at += 3;
        } else {
            at += 1;
        }
    }
    let ends = starts.iter().skip(1).copied().chain([annex_b.len()]);
    let units = starts.iter().zip(ends).filter_map(|(start, end)| {
        let mut unit = annex_b.get(start + 3..end)?;
        // A unit never ends in zeros: they belong to the next, longer start code.
        while let Some((0, rest)) = unit.split_last() {
            unit = rest;
        }
        Some(unit)
    });
    units.filter(|u| u.first().is_some_and(|header| !leave_out(*header))).collect()
}

/// Compares two sequences of byte strings; `got` must be `file`, at most `head` missing at the front.
///
/// # Errors
/// The first difference.
pub fn compare_units(file: &[&[u8]], got: &[&[u8]], head: usize) -> Result<(), String> {
    let missing = file.len().saturating_sub(got.len());
    if missing > head || got.len() > file.len() {
        return Err(format!("{} units received, {} in the file", got.len(), file.len()));
    }
    match file.iter().skip(missing).zip(got).position(|(f, g)| f != g) {
        Some(at) => Err(format!("unit {at} of {} differs from unit {} of the file", got.len(), at + missing)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(kind: &str, packets: &[(i64, &str)]) -> Stream {
        let packet = |&(pts, md5): &(i64, &str)| Packet { pts_ns: Some(pts), duration_ns: 40, size: 10, md5: md5.into() };
        Stream { kind: kind.into(), packets: packets.iter().map(packet).collect() }
    }

    #[test]
    fn a_part_of_the_file_is_found_and_late_sound_is_seen() {
        let file = [stream("video", &[(0, "a"), (40, "b"), (80, "c"), (120, "b")]), stream("audio", &[(0, "x"), (50, "y"), (100, "z")])];
        let got = [stream("video", &[(1000, "b"), (1040, "c")]), stream("audio", &[(1010, "y"), (1085, "z")])];
        let found = Comparison::default().streams(&file, &got).unwrap();
        assert_eq!((found[0].first, found[0].packets, found[0].missing_at_end, found[0].deviation_ns_max), (1, 2, 1, 0));
        assert_eq!((found[1].first, found[1].deviation_ns_max), (1, 25));
    }

    #[test]
    fn a_lost_or_changed_packet_is_an_error() {
        let file = [stream("video", &[(0, "a"), (40, "b"), (80, "c")])];
        assert!(Comparison::default().streams(&file, &[stream("video", &[(0, "a"), (80, "c")])]).unwrap_err().contains("packet 1"));
        assert!(Comparison::default().streams(&file, &[stream("video", &[(0, "q")])]).is_err());
        assert!(Comparison::default().streams(&file, &[stream("audio", &[(0, "a")])]).is_err());
    }

    #[test]
    fn leftovers_of_a_seek_are_passed_over_but_not_more_than_allowed() {
        let file = [stream("video", &[(0, "a"), (40, "b"), (80, "c"), (120, "d")])];
        let got = [stream("video", &[(0, "a"), (40, "half"), (1080, "c"), (1120, "d")])];
        let mut comparison = Comparison { stale_max: 2, ..Comparison::default() };
        let found = comparison.streams(&file, &got).unwrap();
        assert_eq!((found[0].first, found[0].packets, found[0].deviation_ns_max), (2, 2, 0));
        assert!(Comparison { stale_max: 1, ..Comparison::default() }.streams(&file, &got).is_err());
    }

    #[test]
    fn audio_without_packets_is_placed_by_its_bytes() {
        let file: Vec<u8> = (0..4000u32).map(|i| (i * 7 % 251) as u8 ^ (i / 251) as u8).collect();
        let packet = |pts_ns| Packet { pts_ns: Some(pts_ns), duration_ns: 0, size: 1000, md5: String::new() };
        let packets = [packet(5_000_000_000), packet(5_125_000_000), packet(5_300_000_000)];
        let found = Comparison::default().bytes(&file, &file[800..3800], &packets, 8000).unwrap();
        assert_eq!((found.first, found.missing_at_end, found.deviation_ns_max), (800, 200, 50_000_000));
        let mut changed = file[800..].to_vec();
        changed[2000] ^= 1;
        assert!(Comparison::default().bytes(&file, &changed, &packets, 8000).unwrap_err().contains("byte 2000"));
    }

    #[test]
    fn annex_b_is_split_at_both_start_codes() {
        let bytes = [0, 0, 0, 1, 0x67, 9, 0, 0, 1, 0x65, 1, 2, 0, 0, 0, 1, 0x41, 3];
        assert_eq!(nal_units(&bytes, |h| h & 31 == 7), [&[0x65, 1, 2][..], &[0x41, 3]]);
    }
}
