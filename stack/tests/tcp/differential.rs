//! Against smoltcp's TCP socket as the peer, in both directions, over a path that loses and reorders.

use std::collections::VecDeque;
use std::net::SocketAddr;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use stack::tcp::{SegmentOut, SendOutcome, Tcp, TcpConfig};

use super::bulk::{byte, config};
use super::link::{MS, Random, SECOND, ip};

/// smoltcp's side: IP packets in and out.
#[derive(Default)]
struct Wire {
    to_smoltcp: VecDeque<Vec<u8>>,
    from_smoltcp: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Rx, Tx<'_>)> {
        self.to_smoltcp.pop_front().map(|packet| (Rx(packet), Tx(&mut self.from_smoltcp)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from_smoltcp))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities
    }
}

/// Our side.
#[derive(Default)]
struct Out(Vec<Vec<u8>>);

impl SegmentOut for Out {
    fn queued(&self) -> usize {
        0
    }

    fn segment(&mut self, _: std::net::IpAddr, _: std::net::IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        let mut packet = vec![0; 20 + len];
        packet[..4].copy_from_slice(&[0x45, 0, ((20 + len) >> 8) as u8, (20 + len) as u8]);
        packet[8..10].copy_from_slice(&[64, 6]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        fill(&mut packet[20..]);
        self.0.push(packet);
        SendOutcome::Sent
    }
}

/// Sends `bytes` one way and answers how long it took.
fn transfer(ours_sends: bool, ours_connects: bool, bytes: u64, loss: f64, seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut tcp = Tcp::new(TcpConfig { user_timeout_ns: 600 * SECOND, ..config() }, seed, 0);
    let mut wire = Wire::default();
    let mut interface = Interface::new(Config::new(HardwareAddress::Ip), &mut wire, Instant::ZERO);
    interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24)).unwrap());
    let mut sockets = SocketSet::new(vec![]);
    let mut socket = Socket::new(SocketBuffer::new(vec![0; 100_000]), SocketBuffer::new(vec![0; 100_000]));
    let (here, there) = (SocketAddr::new(ip(0), 80), SocketAddr::new(ip(1), 80));
    let listener = tcp.listen(here, 2).unwrap();
    let mut conn = None;
    if ours_connects {
        socket.listen(80).unwrap();
        conn = tcp.connect(0, SocketAddr::new(ip(0), 0), there).ok();
    } else {
        socket.connect(interface.context(), (IpAddress::v4(10, 0, 0, 1), 80), 4000).unwrap();
    }
    let handle = sockets.add(socket);
    let mut flying: Vec<(u64, bool, Vec<u8>)> = Vec::new();
    let (mut sent, mut received, mut ended) = (0u64, 0u64, false);
    let mut now_ns = 0;
    while now_ns < 600 * SECOND {
        let (due, later): (Vec<_>, Vec<_>) = flying.into_iter().partition(|packet| packet.0 <= now_ns);
        flying = later;
        for (_, to_us, packet) in due {
            if to_us { tcp.ingress(now_ns, ip(1), ip(0), &packet[20..]) } else { wire.to_smoltcp.push_back(packet) }
        }
        conn = conn.or_else(|| tcp.accept(listener));
        let socket = sockets.get_mut::<Socket>(handle);
        let mut chunk = [0; 4096];
        if let Some(id) = conn {
            if ours_sends {
                while sent < bytes {
                    let len = chunk.len().min((bytes - sent) as usize);
                    (0..len).for_each(|i| chunk[i] = byte(seed, sent + i as u64));
                    match tcp.send(id, &[&chunk[..len]]) {
                        Ok(0) | Err(_) => break,
                        Ok(taken) => sent += taken as u64,
                    }
                    if sent == bytes {
                        tcp.shutdown(id).unwrap();
                    }
                }
                while let Ok(len @ 1..) = socket.recv_slice(&mut chunk) {
                    assert!((0..len).all(|i| chunk[i] == byte(seed, received + i as u64)));
                    received += len as u64;
                }
                ended = sent == bytes && received == bytes && !socket.may_recv();
            } else {
                while sent < bytes && socket.can_send() {
                    let len = chunk.len().min((bytes - sent) as usize);
                    (0..len).for_each(|i| chunk[i] = byte(seed, sent + i as u64));
                    sent += socket.send_slice(&chunk[..len]).unwrap() as u64;
                    if sent == bytes {
                        socket.close();
                    }
                }
                while let Ok(Some(len)) = tcp.recv(id, &mut chunk) {
                    ended = len == 0;
                    if ended {
                        break;
                    }
                    assert!((0..len).all(|i| chunk[i] == byte(seed, received + i as u64)));
                    received += len as u64;
                }
            }
        }
        if ended {
            assert_eq!(received, bytes);
            return now_ns;
        }
        interface.poll(Instant::from_micros((now_ns / 1000) as i64), &mut wire, &mut sockets);
        let mut out = Out::default();
        tcp.egress(now_ns, &mut out);
        let ways = [(false, out.0), (true, wire.from_smoltcp.drain(..).collect())];
        for (to_us, packets) in ways {
            for packet in packets {
                if random.chance(loss) {
                    continue;
                }
                let late_ns = if random.chance(loss) { random.below(5 * MS) } else { 0 };
                flying.push((now_ns + 5 * MS + late_ns, to_us, packet));
            }
        }
        now_ns += MS / 4;
    }
    panic!(
        "ours sends: {ours_sends}, connects: {ours_connects}, loss {loss}, seed {seed}: {received} of {bytes} bytes, {:?}",
        tcp.counters()
    );
}

#[test]
fn smoltcp_and_we_understand_each_other() {
    for (ours_sends, ours_connects) in [(true, true), (true, false), (false, true), (false, false)] {
        let clean_ns = transfer(ours_sends, ours_connects, 300_000, 0.0, 1);
        assert!(clean_ns < 2 * SECOND, "{} ms without loss", clean_ns / MS);
        for seed in 0..10 {
            transfer(ours_sends, ours_connects, 100_000, 0.02, seed);
        }
    }
}
