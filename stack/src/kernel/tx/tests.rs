use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::host::FlowSpec;

/// What the wire answers to one call.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Take(usize),
    Error(i32),
}

/// Takes what the script says (everything once it is used up) and keeps the datagrams that a receiver would see.
#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    refuses_joined: bool,
    seen: Vec<(usize, Vec<u8>)>,
    messages: Vec<u16>,
    failed: Vec<Vec<u8>>,
}

impl Wire for Script {
    fn send(&mut self, port: usize, frames: &Frames, messages: &[Message]) -> Result<usize, i32> {
        let joined = messages.iter().position(|message| message.count > 1).filter(|_| self.refuses_joined);
        let limit = match (self.answers.pop_front(), joined) {
            (Some(Answer::Error(error)), _) => {
                let settles = ![libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM].contains(&error);
                if settles && (messages[0].count == 1 || error == libc::EHOSTUNREACH) {
                    let Message { first, count, .. } = messages[0];
                    self.failed.extend((first..first + count).map(|frame| frames.payload(usize::from(frame)).to_vec()));
                }
                return Err(error);
            }
            (_, Some(0)) => return Err(libc::EIO),
            (Some(Answer::Take(limit)), joined) => limit.max(1).min(joined.unwrap_or(usize::MAX)),
            (None, joined) => joined.unwrap_or(usize::MAX),
        };
        let taken = limit.min(messages.len());
        for message in &messages[..taken] {
            let range = usize::from(message.first)..usize::from(message.first + message.count);
            let envelope = frames.envelope(range.start);
            let lens: Vec<usize> = range.clone().map(|frame| frames.payload(frame).len()).collect();
            if message.count > 1 {
                assert!(lens[..lens.len() - 1].iter().all(|len| *len == lens[0]) && *lens.last().unwrap() <= lens[0]);
                assert!(lens.iter().all(|len| *len > 0) && lens.iter().sum::<usize>() <= MESSAGE_BYTES_MAX);
                let control = envelope.control(message.control_len);
                assert_eq!(&control[control.len() - 2..], (lens[0] as u16).to_ne_bytes());
            } else {
                assert_eq!(message.control_len, envelope.control_len());
            }
            for frame in range {
                assert_eq!(frames.envelope(frame).name(), envelope.name());
                self.seen.push((port, frames.payload(frame).to_vec()));
            }
            self.messages.push(message.count);
        }
        Ok(taken)
    }
}

fn route(number: u32, port: u8) -> Route {
    let remote = SocketAddr::from(([10, 0, 0, number as u8], 5000));
    let local_addr = (number.is_multiple_of(2)).then(|| [10, 0, 0, 200].into());
    let spec = FlowSpec { local_port: port, local_addr, remote };
    Route { envelope: Envelope::new(&spec, true), epoch: u64::from(number) + 1, port, join: true }
}

fn put(queue: &mut TxQueue, number: u32, port: u8, payload: &[u8]) -> bool {
    let Some(frame) = queue.open(number, &route(number, port)) else { return false };
    frame[..payload.len()].copy_from_slice(payload);
    queue.commit(payload.len());
    true
}

fn flush(queue: &mut TxQueue, wire: &mut Script) -> Flushed {
    queue.flush(wire, &mut HostCounters::default())
}

#[test]
fn equal_frames_of_one_flow_are_joined() {
    let mut queue = TxQueue::new(16, 100);
    let mut wire = Script::default();
    let sizes = [(1, 50), (1, 50), (1, 20), (1, 20), (1, 20), (1, 21), (2, 21), (2, 0), (2, 0), (1, 5)];
    for (flow, len) in sizes {
        assert!(put(&mut queue, flow, 0, &vec![flow as u8; len]));
    }
    assert_eq!(flush(&mut queue, &mut wire), Flushed { done: 10, failed: 0 });
    assert_eq!(wire.messages, [3, 2, 1, 1, 1, 1, 1]);
    let seen: Vec<usize> = wire.seen.iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(seen, sizes.map(|(_, len)| len));
}

#[test]
fn a_joined_message_stays_within_the_kernels_limits() {
    let mut queue = TxQueue::new(200, 1472);
    let mut wire = Script::default();
    for _ in 0..100 {
        put(&mut queue, 1, 0, &[1; 1472]);
    }
    for _ in 0..100 {
        put(&mut queue, 2, 0, &[2; 10]);
    }
    flush(&mut queue, &mut wire);
    assert_eq!(wire.messages, [44, 44, 12, 64, 36]);
}

#[test]
fn a_full_wire_keeps_frames_in_order() {
    let mut queue = TxQueue::new(4, 8);
    let mut wire = Script { answers: [Answer::Take(1), Answer::Error(libc::EAGAIN)].into(), ..Script::default() };
    let mut counters = HostCounters::default();
    for number in 0..4 {
        assert!(put(&mut queue, number, 0, &[number as u8]));
    }
    assert!(!put(&mut queue, 9, 0, &[9]));
    assert_eq!(queue.flush(&mut wire, &mut counters), Flushed { done: 1, failed: 0 });
    assert_eq!((queue.queued(), queue.pending(0), counters.tx_backpressure), (3, 3, 1));
    assert!(put(&mut queue, 4, 0, &[4]));
    wire.answers.push_back(Answer::Error(libc::ENOBUFS));
    assert_eq!(flush(&mut queue, &mut wire), Flushed::default());
    assert_eq!(flush(&mut queue, &mut wire), Flushed { done: 4, failed: 0 });
    assert_eq!(wire.seen.concat_payloads(), [0, 1, 2, 3, 4]);
}

#[test]
fn one_unreachable_destination_does_not_stop_the_rest() {
    let mut queue = TxQueue::new(4, 8);
    let answers = [Answer::Take(1), Answer::Error(libc::EHOSTUNREACH), Answer::Error(libc::ECONNREFUSED)].into();
    let mut wire = Script { answers, ..Script::default() };
    let mut counters = HostCounters::default();
    for number in 0..4 {
        put(&mut queue, number, 0, &[number as u8]);
    }
    assert_eq!(queue.flush(&mut wire, &mut counters), Flushed { done: 4, failed: 2 });
    assert_eq!(wire.seen.concat_payloads(), [0, 3]);
    assert_eq!((counters.tx_datagrams, counters.tx_bytes, counters.tx_failed, counters.tx_calls), (2, 2, 2, 4));
}

#[test]
fn a_route_that_refuses_joined_messages_gets_them_singly() {
    let mut queue = TxQueue::new(8, 8);
    let mut wire = Script { refuses_joined: true, ..Script::default() };
    for number in [1, 2, 2, 2, 1, 1] {
        put(&mut queue, number, 0, &[number as u8]);
    }
    assert_eq!(flush(&mut queue, &mut wire), Flushed { done: 6, failed: 0 });
    assert_eq!(wire.messages, [1; 6]);
    assert_eq!(wire.seen.concat_payloads(), [1, 2, 2, 2, 1, 1]);
    assert_eq!(queue.take_refused(), Some((1, 2)));
    assert_eq!(queue.take_refused(), None);
}

#[test]
fn one_full_port_does_not_hold_up_the_other_and_done_counts_from_the_head() {
    let mut queue = TxQueue::new(8, 8);
    let mut wire = Script { answers: [Answer::Take(1), Answer::Error(libc::EAGAIN)].into(), ..Script::default() };
    for (number, port) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        put(&mut queue, number, port, &[number as u8]);
    }
    assert_eq!(flush(&mut queue, &mut wire), Flushed { done: 2, failed: 0 });
    assert_eq!(wire.seen.concat_payloads(), [0, 1, 3]);
    assert_eq!(flush(&mut queue, &mut wire), Flushed { done: 2, failed: 0 });
    assert_eq!(wire.seen.concat_payloads(), [0, 1, 3, 2]);
}

#[test]
fn an_open_frame_survives_a_flush_and_can_be_given_up() {
    let mut queue = TxQueue::new(2, 8);
    let mut wire = Script::default();
    put(&mut queue, 1, 0, &[1]);
    queue.open(2, &route(2, 0)).unwrap()[0] = 2;
    flush(&mut queue, &mut wire);
    queue.commit(1);
    queue.commit(1);
    assert_eq!(queue.queued(), 1);
    queue.open(3, &route(3, 0)).unwrap();
    queue.cancel();
    queue.commit(1);
    flush(&mut queue, &mut wire);
    assert_eq!(wire.seen.concat_payloads(), [1, 2]);
}

trait Payloads {
    fn concat_payloads(&self) -> Vec<u8>;
}

impl Payloads for Vec<(usize, Vec<u8>)> {
    fn concat_payloads(&self) -> Vec<u8> {
        self.iter().flat_map(|(_, payload)| payload.clone()).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put { flow: u32, port: u8, len: usize },
    Flush(Vec<Answer>),
}

fn step() -> impl Strategy<Value = Step> {
    let answer = prop_oneof![
        3 => (0_usize..5).prop_map(Answer::Take),
        1 => prop::sample::select(vec![libc::EAGAIN, libc::EHOSTUNREACH, libc::EINVAL]).prop_map(Answer::Error),
    ];
    prop_oneof![
        5 => (0_u32..3, 0_u8..2, 4_usize..7).prop_map(|(flow, port, len)| Step::Put { flow: flow * 2 + u32::from(port), port, len }),
        1 => prop::collection::vec(answer, 0..6).prop_map(Step::Flush),
    ]
}

proptest! {
    /// Whatever the wire answers: nothing lost, nothing twice, order kept per port, `done` and `failed` count from the head.
    #[test]
    fn every_frame_leaves_once_and_in_order(frames in 1_usize..12, refuses in any::<bool>(), steps in prop::collection::vec(step(), 1..120)) {
        let mut queue = TxQueue::new(frames, 8);
        let mut wire = Script { refuses_joined: refuses, ..Script::default() };
        let mut committed: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut done = 0_usize;
        let mut failed = 0;
        for step in steps.into_iter().chain([Step::Flush(Vec::new())]) {
            match step {
                Step::Put { flow, port, len } => {
                    let mut payload = vec![0; len];
                    payload[..4].copy_from_slice(&(committed.len() as u32).to_le_bytes());
                    prop_assert_eq!(put(&mut queue, flow, port, &payload), committed.len() - done < frames);
                    if committed.len() - done < queue.queued() {
                        committed.push((usize::from(port), payload));
                    }
                }
                Step::Flush(answers) => {
                    wire.answers = answers.into();
                    let flushed = flush(&mut queue, &mut wire);
                    let gone: HashSet<&Vec<u8>> = wire.seen.iter().map(|(_, payload)| payload).chain(&wire.failed).collect();
                    let left = &committed[done..done + flushed.done as usize];
                    prop_assert!(left.iter().all(|(_, payload)| gone.contains(payload)));
                    let failures = left.iter().filter(|(_, payload)| wire.failed.contains(payload)).count();
                    prop_assert_eq!(failures, flushed.failed as usize);
                    done += flushed.done as usize;
                    failed += failures;
                    if let Some((_, payload)) = committed.get(done) {
                        prop_assert!(!gone.contains(payload));
                    }
                }
            }
            prop_assert_eq!(queue.queued(), committed.len() - done);
        }
        prop_assert_eq!(done, committed.len());
        prop_assert_eq!(wire.failed.len(), failed);
        for port in 0..LOCAL_PORTS {
            let sent: Vec<_> = wire.seen.iter().filter(|(at, _)| *at == port).collect();
            let expected: Vec<_> = committed.iter().filter(|(at, payload)| *at == port && !wire.failed.contains(payload)).collect();
            prop_assert_eq!(sent, expected);
        }
    }
}
