//! Live channels: what a sender sends through a network that loses and reorders reaches viewers who join whenever they like, in complete
//! samples from a sync sample on, each packet at its due time.

use std::collections::BTreeMap;

use dataplane::delivery::{LagPolicy, LiveTrackSpec, StartPlan, TrackPlan};
use dataplane::engine::channel::{Channel, ChannelReport, ChannelSpec};
use dataplane::engine::{Command, Reply, TrackSetup};
use dataplane::gdsl::{Class, Outcome};
use dataplane::ingest::{Ingest, RtpIngest, RtpTrackSpec};
use dataplane::media::{Codec, TrackKind};
use dataplane::payload::{Depacketiser, Packetiser, SliceBytes, Step};
use dataplane::rtp::NtpTime;
use dataplane::rtp::header::{HeaderTemplate, RtpPacket};
use dataplane::rtp::rtcp::{SenderInfo, Writer};
use pacing::cpu::Work;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::stage::{Config, MS, RTCP, RTP, SECOND, Stage, client, rtcp_of, udp};

pub(super) const CHANNEL: u64 = 77;
pub(super) const GOP: usize = 12;
const LATENCY_NS: u64 = 200 * MS;
const SILENCE_NS: u64 = 3 * SECOND;

pub(super) fn codecs() -> [(Codec, TrackKind, u32, u8); 2] {
    let video = Codec::Mpeg4Visual { config: vec![0, 0, 1, 0xb0, 1] };
    [(video, TrackKind::Video, 90_000, 96), (Codec::Opus { channels: 2 }, TrackKind::Audio, 48_000, 97)]
}

/// The access unit of this number of a track.
fn unit(track: usize, number: usize, bytes: usize) -> Vec<u8> {
    let kind = if number.is_multiple_of(GOP) { 0x10 } else { 0x50 };
    let head = if track == 0 { vec![0, 0, 1, 0xb6, kind] } else { vec![7, 7, 7, 7, 7] };
    let body = (0..bytes).map(|at| (at * 31 + number * 7 + track) as u8 | 2);
    head.into_iter().chain((number as u32).to_be_bytes()).chain(body).collect()
}

/// What a track's sender sends: when, and what; and which packets there were, by unit.
pub(super) struct Sender {
    /// Arrivals at the engine core, in their order: time, track, datagram.
    pub(super) arrivals: Vec<(u64, usize, Vec<u8>)>,
    /// Of each track and unit: the bytes, and whether a packet of it, or the one before it, was lost.
    pub(super) units: [Vec<(Vec<u8>, bool)>; 2],
}

pub(super) fn sender(rng: &mut StdRng, begin_ns: u64, seconds: usize, lost_per_mille: u32, jitter_ns: u64) -> Sender {
    let mut arrivals = Vec::new();
    let mut units: [Vec<(Vec<u8>, bool)>; 2] = Default::default();
    for (track, (codec, _, rate, payload_type)) in codecs().into_iter().enumerate() {
        let template = HeaderTemplate::new(payload_type, 1000 + track as u32);
        let mut packetiser = Packetiser::new(&codec, 1200);
        let (mut seq, mut lost_before) = (0xff00u16, false);
        let per_second = if track == 0 { 25 } else { 50 };
        for number in 0..seconds * per_second {
            let bytes = if track == 0 { rng.random_range(50..6000) } else { rng.random_range(80..300) };
            let data = unit(track, number, bytes);
            let sent_ns = begin_ns + (number * 1_000_000_000 / per_second) as u64;
            let timestamp = 0xffff_f000u32.wrapping_add((number as u64 * u64::from(rate) / per_second as u64) as u32);
            packetiser.begin(data.len() as u32, number.is_multiple_of(GOP));
            let mut sample = SliceBytes::with_resident(&data, data.len());
            let (mut out, mut spoilt) = ([0; 1200], lost_before);
            while let Ok(Step::Packet(meta)) = packetiser.next(&mut sample, &mut out) {
                let header = template.packet(meta.marker, seq, timestamp);
                let lost = seq != 0xff00 && rng.random_range(0..1000) < lost_per_mille;
                if !lost {
                    let at_ns = sent_ns + 10 * MS + rng.random_range(0..=jitter_ns);
                    // The first one comes first: the stream begins with it.
                    let at_ns = if seq == 0xff00 { sent_ns } else { at_ns };
                    arrivals.push((at_ns, track, [&header[..], &out[..meta.len]].concat()));
                }
                spoilt |= lost;
                lost_before = lost;
                seq = seq.wrapping_add(1);
            }
            units[track].push((data, spoilt));
        }
    }
    arrivals.sort_by_key(|&(at_ns, ..)| at_ns);
    Sender { arrivals, units }
}

pub(super) fn report(track: usize, rate: u32, at_ns: u64) -> Vec<u8> {
    let mut out = [0; 128];
    let mut writer = Writer::new(&mut out);
    let rtp_timestamp = 0xffff_f000u32.wrapping_add((u128::from(at_ns) * u128::from(rate) / 1_000_000_000) as u32);
    let info = SenderInfo { ntp: NtpTime::from_unix_ns(1_700_000_000 * SECOND + at_ns), rtp_timestamp, packets: 1, octets: 1 };
    writer.sender_report(1000 + track as u32, &info, &[]).unwrap();
    let len = writer.len();
    out[..len].to_vec()
}

pub(super) fn open(stage: &mut Stage, blocks: [usize; 2], hold: bool) {
    let specs: Vec<RtpTrackSpec> =
        codecs().into_iter().map(|(codec, _, clock_rate, payload_type)| RtpTrackSpec { codec, payload_type, clock_rate }).collect();
    let ingest = Some(Box::new(Ingest::Rtp(RtpIngest::new(&specs, 5, "stage"))));
    let tracks = codecs().iter().zip(blocks).map(|((_, kind, ..), blocks)| (*kind, blocks)).collect();
    let spec = ChannelSpec { key: CHANNEL, tracks, latency_ns: LATENCY_NS, silence_ns: SILENCE_NS, hold, ingest };
    assert!(matches!(stage.ask(|reply| Command::OpenChannel { reply, channel: Box::new(Channel::new(spec)) }), Reply::Done));
    route(stage);
}

fn route(stage: &mut Stage) {
    for track in 0..2 {
        let transport = udp(200, track);
        assert!(matches!(stage.ask(|reply| Command::SetupIngest { reply, channel: CHANNEL, track, transport }), Reply::Done));
    }
}

pub(super) fn join(stage: &mut Stage, session: u64) {
    for (track, (codec, kind, clock_rate, payload_type)) in codecs().into_iter().enumerate() {
        let spec = LiveTrackSpec {
            channel: CHANNEL,
            track,
            codec,
            kind,
            payload_type,
            clock_rate,
            link_blocks: 4,
            stall_ns: SECOND,
            class: Class::Guaranteed,
            lag: LagPolicy::default(),
            cname: "stage".into(),
            random: (rand::random(), rand::random(), rand::random(), rand::random()),
        };
        let setup =
            Box::new(TrackSetup { track_id: track as u32 + 1, transport: udp(session, track), pair: spec.build(), work: Work::default() });
        assert!(matches!(stage.ask(|reply| Command::SetupTrack { reply, session, setup }), Reply::Done));
    }
    let tracks = (0..2).map(|track| TrackPlan { track, first: 0, end: 0 }).collect();
    let plan = StartPlan { from_ns: 0, to_ns: u64::MAX, start_dts_ns: 0, tracks };
    assert!(matches!(stage.start(session, Some(plan)), Reply::Started { .. }));
    assert!(matches!(stage.run(session), Reply::Done));
}

fn channel_status(stage: &mut Stage) -> ChannelReport {
    match stage.ask(|reply| Command::ChannelStatus { reply, channel: CHANNEL, report: Box::default() }) {
        Reply::Channel(report) => *report,
        other => panic!("{other:?}"),
    }
}

/// The access units that a viewer got of a track: their numbers, and when the first packet of each left.
pub(super) fn seen(stage: &Stage, session: u64, track: usize, units: &[(Vec<u8>, bool)]) -> Vec<(usize, u64)> {
    let (codec, ..) = &codecs()[track];
    let mut depacketiser = Depacketiser::new(codec, 1 << 20);
    let mut got = Vec::new();
    let mut began: BTreeMap<u32, u64> = BTreeMap::new();
    let mut last_seq = None::<u16>;
    for sent in stage.rtp_to(client(session, track)) {
        let packet = RtpPacket::new_checked(&sent.bytes).unwrap();
        assert!(last_seq.is_none_or(|last| packet.seq() == last.wrapping_add(1)), "a gap in the sequence numbers");
        last_seq = Some(packet.seq());
        began.entry(packet.timestamp()).or_insert(sent.at_ns);
        let mut sink = |au: dataplane::payload::AccessUnit<'_>| {
            assert!(au.intact);
            let number = u32::from_be_bytes(au.data[5..9].try_into().unwrap()) as usize;
            assert!(au.data == units[number].0, "unit {number} of track {track}");
            got.push((number, began[&au.timestamp], au.timestamp));
        };
        depacketiser.push(packet.payload(), packet.marker(), packet.timestamp(), &mut sink).unwrap();
    }
    let rate = codecs()[track].2;
    let per_second = if track == 0 { 25 } else { 50 };
    for pair in got.windows(2) {
        assert!(pair[1].0 > pair[0].0);
        let ticks = (pair[1].0 - pair[0].0) as u32 * (rate / per_second);
        assert_eq!(pair[1].2.wrapping_sub(pair[0].2), ticks, "RTP times are the sender's");
    }
    got.into_iter().map(|(number, at_ns, _)| (number, at_ns)).collect()
}

/// One world from a seed.
fn world(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let seconds = 12;
    let lost_per_mille = [0, 0, 2, 20][seed as usize % 4];
    let jitter_ns = [0, 25 * MS, 25 * MS, 5 * MS][seed as usize / 2 % 4];
    let mut stage = Stage::new(Config { chunks: 2048, ..Config::default() });
    open(&mut stage, [400, 60], false);
    let begin_ns = stage.now();
    let Sender { arrivals, units } = sender(&mut rng, begin_ns, seconds, lost_per_mille, jitter_ns);
    if rng.random_bool(0.7) {
        for (track, (_, _, rate, _)) in codecs().iter().enumerate() {
            let remote = rtcp_of(client(200, track));
            stage.inject(RTCP, remote, &report(track, *rate, 0));
        }
    }
    let mut joins: Vec<(u64, u64)> = (1..=10).map(|session| (begin_ns + rng.random_range(100 * MS..11 * SECOND), session)).collect();
    joins.sort_unstable();
    let mut leaves: Vec<(u64, u64)> = Vec::new();
    let (mut arrivals, mut joins_left) = (arrivals.into_iter().peekable(), joins.iter().copied().peekable());
    let end_ns = begin_ns + (seconds as u64 + 8) * SECOND;
    let mut present: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    while stage.now() < end_ns {
        while let Some((_, track, datagram)) = arrivals.next_if(|&(at_ns, ..)| at_ns <= stage.now()) {
            stage.inject(RTP, client(200, track), &datagram);
        }
        while let Some((_, session)) = joins_left.next_if(|&(at_ns, _)| at_ns <= stage.now()) {
            join(&mut stage, session);
            present.insert(session, (stage.now(), u64::MAX));
            if rng.random_bool(0.3) {
                leaves.push((stage.now() + rng.random_range(0..4 * SECOND), session));
            }
        }
        let now_ns = stage.now();
        for (_, session) in leaves.extract_if(.., |&mut (at_ns, _)| at_ns <= now_ns) {
            if !stage.finished.iter().any(|&(known, _)| known == session) {
                check_lateness(&mut stage, session, seed);
                stage.destroy(session);
                present.get_mut(&session).unwrap().1 = stage.now();
            }
        }
        let next_ns = arrivals.peek().map_or(end_ns, |&(at_ns, ..)| at_ns).min(joins_left.peek().map_or(end_ns, |&(at_ns, _)| at_ns));
        let step_ns = next_ns.saturating_sub(stage.now()).clamp(1000, 100 * MS);
        stage.run_for(step_ns);
    }
    assert_eq!(stage.lost, [(CHANNEL, "its sender is silent")], "seed {seed}");
    for (&session, &(joined_ns, left_ns)) in &present {
        if left_ns == u64::MAX {
            assert!(stage.finished.contains(&(session, Outcome::Ended)), "seed {seed}: session {session} has no end");
            check_lateness(&mut stage, session, seed);
        }
        let pictures = seen(&stage, session, 0, &units[0]);
        let sound = seen(&stage, session, 1, &units[1]);
        // Who leaves at once has seen nothing; who joined before the first sync sample of a stream that lost it waits for the next.
        let Some(&(first, first_ns)) = pictures.first() else {
            assert!(left_ns.saturating_sub(joined_ns) < SECOND || lost_per_mille > 0, "seed {seed}: session {session} saw nothing");
            continue;
        };
        assert!(first.is_multiple_of(GOP), "seed {seed}: session {session} starts with a sync sample");
        assert!(first_ns.saturating_sub(joined_ns) <= LATENCY_NS + 20 * MS || lost_per_mille > 0, "seed {seed}: nobody waits without need");
        for pair in pictures.windows(2) {
            let cut = pair[1].0 != pair[0].0 + 1;
            assert!(!cut || pair[1].0.is_multiple_of(GOP), "seed {seed}: session {session} goes on with a sync sample");
        }
        assert!(pictures.iter().all(|&(number, _)| !units[0][number].1 || number.is_multiple_of(GOP)));
        // What came whole goes out whole.
        let last = pictures.last().unwrap().0;
        for group in (first..=last).step_by(GOP) {
            let group: Vec<usize> = (group..(group + GOP).min(last + 1)).collect();
            if group.iter().all(|&number| !units[0][number].1) {
                assert!(group.iter().all(|number| pictures.iter().any(|(seen, _)| seen == number)), "seed {seed}: {group:?} is missing");
            }
        }
        if left_ns == u64::MAX && lost_per_mille == 0 {
            assert_eq!(last + 1, units[0].len(), "seed {seed}: session {session} sees the end");
            assert_eq!(sound.last().map(|&(number, _)| number + 1), Some(units[1].len()));
        }
        // Sound and picture of one moment leave together, to within the jitter that was not yet known when a line began.
        for &(number, at_ns) in sound.iter().filter(|(number, _)| number.is_multiple_of(10)) {
            if let Some((_, picture_ns)) = pictures.iter().find(|&&(picture, _)| picture * 2 == number) {
                assert!(at_ns.abs_diff(*picture_ns) <= 45 * MS, "seed {seed}: {} ms apart", at_ns.abs_diff(*picture_ns) / MS);
            }
        }
    }
    for &session in present.keys() {
        stage.destroy(session);
    }
    assert!(matches!(stage.ask(|reply| Command::CloseChannel { reply, channel: CHANNEL }), Reply::Done));
    stage.assert_empty();
}

fn check_lateness(stage: &mut Stage, session: u64, seed: u64) {
    let lateness = stage.status(session).lateness.snapshot();
    // A line of time that is corrected while it is new brings two samples closer together than the first was said to last.
    assert!(lateness.max_us <= 2500, "seed {seed}: session {session}: {lateness:?}");
}

#[test]
fn viewers_who_join_at_any_time_see_complete_samples_in_time() {
    match std::env::var("TACTUS_SIM_SEED") {
        Ok(seed) => world(seed.parse().expect("a number")),
        Err(_) => (0..12).for_each(world),
    }
}

#[test]
fn a_channel_is_held_until_its_sender_is_back() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut stage = Stage::new(Config { chunks: 2048, ..Config::default() });
    open(&mut stage, [100, 20], true);
    let play = |stage: &mut Stage, rng: &mut StdRng| {
        let sender = sender(rng, stage.now(), 2, 0, 0);
        for (at_ns, track, datagram) in sender.arrivals {
            stage.run_for(at_ns.saturating_sub(stage.now()).max(1));
            stage.inject(RTP, client(200, track), &datagram);
        }
        sender.units
    };
    play(&mut stage, &mut rng);
    join(&mut stage, 1);
    stage.run_for(5 * SECOND);
    assert_eq!((stage.lost.len(), stage.finished.len()), (1, 0));
    let before = stage.rtp_to(client(1, 0)).len();
    // Who joins while nobody sends waits for what comes.
    join(&mut stage, 2);
    stage.run_for(SECOND);
    assert!(stage.rtp_to(client(2, 0)).is_empty() && !channel_status(&mut stage).live);
    let specs: Vec<RtpTrackSpec> =
        codecs().into_iter().map(|(codec, _, clock_rate, payload_type)| RtpTrackSpec { codec, payload_type, clock_rate }).collect();
    let ingest = Box::new(Ingest::Rtp(RtpIngest::new(&specs, 6, "stage")));
    assert!(matches!(stage.ask(|reply| Command::ResumeChannel { reply, channel: CHANNEL, ingest }), Reply::Done));
    route(&mut stage);
    let units = play(&mut stage, &mut rng);
    stage.run_for(SECOND);
    assert!(channel_status(&mut stage).live);
    assert!(stage.rtp_to(client(1, 0)).len() > before, "it goes on");
    let pictures = seen(&stage, 2, 0, &units[0]);
    assert_eq!((pictures.first().map(|p| p.0), pictures.len()), (Some(0), units[0].len()));
    for session in [1, 2] {
        stage.destroy(session);
    }
    stage.ask(|reply| Command::CloseChannel { reply, channel: CHANNEL });
    stage.assert_empty();
}

#[test]
fn a_channel_that_is_closed_ends_its_viewers_and_reports_go_to_the_sender() {
    let mut rng = StdRng::seed_from_u64(2);
    let mut stage = Stage::new(Config { chunks: 512, ..Config::default() });
    open(&mut stage, [40, 10], false);
    assert!(matches!(stage.set_up_stranger(), Reply::Refused(_)), "two channels of one name");
    let sender = sender(&mut rng, stage.now(), 7, 0, 0);
    let mut joined = false;
    for (at_ns, track, datagram) in sender.arrivals {
        stage.run_for(at_ns.saturating_sub(stage.now()).max(1));
        stage.inject(RTP, client(200, track), &datagram);
        if !joined && channel_status(&mut stage).sync_age_ns.is_some() {
            join(&mut stage, 1);
            joined = true;
        }
    }
    let reports = stage.sent.iter().filter(|sent| sent.remote == rtcp_of(client(200, 0)) && sent.local_port == RTCP).count();
    assert_eq!(reports, 1, "one report in seven seconds");
    let status = channel_status(&mut stage);
    assert_eq!((status.tracks[0].units, status.tracks[0].lost_packets, status.tracks[0].broken_units), (7 * 25, 0, 0));
    assert!(matches!(stage.ask(|reply| Command::CloseChannel { reply, channel: CHANNEL }), Reply::Done));
    stage.run_for(2 * SECOND);
    assert_eq!(stage.finished, [(1, Outcome::Ended)]);
    stage.destroy(1);
    stage.assert_empty();
}

impl Stage {
    /// Another channel of the same name.
    fn set_up_stranger(&mut self) -> Reply {
        let spec =
            ChannelSpec { key: CHANNEL, tracks: vec![(TrackKind::Audio, 2)], latency_ns: 0, silence_ns: SECOND, hold: false, ingest: None };
        self.ask(|reply| Command::OpenChannel { reply, channel: Box::new(Channel::new(spec)) })
    }
}
