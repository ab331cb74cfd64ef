//! Thousands of small runs on paths that lose, duplicate, reorder and corrupt, with calls in random order; and many connections at once.

use std::net::SocketAddr;

use stack::tcp::{Algorithm, ConnId, IfqLimit, State, Tcp, TcpConfig};

use super::bulk::{Bulk, Transfer, config};
use super::link::{MS, Path, Random, SECOND, World, ip};

fn random_config(random: &mut Random) -> TcpConfig {
    let buffers = [3_000, 20_000, 65_535, 300_000];
    let ifq = [IfqLimit::Off, IfqLimit::Fixed(1), IfqLimit::Fixed(8), IfqLimit::Adaptive { min: 2, max: 64 }];
    TcpConfig {
        congestion: if random.chance(0.5) { Algorithm::NewReno } else { Algorithm::Cubic },
        mtu_bytes: [576, 1500, 9000][random.below(3) as usize],
        send_buffer_bytes: buffers[random.below(4) as usize],
        recv_buffer_bytes: buffers[random.below(4) as usize],
        buffer_bytes_max: buffers[random.below(4) as usize],
        ifq_limit: ifq[random.below(4) as usize],
        quantum: 1 + random.below(8) as u32,
        pool_bytes: 1 << 20,
        segments_max: [4, 4096][random.below(2) as usize],
        user_timeout_ns: 3600 * SECOND,
        connect_timeout_ns: 600 * SECOND,
        connections_max: 8,
        ..config()
    }
}

fn random_path(random: &mut Random) -> Path {
    Path {
        nic_bps: [10_000_000, 1_000_000_000][random.below(2) as usize],
        nic_frames: [1, 4, 256][random.below(3) as usize],
        bottleneck_bps: [1_000_000, 20_000_000, 1_000_000_000][random.below(3) as usize],
        buffer_bytes: [5_000, 50_000, 1_000_000][random.below(3) as usize],
        delay_ns: [10_000, MS, 40 * MS][random.below(3) as usize],
        loss: [0.0, 0.01, 0.1, 0.25][random.below(4) as usize],
        duplicate: [0.0, 0.05][random.below(2) as usize],
        corrupt: [0.0, 0.05][random.below(2) as usize],
        jitter_ns: [0, MS, 20 * MS][random.below(3) as usize],
        lose: Vec::new(),
    }
}

/// One small transfer; answers a line that tells everything about it.
fn small_run(seed: u64) -> String {
    let mut random = Random(seed);
    let (a, b, path) = (random_config(&mut random), random_config(&mut random), random_path(&mut random));
    let bytes = 1 + random.below(40_000);
    let mut bulk = Bulk::new([a, b], path.clone(), bytes, seed);
    bulk.world.trace = std::env::var_os("TACTUS_TCP_TRACE").is_some();
    let done = bulk.run(3600 * SECOND);
    assert!(done, "seed {seed}: {} of {bytes} bytes over {path:?}: {:?}", bulk.transfer.received, bulk.counters());
    format!("{seed} {} {:?}", bulk.world.now_ns, bulk.counters())
}

#[test]
fn small_transfers_arrive_whatever_the_path_does() {
    let seeds = std::env::var("TACTUS_TCP_SEED").ok().and_then(|seed| seed.parse().ok()).map_or(0..3000, |seed| seed..seed + 1);
    for seed in seeds {
        small_run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..50 {
        assert_eq!(small_run(seed), small_run(seed));
    }
}

/// Bytes that are not right are refused by their checksum; with a right checksum they may say anything.
#[test]
fn calls_and_segments_in_any_order_leave_nothing_behind() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let config = TcpConfig {
            connections_max: 6,
            listeners_max: 2,
            time_wait_ns: SECOND,
            fin_wait_ns: SECOND,
            user_timeout_ns: 5 * SECOND,
            connect_timeout_ns: 5 * SECOND,
            ..random_config(&mut random)
        };
        let path = Path { loss: 0.05, jitter_ns: MS, ..random_path(&mut random) };
        let tcp = [Tcp::new(config.clone(), seed, 0), Tcp::new(config, seed + 1, 0)];
        let free = tcp.each_ref().map(|tcp| tcp.memory());
        let mut world = World::new(tcp, path, seed);
        let listener = world.tcp[1].listen(SocketAddr::new(ip(1), 80), 3).unwrap();
        let mut held: [Vec<ConnId>; 2] = Default::default();
        for _ in 0..400 {
            step(&mut world, &mut held, listener, &mut random);
        }
        for (node, conns) in held.iter().enumerate() {
            conns.iter().for_each(|id| world.tcp[node].close(*id));
        }
        world.tcp[1].unlisten(listener);
        let end_ns = world.now_ns + 600 * SECOND;
        world.run(end_ns, &mut |_| false);
        for (node, before) in free.iter().enumerate() {
            assert_eq!(world.tcp[node].memory(), *before, "seed {seed}, node {node}");
            for id in &held[node] {
                assert!(world.tcp[node].info(*id).is_none(), "a name that was given back is gone");
            }
        }
    }
}

fn step(world: &mut World, held: &mut [Vec<ConnId>; 2], listener: stack::tcp::ListenerId, random: &mut Random) {
    let node = random.below(2) as usize;
    let pick = random.next() as usize;
    let id = (!held[node].is_empty()).then(|| held[node][pick % held[node].len()]);
    let now_ns = world.now_ns;
    match (random.below(12), id) {
        (0, _) => held[0].extend(world.tcp[0].connect(now_ns, SocketAddr::new(ip(0), 0), SocketAddr::new(ip(1), 80)).ok()),
        (1, _) => held[1].extend(world.tcp[1].accept(listener)),
        (2 | 3, Some(id)) => {
            let data = vec![1; random.below(9_000) as usize];
            let room = world.tcp[node].send_room(id);
            if let Ok(taken) = world.tcp[node].send(id, &[&data]) {
                assert_eq!(taken, room.min(data.len()));
            }
        }
        (4 | 5, Some(id)) => {
            let _ = world.tcp[node].recv(id, &mut vec![0; random.below(9_000) as usize]);
        }
        (6, Some(id)) if random.chance(0.3) => {
            let _ = world.tcp[node].shutdown(id);
        }
        (7, Some(id)) if random.chance(0.3) => {
            if random.chance(0.5) {
                world.tcp[node].close(id)
            } else {
                world.tcp[node].abort(id)
            }
            held[node].retain(|other| *other != id);
            assert!(world.tcp[node].info(id).is_none());
        }
        (8, Some(id)) => {
            // A segment with a right checksum and the rest at random, near to what is expected.
            let info = world.tcp[node].info(id);
            if let Some(info) = info.filter(|info| info.state != State::Closed) {
                let mut segment = vec![0; 20 + random.below(60) as usize];
                segment.iter_mut().for_each(|byte| *byte = random.next() as u8);
                let mut packet = smoltcp::wire::TcpPacket::new_unchecked(&mut segment);
                packet.set_src_port(info.remote.port());
                packet.set_dst_port(info.local.port());
                packet.set_header_len(20);
                packet.fill_checksum(&info.remote.ip().into(), &info.local.ip().into());
                world.tcp[node].ingress(now_ns, info.remote.ip(), info.local.ip(), &segment);
            }
        }
        _ => {
            let until_ns = now_ns + random.below(50 * MS);
            world.run(until_ns, &mut |_| false);
            world.now_ns = until_ns;
        }
    }
    for tcp in &mut world.tcp {
        while tcp.next_event().is_some() {}
    }
    world.turn(&mut |_| {});
}

/// `count` transfers at once from node 0, to the end. Answers when each was done, and the longest interface queue.
fn together(count: usize, bytes: u64, ifq_limit: IfqLimit, path: Path) -> (Vec<u64>, usize) {
    let config = TcpConfig {
        connections_max: count + 8,
        pool_bytes: 64 << 20,
        recv_buffer_bytes: 64 << 10,
        send_buffer_bytes: 64 << 10,
        buffer_bytes_max: 0,
        segments_max: 65_536,
        ifq_limit,
        ..config()
    };
    let mut world = World::new([Tcp::new(config.clone(), 1, 0), Tcp::new(config, 2, 0)], path, 3);
    let listener = world.tcp[1].listen(SocketAddr::new(ip(1), 80), count + 1).unwrap();
    let mut transfers: Vec<Transfer> = (0..count).map(|_| Transfer::new(0, bytes, 9)).collect();
    for transfer in &mut transfers {
        transfer.id[0] = world.tcp[0].connect(0, SocketAddr::new(ip(0), 0), SocketAddr::new(ip(1), 80)).ok();
    }
    let ports = |world: &World, node: usize, id: ConnId| world.tcp[node].info(id).map(|info| [info.local.port(), info.remote.port()][node]);
    world.run(600 * SECOND, &mut |world| {
        while let Some(id) = world.tcp[1].accept(listener) {
            let port = world.tcp[1].info(id).map(|info| info.remote.port());
            let own = transfers.iter_mut().find(|transfer| ports(world, 0, transfer.id[0].unwrap()) == port);
            own.unwrap().id[1] = Some(id);
        }
        let mut busy: Vec<ConnId> = Vec::new();
        for tcp in &mut world.tcp {
            while let Some((id, _)) = tcp.next_event() {
                busy.push(id);
            }
        }
        for transfer in transfers.iter_mut().filter(|transfer| transfer.id.iter().flatten().any(|id| busy.contains(id))) {
            transfer.work(world);
        }
        transfers.iter().all(|transfer| transfer.done_ns.is_some())
    });
    (transfers.iter().map(|transfer| transfer.done_ns.expect("all are done")).collect(), world.nic[0].longest)
}

#[test]
fn with_the_limit_many_connections_share_the_link_and_the_queue_stays_short() {
    // The interface is the bottleneck: 100 Mbit/s, a queue of 1000 frames.
    let path =
        || Path { nic_bps: 100_000_000, nic_frames: 1000, bottleneck_bps: 10_000_000_000, buffer_bytes: 10 << 20, ..Path::default() };
    let (bytes, count) = (100_000, 100);
    let (free, queue_free) = together(count, bytes, IfqLimit::Off, path());
    let (limited, queue_limited) = together(count, bytes, IfqLimit::Fixed(8), path());
    assert!(queue_free > 500, "{queue_free} frames without a limit");
    assert!(queue_limited <= 8 + 100, "{queue_limited} frames with a limit of 8: the rest are handshakes");
    let (first, last) = (*limited.iter().min().unwrap(), *limited.iter().max().unwrap());
    // 10 MB at 100 Mbit/s with headers are 0.84 s.
    assert!(last < 1_000 * MS, "{} ms for all", last / MS);
    assert!(first * 10 > last * 7, "from {} to {} ms: everybody gets a share", first / MS, last / MS);
    let last_free = *free.iter().max().unwrap();
    assert!(last <= last_free + last_free / 10, "the limit costs nothing: {} ms, {} ms without", last / MS, last_free / MS);
}
