//! Fuzz target `tcp_segments`: a TCP gets segments that a peer might have made up, under a simulated clock, while its user calls it. It
//! must not panic, must send nothing but well-formed segments, and must have all its memory back when everything is closed and some time
//! has passed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use stack::tcp::{ConnId, SegmentOut, SendOutcome, Tcp, TcpConfig};

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 80);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 5000);
const MS: u64 = 1_000_000;

/// Looks at what is sent, and remembers what the peer would answer with.
#[derive(Default)]
struct Port {
    /// Sequence number that acknowledges all, and the one that is expected.
    ack: u32,
    seq: u32,
    queued: usize,
}

impl SegmentOut for Port {
    fn queued(&self) -> usize {
        self.queued
    }

    fn segment(&mut self, _local: IpAddr, _remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        if self.queued > 12 {
            return SendOutcome::Full;
        }
        assert!((20..=1480).contains(&len), "a segment of {len} bytes");
        let mut segment = vec![0xff; len];
        fill(&mut segment);
        let word = |at: usize| u32::from_be_bytes([segment[at], segment[at + 1], segment[at + 2], segment[at + 3]]);
        let header = usize::from(segment[12] >> 4) * 4;
        assert!((20..=len).contains(&header), "a header of {header} bytes in {len}");
        let span = (len - header) as u32 + u32::from(segment[13] & 1 != 0) + u32::from(segment[13] & 2 != 0);
        if segment[13] & 4 == 0 {
            (self.ack, self.seq) = (word(4).wrapping_add(span), word(8));
        }
        self.queued += 1;
        SendOutcome::Sent
    }
}

/// Runs one input: steps of a byte that says what happens, and what that needs.
pub fn run(data: &[u8]) {
    let config = TcpConfig {
        connections_max: 4,
        listeners_max: 1,
        pool_bytes: 64 * 1024,
        segments_max: 16,
        recv_buffer_bytes: 16 * 1024,
        send_buffer_bytes: 16 * 1024,
        buffer_bytes_max: 32 * 1024,
        verify_checksums: false,
        ..TcpConfig::default()
    };
    let mut tcp = Tcp::new(config, 1, 0);
    let fresh = tcp.memory();
    let Ok(listener) = tcp.listen(LOCAL, 2) else { return };
    let (mut port, mut now_ns, mut conns) = (Port::default(), 0, Vec::<ConnId>::new());
    let mut rest = data;
    while let [step, tail @ ..] = rest {
        rest = match step & 7 {
            0..=3 => segment(&mut tcp, &port, now_ns, *step, tail),
            4 => {
                now_ns += u64::from(tail.first().copied().unwrap_or(1)) * 7 * MS;
                tail.get(1..).unwrap_or_default()
            }
            5 => {
                conns.extend(tcp.accept(listener));
                if step & 8 != 0 {
                    conns.extend(tcp.connect(now_ns, LOCAL, PEER));
                }
                tail
            }
            _ => {
                call(&mut tcp, &mut conns, *step);
                tail
            }
        };
        if step & 0x80 == 0 {
            port.queued = 0;
        }
        tcp.egress(now_ns, &mut port);
    }
    conns.iter().for_each(|conn| tcp.abort(*conn));
    tcp.unlisten(listener);
    for _ in 0..40 {
        now_ns += 10_000 * MS;
        port.queued = 0;
        tcp.egress(now_ns, &mut port);
    }
    assert_eq!(tcp.memory(), fresh);
}

/// Segments near to what is expected, and raw ones.
fn segment<'a>(tcp: &mut Tcp, port: &Port, now_ns: u64, step: u8, tail: &'a [u8]) -> &'a [u8] {
    let Some((&[flags, seq, ack, len], tail)) = tail.split_first_chunk::<4>() else { return &[] };
    let body = &tail[..usize::from(len).min(tail.len())];
    if step & 3 == 3 {
        tcp.ingress(now_ns, PEER.ip(), LOCAL.ip(), body);
        return &tail[body.len()..];
    }
    let options = (usize::from(step >> 3 & 7) * 4).min(body.len() / 4 * 4);
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&PEER.port().to_be_bytes());
    segment[2..4].copy_from_slice(&LOCAL.port().to_be_bytes());
    let near = |number: u32, delta: u8| number.wrapping_add_signed(i32::from(delta as i8) * if step & 1 == 0 { 1 } else { 400 });
    segment[4..8].copy_from_slice(&near(port.seq, seq).to_be_bytes());
    segment[8..12].copy_from_slice(&near(port.ack, ack).to_be_bytes());
    segment[12] = (5 + options as u8 / 4) << 4;
    segment[13] = flags;
    segment[14..16].copy_from_slice(&[ack, seq]);
    segment.extend(body);
    tcp.ingress(now_ns, PEER.ip(), LOCAL.ip(), &segment);
    &tail[body.len()..]
}

fn call(tcp: &mut Tcp, conns: &mut Vec<ConnId>, step: u8) {
    let Some(&conn) = conns.get(usize::from(step >> 6) % conns.len().max(1)) else { return };
    match step >> 3 & 7 {
        0 | 1 => drop(tcp.send(conn, &[&[1; 3000]])),
        2 => drop(tcp.recv(conn, &mut [0; 2000])),
        3 => drop(tcp.shutdown(conn)),
        4 => drop(tcp.set_option(conn, stack::tcp::TcpOption::NoDelay(true))),
        5 => drop(tcp.info(conn)),
        6 => {
            tcp.close(conn);
            conns.retain(|other| *other != conn);
        }
        _ => while tcp.next_event().is_some() {},
    }
}
