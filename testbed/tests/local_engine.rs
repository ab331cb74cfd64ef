//! The local engine on kernel sockets: whoever stops listening, at whatever moment, leaves nothing behind.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use controlplane::engine::{Class, Engine, EngineError, PlayFrom, SessionId, SessionState, TrackTransport};
use controlplane::local::{LiveRules, LocalConfig, LocalEngine};
use dataplane::delivery::LagPolicy;
use dataplane::engine::Poll as Polling;
use dataplane::engine::net::Handover;
use testbed::clip::{ClipSpec, make_clips};

const SESSIONS_MAX: u32 = 2;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn engine(seconds: u32) -> (tempfile::TempDir, Arc<LocalEngine>) {
    let folder = tempfile::tempdir().unwrap();
    make_clips(&ClipSpec { seconds, rate_bps: 300_000, ..ClipSpec::default() }, 1, folder.path()).unwrap();
    let config = LocalConfig {
        media: folder.path().to_owned(),
        index_cache: None,
        cpus: vec![None],
        poll: Polling::Adaptive,
        rtp_port: 0,
        sessions_max: SESSIONS_MAX,
        memory_bytes: 16 << 20,
        chunk_bytes: 64 << 10,
        read_ahead_ns: 1_000_000_000,
        stall_ns: 10_000_000_000,
        own_net: None,
        lag: LagPolicy::default(),
        disk_share_permille: 0,
        disk_profiles: None,
        cpu_share_permille: 800,
        cache: false,
        realtime: false,
        live: LiveRules::default(),
        sources: Vec::new(),
        import_from: None,
        recordings_to: Default::default(),
    };
    let engine = LocalEngine::start(config).unwrap();
    (folder, engine)
}

fn udp(port: u16) -> TrackTransport {
    TrackTransport::Udp { rtp: SocketAddr::new(CLIENT, port), rtcp: SocketAddr::new(CLIENT, port + 1), local_addr: CLIENT }
}

async fn created(engine: &LocalEngine) -> SessionId {
    engine.create_session("clip-0000.mp4", SocketAddr::new(CLIENT, 1), Class::Guaranteed).await.unwrap().session
}

async fn set_up(engine: &LocalEngine, session: SessionId, transport: impl Fn(u16) -> TrackTransport) -> Result<(), EngineError> {
    let tracks = engine.describe("clip-0000.mp4").await?.tracks.clone();
    for (i, track) in tracks.iter().enumerate() {
        engine.setup_session(session, track.id, transport(40_000 + 2 * i as u16)).await?;
    }
    Ok(())
}

/// Polls a future this often, a millisecond apart, and drops it; true when it came to its end.
async fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> bool {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    false
}

/// All places of the engine can be taken and played from: nothing is left of what was there before.
async fn assert_all_free(engine: &LocalEngine) {
    let mut all = Vec::new();
    for n in 0..SESSIONS_MAX as u16 {
        let session = created(engine).await;
        set_up(engine, session, |port| udp(port + 100 * n)).await.unwrap();
        engine.start_session(session, PlayFrom::Npt(0), None).await.unwrap();
        engine.run_session(session).await.unwrap();
        all.push(session);
    }
    let one_more = created(engine).await;
    assert!(matches!(set_up(engine, one_more, udp).await, Err(EngineError::Capacity(_))));
    all.push(one_more);
    for session in all {
        engine.destroy_session(session).await;
    }
    assert!(engine.sessions().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_nobody_waits_for_leave_nothing_behind() {
    let (_folder, engine) = engine(3);
    for polls in (0..8).chain([20]) {
        let session = created(&engine).await;
        let transport = |n: u16| udp(41_000 + n % 100);
        give_up_after(polls, set_up(&engine, session, transport)).await;
        give_up_after(polls, engine.start_session(session, PlayFrom::Npt(0), None)).await;
        give_up_after(polls, engine.run_session(session)).await;
        // One poll carries the wish; nobody hears the answer.
        give_up_after(1, engine.destroy_session(session)).await;
        assert_all_free(&engine).await;
    }
    engine.shut_down(Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_destroyed_while_it_is_set_up_stays_away() {
    let (_folder, engine) = engine(3);
    for delay_us in [0, 20, 50, 100, 200, 400, 800, 1600] {
        let session = created(&engine).await;
        let other = Arc::clone(&engine);
        let setting_up = tokio::spawn(async move { set_up(&other, session, udp).await });
        tokio::time::sleep(Duration::from_micros(delay_us)).await;
        engine.destroy_session(session).await;
        let _ = setting_up.await.unwrap();
        assert_all_free(&engine).await;
    }
    engine.shut_down(Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_nobody_waits_for_overtakes_the_set_up_under_way() {
    let (_folder, engine) = engine(3);
    for polls in 1..6 {
        let session = created(&engine).await;
        let mut setting_up = Box::pin(set_up(&engine, session, udp));
        let done = give_up_after(polls, setting_up.as_mut()).await;
        give_up_after(1, engine.destroy_session(session)).await;
        if !done {
            // It finds out by itself.
            let _ = setting_up.await;
        }
        assert_all_free(&engine).await;
    }
    engine.shut_down(Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_nobody_waits_for_are_let_go_of() {
    let (_folder, engine) = engine(3);
    let listener = TcpListener::bind((CLIENT, 0)).unwrap();
    let connect = || Handover::Socket(TcpStream::connect(listener.local_addr().unwrap()).unwrap().into());
    // More than there are places.
    let nobody = SessionId(u64::MAX);
    for _ in 0..4 * SESSIONS_MAX {
        give_up_after(1, engine.attach_stream(connect(), nobody)).await;
    }
    for _ in 0..2 * SESSIONS_MAX {
        let session = created(&engine).await;
        let stream = engine.attach_stream(connect(), session).await.unwrap();
        let transport = |n: u16| {
            let channel = 2 * (n % 10) as u8;
            TrackTransport::Interleaved { stream, rtp_channel: channel, rtcp_channel: channel + 1 }
        };
        set_up(&engine, session, transport).await.unwrap();
        engine.detach_stream(stream);
        engine.start_session(session, PlayFrom::Position, None).await.unwrap();
        engine.run_session(session).await.unwrap();
        wait_for(&engine, session, SessionState::Failed).await;
        assert!(matches!(engine.start_session(session, PlayFrom::Npt(0), None).await, Err(EngineError::State(_))));
        engine.destroy_session(session).await;
    }
    assert_all_free(&engine).await;
    engine.shut_down(Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play_after_the_end_starts_anew_and_ranges_are_checked() {
    let (_folder, engine) = engine(1);
    let session = created(&engine).await;
    assert!(matches!(engine.start_session(session, PlayFrom::Position, None).await, Err(EngineError::State(_))));
    set_up(&engine, session, udp).await.unwrap();
    for from in [PlayFrom::Position, PlayFrom::Position, PlayFrom::Npt(1_000_000_000)] {
        engine.start_session(session, from, None).await.unwrap();
        let started = engine.start_session(session, PlayFrom::Position, None).await.unwrap();
        assert_eq!(started.tracks.len(), 2);
        engine.run_session(session).await.unwrap();
        engine.run_session(session).await.unwrap();
        wait_for(&engine, session, SessionState::Ended).await;
    }
    for (from, to) in [(u64::MAX, None), (2_000_000_000, None), (0, Some(0)), (500_000_000, Some(400_000_000))] {
        assert!(matches!(engine.start_session(session, PlayFrom::Npt(from), to).await, Err(EngineError::Range(_))));
    }
    let started = engine.start_session(session, PlayFrom::Npt(0), Some(300_000_000)).await.unwrap();
    assert_eq!((started.from_ns, started.to_ns), (0, 300_000_000));
    engine.run_session(session).await.unwrap();
    wait_for(&engine, session, SessionState::Ended).await;
    engine.destroy_session(session).await;
    assert_all_free(&engine).await;
    engine.shut_down(Duration::from_secs(5));
}

async fn wait_for(engine: &LocalEngine, session: SessionId, state: SessionState) {
    // Patience for a busy machine; the test says nothing about how soon.
    for _ in 0..3000 {
        if engine.session_status(session).await.unwrap().state == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the session did not become {state:?}");
}
