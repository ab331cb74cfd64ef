//! Transport streams made here, whole and damaged, and hostile ones.

use proptest::prelude::*;

use super::psi::crc32;
use super::*;
use crate::delivery::live::RecordHeader;

/// A multiplexer of one picture stream (H.264) and one of sound (ADTS).
struct Mux {
    counters: [u8; 4],
    out: Vec<[u8; PACKET_BYTES]>,
}

const PIDS: [u16; 4] = [0, 0x1000, 0x100, 0x101];

impl Mux {
    fn new() -> Self {
        Self { counters: [0; 4], out: Vec::new() }
    }

    /// Packets of the stream at this place with `bytes` as what begins in the first of them.
    fn packets(&mut self, place: usize, bytes: &[u8]) {
        let (mut rest, mut starts) = (bytes, true);
        while starts || !rest.is_empty() {
            let pid = PIDS[place].to_be_bytes();
            let room = PACKET_BYTES - 4;
            let mut packet = [0xff; PACKET_BYTES];
            let take = rest.len().min(room);
            let stuffing = room - take;
            let control = if stuffing > 0 { 0x30 } else { 0x10 };
            packet[..4].copy_from_slice(&[0x47, pid[0] | if starts { 0x40 } else { 0 }, pid[1], control | self.counters[place]]);
            self.counters[place] = (self.counters[place] + 1) & 0xf;
            if stuffing > 0 {
                packet[4] = (stuffing - 1) as u8;
                if stuffing > 1 {
                    packet[5] = 0;
                }
            }
            packet[4 + stuffing..].copy_from_slice(&rest[..take]);
            rest = &rest[take..];
            starts = false;
            self.out.push(packet);
        }
    }

    fn section(&mut self, place: usize, table: u8, number: u16, body: &[u8]) {
        let length = 5 + body.len() + 4;
        let mut section = vec![table, 0xb0 | (length >> 8) as u8, length as u8];
        section.extend(number.to_be_bytes());
        section.extend([0xc1, 0, 0]);
        section.extend(body);
        section.extend(crc32(&section).to_be_bytes());
        section.insert(0, 0);
        self.packets(place, &section);
    }

    fn tables(&mut self) {
        self.section(0, 0, 1, &[0, 0, 0xe0, 0x10, 0, 1, 0xf0, 0]);
        self.section(1, 2, 1, &[0xe1, 0, 0xf0, 0, 0x1b, 0xe1, 0, 0xf0, 0, 0x0f, 0xe1, 1, 0xf0, 3, 0x0a, 1, 0x65]);
    }

    fn pes(&mut self, place: usize, id: u8, pts: u64, dts: Option<u64>, data: &[u8]) {
        let time = |mark: u8, t: u64| {
            [mark << 4 | (t >> 29) as u8 & 0xe | 1, (t >> 22) as u8, (t >> 14) as u8 | 1, (t >> 7) as u8, (t << 1) as u8 | 1]
        };
        let times = match dts {
            Some(dts) => [time(3, pts), time(1, dts)].concat(),
            None => time(2, pts).to_vec(),
        };
        let length = if place == 2 { 0 } else { 3 + times.len() + data.len() };
        let mut pes =
            vec![0, 0, 1, id, (length >> 8) as u8, length as u8, 0x80, if dts.is_some() { 0xc0 } else { 0x80 }, times.len() as u8];
        pes.extend(times);
        pes.extend(data);
        self.packets(place, &pes);
    }
}

/// A picture as a byte stream, and as it goes on the tape.
fn picture(number: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
    let mut nals: Vec<Vec<u8>> = vec![vec![9, 0xf0]];
    if number.is_multiple_of(10) {
        nals.extend([vec![0x67, 100, 0, 40, 1, 2, 3], vec![0x68, 5, 6], vec![0x65]]);
    } else {
        nals.push(vec![0x41]);
    }
    nals.last_mut().unwrap().extend((0..bytes).map(|at| (at * 7 + number) as u8 | 0x10));
    let stream = nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect();
    let unit = nals.iter().flat_map(|nal| [&(nal.len() as u32).to_be_bytes()[..], nal].concat()).collect();
    (stream, unit)
}

fn adts(payload: &[u8]) -> Vec<u8> {
    let bytes = payload.len() + 7;
    // AAC-LC, 48 kHz, two channels.
    let header = [0xff, 0xf1, 0x4c, 0x80 | (bytes >> 11) as u8, (bytes >> 3) as u8, (bytes << 5) as u8 | 0x1f, 0xfc];
    [&header[..], payload].concat()
}

struct Made {
    packets: Vec<[u8; PACKET_BYTES]>,
    pictures: Vec<Vec<u8>>,
    sound: Vec<Vec<u8>>,
}

/// Pictures at 25 a second with a B picture between any two, and two frames of sound in each PES packet.
fn stream(sizes: &[usize], start: u64) -> Made {
    let mut mux = Mux::new();
    let (mut pictures, mut sound) = (Vec::new(), Vec::new());
    for (number, &bytes) in sizes.iter().enumerate() {
        if number.is_multiple_of(5) {
            mux.tables();
        }
        let (stream, unit) = picture(number, bytes);
        let dts = start + number as u64 * 3600;
        let pts = dts + if number.is_multiple_of(2) { 7200 } else { 3600 };
        mux.pes(2, 0xe0, pts & 0x1_ffff_ffff, Some(dts & 0x1_ffff_ffff), &stream);
        pictures.push(unit);
        let frames: Vec<Vec<u8>> = (0..2).map(|half| vec![(number * 2 + half) as u8 | 1; 20 + bytes % 200]).collect();
        let data: Vec<u8> = frames.iter().flat_map(|frame| adts(frame)).collect();
        mux.pes(3, 0xc0, (start + number as u64 * 3840) & 0x1_ffff_ffff, None, &data);
        sound.extend(frames);
    }
    Made { packets: mux.out, pictures, sound }
}

/// The records of a track.
type Track = Vec<(RecordHeader, Vec<u8>)>;

/// What comes out of these packets, by track.
fn ingest(packets: &[[u8; PACKET_BYTES]]) -> (TsIngest, Vec<Track>) {
    let mut ts = TsIngest::new();
    let mut records = vec![Vec::new(); TRACKS.len()];
    let mut sink = |track: usize, header: &RecordHeader, data: &[u8]| records[track].push((*header, data.to_vec()));
    let datagrams: Vec<Vec<u8>> = packets.chunks(7).map(|chunk| chunk.concat()).collect();
    for (n, datagram) in datagrams.iter().enumerate() {
        ts.datagram(1_000_000_000 + n as u64 * 3_000_000, datagram, &mut sink);
    }
    (ts, records)
}

#[test]
fn a_stream_over_the_end_of_its_clock_is_taken_apart() {
    let sizes: Vec<usize> = (0..60).map(|n| 10 + n * 137 % 5000).collect();
    let made = stream(&sizes, (1 << 33) - 50_000);
    let (mut ts, records) = ingest(&made.packets);
    let data = |track: usize| records[track].iter().map(|(_, data)| data.clone()).collect::<Vec<_>>();
    // The end of the last picture would be shown by another.
    assert!(data(0) == made.pictures[..59] && data(1) == made.sound);
    let described = ts.take_described().unwrap();
    assert!(matches!(&described.tracks[0], Some(Codec::H264 { sps, pps, .. }) if sps.len() == 1 && pps.len() == 1));
    assert_eq!(described.tracks[1], Some(Codec::Aac { config: vec![0x11, 0x90], sample_rate: 48_000, channels: 2 }));
    assert_eq!(described.tracks[2..], [None, None]);
    assert!(ts.take_described().is_none() && ts.is_described());
    for pair in records[0].windows(2) {
        assert_eq!(pair[1].0.dts - pair[0].0.dts, 3600);
        assert!(pair[1].0.at_ns >= pair[0].0.at_ns && pair[1].0.pts_offset >= 3600);
    }
    assert!(records[1].windows(2).all(|pair| pair[1].0.dts - pair[0].0.dts == 1024));
    assert_eq!(records[0].iter().filter(|(header, _)| header.sync).count(), 6);
    // The same in RTP.
    let mut again = TsIngest::new();
    let header = crate::rtp::HeaderTemplate::new(33, 1).packet(false, 1, 1);
    assert!(again.datagram(0, &[&header[..], &made.packets[0]].concat(), &mut |_: usize, _: &RecordHeader, _: &[u8]| {}));
}

#[test]
fn frames_of_mpeg_audio_are_found() {
    // Layer III, 128 kbit/s, 44.1 kHz, joint stereo: 417 or 418 bytes.
    let mut frame = vec![0xff, 0xfb, 0x90, 0x44];
    frame.resize(417, 3);
    let stream = [&frame[..], &frame].concat();
    let (found, bytes) = mpeg_audio_frame(&stream).unwrap();
    assert_eq!((bytes, found.rate, found.channels, found.instants, found.data), (417, 44_100, 2, 1152, &frame[..]));
    assert!(mpeg_audio_frame(&stream[..400]).is_none());
    // MPEG-2 layer III at 24 kHz has half as many instants.
    let mut low = vec![0xff, 0xf3, 0x84, 0xc4];
    low.resize(1000, 0);
    assert_eq!(
        mpeg_audio_frame(&low).map(|(frame, bytes)| (frame.rate, frame.channels, frame.instants, bytes)),
        Some((24_000, 1, 576, 192))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever packets are lost or doubled: what comes out is whole and in order, pictures go on at a sync sample after each loss, and
    /// all that was not touched comes out.
    #[test]
    fn what_is_damaged_is_left_out(
        sizes in prop::collection::vec(0usize..2500, 10..60),
        start in 0u64..1 << 33,
        fates in prop::collection::vec(0u16..400, 1..200),
    ) {
        let made = stream(&sizes, start);
        let mut packets = Vec::new();
        for (n, packet) in made.packets.iter().enumerate() {
            match fates[n % fates.len()] {
                0 | 1 => {}
                2 => packets.extend([*packet, *packet]),
                _ => packets.push(*packet),
            }
        }
        let whole = !fates.iter().any(|&fate| fate < 2);
        let (_, records) = ingest(&packets);
        let mut at = None::<usize>;
        for (header, data) in &records[0] {
            let from = at.map_or(0, |at| at + 1);
            let found = made.pictures[from..].iter().position(|unit| unit == data).map(|n| from + n);
            prop_assert!(found.is_some(), "a picture that is none, or is out of order");
            prop_assert!(found == Some(from) || header.sync);
            at = found;
        }
        if whole {
            prop_assert_eq!(records[0].len() + 1, made.pictures.len());
            prop_assert_eq!(records[1].len(), made.sound.len());
        }
        prop_assert!(records[1].iter().all(|(_, data)| made.sound.contains(data)));
    }

    #[test]
    fn any_packets_are_survived(
        packets in prop::collection::vec((0usize..5, any::<bool>(), 0u8..16, 0u8..4, prop::collection::vec(any::<u8>(), 0..184)), 0..60),
        valid in 0usize..12,
    ) {
        let mut mux = Mux::new();
        mux.tables();
        let mut datagrams: Vec<Vec<u8>> = mux.out[..valid.min(mux.out.len())].iter().map(|packet| packet.to_vec()).collect();
        for (place, starts, counter, control, body) in packets {
            let pid = PIDS.get(place).copied().unwrap_or(0x55).to_be_bytes();
            let mut packet = vec![0x47, pid[0] | if starts { 0x40 } else { 0 }, pid[1], control << 4 | counter];
            packet.extend(&body);
            packet.resize(PACKET_BYTES, 0);
            datagrams.push(packet);
        }
        let mut ts = TsIngest::new();
        let mut sink = |_: usize, header: &RecordHeader, data: &[u8]| assert_eq!(header.bytes as usize, data.len());
        for datagram in &datagrams {
            ts.datagram(5, datagram, &mut sink);
        }
        ts.datagram(6, &datagrams.concat(), &mut sink);
    }
}
