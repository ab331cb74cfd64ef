//! From arrivals of the [`rtsp_client`](super::rtsp_client) back to samples, and from these to their places in the file.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use dataplane::media::Codec;
use dataplane::payload::Depacketiser;

use super::rtsp_client::{Arrival, Response};

/// Largest access unit that a test expects.
const UNIT_BYTES_MAX: usize = 4 << 20;

/// One access unit as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// RTP time.
    pub rtp_time: u32,
    /// Bytes in the file's form, H.264 parameter sets left out.
    pub data: Vec<u8>,
    /// No packet of it is known to be missing.
    pub intact: bool,
}

/// The access units of one track among `arrivals`, in order of arrival.
///
/// # Errors
/// A gap in the sequence numbers, or a payload that does not read.
pub fn units(arrivals: &[Arrival], track: usize, codec: &Codec) -> Result<Vec<Unit>, String> {
    let mut depacketiser = Depacketiser::new(codec, UNIT_BYTES_MAX);
    let mut units = Vec::new();
    let mut take = |unit: dataplane::payload::AccessUnit<'_>| {
        let data = if matches!(codec, Codec::H264 { .. }) { without_parameter_sets(unit.data) } else { unit.data.to_vec() };
        if !data.is_empty() {
            units.push(Unit { rtp_time: unit.timestamp, data, intact: unit.intact });
        }
    };
    let mut expected: Option<u16> = None;
    for packet in arrivals.iter().filter(|a| a.track == track).filter_map(Arrival::rtp) {
        if expected.is_some_and(|seq| seq != packet.seq) {
            return Err(format!("track {track}: packet {} came where {expected:?} was due", packet.seq));
        }
        expected = Some(packet.seq.wrapping_add(1));
        depacketiser
            .push(packet.payload, packet.marker, packet.timestamp, &mut take)
            .map_err(|e| format!("track {track}, packet {}: {e}", packet.seq))?;
    }
    depacketiser.flush(&mut take);
    Ok(units)
}

fn without_parameter_sets(mut unit: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(unit.len());
    while let Some((head, rest)) = unit.split_first_chunk::<4>() {
        let length = (u32::from_be_bytes(*head) as usize).min(rest.len());
        let (nal, behind) = rest.split_at(length);
        if nal.first().is_some_and(|header| !(7..=9).contains(&(header & 31))) {
            kept.extend_from_slice(head);
            kept.extend_from_slice(nal);
        }
        unit = behind;
    }
    kept
}

/// One sample of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSample {
    /// Presentation time, nanoseconds.
    pub pts_ns: i64,
    /// A decoder can start here.
    pub sync: bool,
    /// Bytes.
    pub data: Vec<u8>,
}

/// The samples of track `track_id` of a synthetic title (no edit list, no fragments).
///
/// # Errors
/// When the file does not read.
pub fn file_samples(path: &Path, track_id: u32) -> Result<Vec<FileSample>, String> {
    let error = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = File::open(path).map_err(|e| error(&e))?;
    let size = file.metadata().map_err(|e| error(&e))?.len();
    let mut reader = mp4::Mp4Reader::read_header(BufReader::new(file), size).map_err(|e| error(&e))?;
    let timescale = reader.tracks().get(&track_id).map(|t| i64::from(t.timescale().max(1))).ok_or_else(|| error(&"no such track"))?;
    let count = reader.sample_count(track_id).map_err(|e| error(&e))?;
    let mut samples = Vec::with_capacity(count as usize);
    for id in 1..=count {
        let sample = reader.read_sample(track_id, id).map_err(|e| error(&e))?.ok_or_else(|| error(&"a sample is missing"))?;
        let pts = sample.start_time as i64 + i64::from(sample.rendering_offset);
        samples.push(FileSample { pts_ns: pts * 1_000_000_000 / timescale, sync: sample.is_sync, data: sample.bytes.to_vec() });
    }
    Ok(samples)
}

/// Where the received units lie in the file: index of the first. All of them must follow each other there, byte by byte; the last one may be
/// cut off.
///
/// # Errors
/// The first unit that is not where it should be.
pub fn locate(file: &[FileSample], units: &[Unit]) -> Result<std::ops::Range<usize>, String> {
    let head = units.first().ok_or("nothing received")?;
    let mut by_data: HashMap<&[u8], Vec<usize>> = HashMap::new();
    for (i, sample) in file.iter().enumerate() {
        by_data.entry(&sample.data).or_default().push(i);
    }
    let follows = |start: usize| file.iter().skip(start).zip(units).take_while(|(f, u)| f.data == u.data).count();
    let starts = by_data.get(&head.data[..]).ok_or_else(|| format!("the first unit ({} bytes) is not in the file", head.data.len()))?;
    let (equal, start) = starts.iter().map(|s| (follows(*s), *s)).max_by_key(|(n, s)| (*n, usize::MAX - *s)).unwrap_or((0, 0));
    match units.len() - equal {
        0 => Ok(start..start + equal),
        // The last one may have been cut off by PAUSE or TEARDOWN.
        1 if equal > 0 => Ok(start..start + equal),
        _ => Err(format!("unit {equal} of {} is not sample {} of the file", units.len(), start + equal)),
    }
}

/// One track's entry of the RTP-Info header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpInfo {
    /// Control URL.
    pub url: String,
    /// Sequence number of the first packet.
    pub seq: u16,
    /// RTP time of the start of the range.
    pub rtptime: u32,
}

/// Reads RTP-Info (RFC 2326 12.33) of a PLAY response.
///
/// # Errors
/// When it is missing or does not read.
pub fn rtp_info(response: &Response) -> Result<Vec<RtpInfo>, String> {
    let text = response.header("RTP-Info").ok_or("no RTP-Info")?;
    let entry = |entry: &str| {
        let field = |name: &str| entry.split(';').find_map(|f| f.trim().strip_prefix(name)?.strip_prefix('='));
        Some(RtpInfo { url: field("url")?.to_owned(), seq: field("seq")?.parse().ok()?, rtptime: field("rtptime")?.parse().ok()? })
    };
    text.split(',').map(|e| entry(e).ok_or_else(|| format!("RTP-Info does not read: {text}"))).collect()
}

/// Start of the Range header of a PLAY response, nanoseconds of normal play time.
///
/// # Errors
/// When it is missing or does not read.
pub fn range_start_ns(response: &Response) -> Result<i64, String> {
    let text = response.header("Range").ok_or("no Range")?;
    let start = text.trim().strip_prefix("npt=").and_then(|r| r.split('-').next()).and_then(|s| s.trim().parse::<f64>().ok());
    start.map(|s| (s * 1e9).round() as i64).ok_or_else(|| format!("Range does not read: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_found_in_the_file_and_a_hole_is_seen() {
        let file: Vec<FileSample> = (0..5u8).map(|i| FileSample { pts_ns: 0, sync: true, data: vec![i, i] }).collect();
        let unit = |i: u8| Unit { rtp_time: 0, data: vec![i, i], intact: true };
        assert_eq!(locate(&file, &[unit(1), unit(2)]), Ok(1..3));
        assert_eq!(locate(&file, &[unit(1), unit(9)]), Ok(1..2));
        assert!(locate(&file, &[unit(1), unit(3), unit(4)]).is_err());
        assert!(locate(&file, &[unit(9)]).is_err());
    }

    #[test]
    fn play_headers_are_read() {
        let headers = vec![
            ("Range".to_owned(), "npt=3.52-10".to_owned()),
            ("RTP-Info".to_owned(), "url=rtsp://a/b/track1;seq=7;rtptime=99, url=rtsp://a/b/track2;seq=8;rtptime=100".to_owned()),
        ];
        let response = Response { status: 200, headers, body: String::new() };
        assert_eq!(range_start_ns(&response), Ok(3_520_000_000));
        assert_eq!(rtp_info(&response).unwrap()[1], RtpInfo { url: "rtsp://a/b/track2".into(), seq: 8, rtptime: 100 });
    }

    #[test]
    fn parameter_sets_are_left_out() {
        assert_eq!(without_parameter_sets(&[0, 0, 0, 1, 0x67, 0, 0, 0, 2, 0x65, 1]), [0, 0, 0, 2, 0x65, 1]);
    }
}
