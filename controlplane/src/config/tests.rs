//! The configuration from outside: what the file may say, what is reported, what is printed.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::engine::Class;
use crate::units::ByteSize;

fn from_toml(text: &str) -> Result<Config, String> {
    Config::from_toml(text.as_bytes(), Path::new("t.toml")).map_err(|e| e.to_string())
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(from_toml(""), Ok(Config::default()));
    assert_eq!(Config::assemble(&[], &[]).unwrap(), Config::default());
}

#[test]
fn every_key_can_be_set_in_the_file() {
    let text = r#"
        media = "/srv/films"
        rtsp = "[::]:554"
        http = "off"
        net = "af_xdp:eth1"
        ip = "192.0.2.10/24, 2001:db8::10/64"
        gateway = "192.0.2.1"
        engine-cores = [3]
        poll = "busy"
        rtp-port = 0x2000
        max-sessions = 1_000
        memory = "1 GiB"
        read-ahead = 500
        chunk = 131072
        session-timeout = 30
        index-cache = "/var/cache/tactus"
        stall-timeout = 5
        class = "best-effort"
        class-paths = "news/ = guaranteed"
        class-clients = "10.1.0.0/16 = guaranteed"
        class-query = "10.0.0.0/8"
        lag-max = 2000
        lag-action = "end"
        disk-share = 50
        cpu-share = 60
        disk-profile = "/var/lib/tactus/disks.json"
        cache = "off"
         record-paths = "live/"
         record-from = "10.1.0.0/16"
         live-latency = 500
         live-lost = "hold"
         live-timeout = 3
         live-hold = 600
         live-memory = "16MiB"
         source = "live/news=udp://239.1.1.1:5000"
         realtime = "on"
         import-from = "/srv/inbox"
         recordings-to = "recordings/, shows/"
        log = "debug"
    "#;
    let expected = Config {
        media: PathBuf::from("/srv/films"),
        rtsp: "[::]:554".parse().unwrap(),
        http: HttpListen::Off,
        net: Net::AfXdp("eth1".into()),
        ip: List(vec!["192.0.2.10/24".parse().unwrap(), "2001:db8::10/64".parse().unwrap()]),
        gateway: List(vec!["192.0.2.1".parse().unwrap()]),
        engine_cores: "3".parse().unwrap(),
        poll: Poll::Busy,
        rtp_port: 8192,
        max_sessions: 1000,
        memory: ByteSize(1 << 30),
        read_ahead_ms: 500,
        chunk: ByteSize(128 << 10),
        session_timeout_s: 30,
        index_cache: IndexCache::Dir(PathBuf::from("/var/cache/tactus")),
        stall_timeout_s: 5,
        classes: ClassRules {
            default: Class::BestEffort,
            paths: "news/=guaranteed".parse().unwrap(),
            clients: "10.1.0.0/16=guaranteed".parse().unwrap(),
            query: "10.0.0.0/8".parse().unwrap(),
        },
        lag_max_ms: 2000,
        lag_action: LagAction::End,
        disk_share_percent: 50,
        cpu_share_percent: 60,
        disk_profile: IndexCache::Dir(PathBuf::from("/var/lib/tactus/disks.json")),
        cache: false,
        realtime: true,
        live: LiveConfig {
            record: RecordRules { paths: "live/".parse().unwrap(), from: "10.1.0.0/16".parse().unwrap() },
            latency_ms: 500,
            lost: LiveLost::Hold,
            timeout_s: 3,
            hold_s: 600,
            memory: ByteSize(16 << 20),
            sources: "live/news=udp://239.1.1.1:5000".parse().unwrap(),
        },
        import_from: Folder::Dir(PathBuf::from("/srv/inbox")),
        recordings_to: "recordings/,shows/".parse().unwrap(),
        log: LogLevel::Debug,
    };
    assert_eq!(from_toml(text), Ok(expected));
    for key in Key::ALL {
        assert!(text.contains(key.name()), "the test forgets {}", key.name());
    }
}

#[test]
fn the_command_line_overrides_the_file() {
    let file = file::parse(b"poll = \"busy\"\nrtp-port = 7000", Path::new("t.toml")).unwrap();
    let config = Config::assemble(&file, &[Setting { key: Key::RtpPort, text: "8000".into() }]).unwrap();
    assert_eq!((config.poll, config.rtp_port, config.max_sessions), (Poll::Busy, 8000, 5000));
}

#[test]
fn mistakes_name_their_place_and_what_would_be_right() {
    for (text, message) in [
        ("medai = \"x\"", "t.toml:1:1: unknown key \"medai\"; did you mean \"media\"?"),
        ("\n  rtp_port = 1", "t.toml:2:3: unknown key \"rtp_port\"; did you mean \"rtp-port\"?"),
        ("rtp-port = \"6970\"", "t.toml:1:12: rtp-port: expected an integer, found a string"),
        ("rtp-port = 6971", "t.toml:1:12: rtp-port: 6971 is odd: RTP takes an even port and RTCP the one above it"),
        ("rtp-port = 65536", "t.toml:1:12: rtp-port: \"65536\" is not a whole number from 0 to 65534"),
        ("max-sessions = -1", "t.toml:1:16: max-sessions: \"-1\" is not a whole number from 1 to 1000000"),
        ("session-timeout = 1.5", "t.toml:1:19: session-timeout: expected an integer, found a float"),
        ("http = false", "t.toml:1:8: http: expected a string, found a boolean"),
        (
            "http = \"8080\"",
            "t.toml:1:8: http: \"8080\" is not an address; write IP:PORT as in \"0.0.0.0:8554\" or \"[::]:8554\", or \"off\"",
        ),
        (
            "net = \"xdp\"",
            "t.toml:1:7: net: \"xdp\" does not exist; there is \"kernel\" (the operating system's sockets), \"af_xdp:IFACE\" and \"tap:NAME\" \
             (our own stack)",
        ),
        (
            "net = \"tap:a/b\"",
            "t.toml:1:7: net: \"a/b\" is not the name of a network interface: 1 to 15 printable characters without '/' and ':'",
        ),
        (
            "ip = \"10.0.0.1\"",
            "t.toml:1:6: ip: \"10.0.0.1\" is not an address of ours; write ADDRESS/PREFIX as in \"192.0.2.10/24\" or \"2001:db8::10/64\"",
        ),
        (
            "ip = \"10.0.0.1/24\"",
            "ip and gateway are for our own stack; with net = \"kernel\" the operating system has the addresses: leave them out",
        ),
        (
            "net = \"tap:t0\"",
            "net = \"tap:t0\" needs addresses of its own: set ip, as in \"192.0.2.10/24\"; none that the operating system has",
        ),
        (
            "net = \"tap:t0\"\nip = \"10.0.0.2/24\"\ngateway = \"10.0.1.1\"",
            "gateway 10.0.1.1 is in none of the networks of ip: it cannot be reached",
        ),
        (
            "net = \"tap:t0\"\nip = \"10.0.0.2/24\"\nrtsp = \"10.0.0.3:554\"",
            "rtsp = 10.0.0.3:554 is none of the addresses of ip: choose one of them, or 0.0.0.0 for all",
        ),
        (
            "gateway = \"10.0.0.1,10.0.0.2\"",
            "t.toml:1:11: gateway: \"10.0.0.1,10.0.0.2\" is not a gateway; write an address, or one IPv4 and one IPv6 address with a comma \
             between",
        ),
        ("poll = \"never\"", "t.toml:1:8: poll: \"never\" does not exist; there is \"busy\" and \"adaptive\""),
        (
            "chunk = \"65 KB\"",
            "t.toml:1:9: chunk: \"65 KB\" is not a size; write a whole number and a unit: \"256 MiB\" (units: B, KiB, MiB, GiB)",
        ),
        ("chunk = 5000", "t.toml:1:9: chunk: 5000 B is not a multiple of 4 KiB"),
        ("chunk = \"8 MiB\"", "t.toml:1:9: chunk: 8 MiB is outside 4 KiB to 4 MiB"),
        (
            "engine-cores = [0, \"1\"]",
            "t.toml:1:16: engine-cores: expected a string, or an array of CPU numbers, found an array that holds something else",
        ),
        ("engine-cores = []", "t.toml:1:16: engine-cores: \"\" is not a list of CPUs; write \"auto\", \"1\", \"0,2\" or \"0,2-3\""),
        ("media = \"\"", "t.toml:1:9: media: \"\" is not a path: it is empty or contains a NUL byte"),
        ("[media]\nx = 1", "t.toml:1:1: media: expected a string, found a table"),
        (
            "memory = \"1 MiB\"\nchunk = \"1 MiB\"",
            "memory = 1 MiB holds only 1 chunks of 1 MiB; at least 16 are needed: raise memory or lower chunk",
        ),
        (
            "rtp-port = 65534\nengine-cores = \"0-1\"",
            "rtp-port = 65534 leaves no room for 2 engine cores (2 ports each, up to 65535): choose a lower port",
        ),
        ("http = \"0.0.0.0:8554\"", "rtsp and http are both 0.0.0.0:8554: choose another port for one of them, or http = \"off\""),
    ] {
        assert_eq!(from_toml(text), Err(message.to_owned()), "{text}");
    }
}

#[test]
fn all_mistakes_are_reported_in_the_order_of_the_file() {
    let errors = from_toml("zzzzzzzzz = 1\npoll = 1\nlog = \"loud\"\nmedai = 1").unwrap_err();
    let places: Vec<_> = errors.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["t.toml:1:1", "t.toml:2:8", "t.toml:3:7", "t.toml:4:1"], "{errors}");
    assert!(errors.contains("the keys are media, rtsp"), "{errors}");
}

#[test]
fn broken_files_are_told_apart() {
    assert!(from_toml("poll = ").unwrap_err().starts_with("t.toml:1:"), "{:?}", from_toml("poll = "));
    assert!(from_toml("poll = \"busy\"\npoll = \"busy\"").unwrap_err().starts_with("t.toml:2:1: duplicate key"));
    assert_eq!(Config::from_toml(b"log = \"info\"\n\xff", Path::new("t.toml")).unwrap_err().to_string(), "t.toml:2:1: not UTF-8 text");
    let long = vec![b'\n'; file::FILE_BYTES_MAX + 1];
    assert!(Config::from_toml(&long, Path::new("t.toml")).unwrap_err().to_string().contains("longer than"));
    assert!(from_toml(&format!("log = {}", "[".repeat(100_000))).is_err());
    let missing = file::read(Path::new("/nonexistent/t.toml")).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/t.toml: cannot read the configuration"), "{missing}");
}

#[test]
fn the_cache_folder_is_the_users() {
    let resolve = |set: &'static [(&str, &str)]| {
        IndexCache::Auto.resolve(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    };
    assert_eq!(resolve(&[("CACHE_DIRECTORY", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")]), Some(PathBuf::from("/a")));
    assert_eq!(resolve(&[("XDG_CACHE_HOME", "/b"), ("HOME", "/c")]), Some(PathBuf::from("/b/tactus")));
    assert_eq!(resolve(&[("XDG_CACHE_HOME", "not absolute"), ("HOME", "/c")]), Some(PathBuf::from("/c/.cache/tactus")));
    assert_eq!(resolve(&[]), None);
    assert_eq!(IndexCache::Off.resolve(|_| Some("/a".into())), None);
}

/// Configurations whose single values are all allowed; together they may conflict.
fn any_config() -> impl Strategy<Value = Config> {
    let address = (any::<std::net::IpAddr>(), any::<u16>()).prop_map(std::net::SocketAddr::from);
    let path = "[^\\x00]{1,30}".prop_map(PathBuf::from);
    let cores = prop_oneof![
        Just(EngineCores::Auto),
        prop::collection::btree_set(0..1024u32, 1..6).prop_map(|cpus| cpus
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")
            .parse()
            .unwrap()),
    ];
    let cache =
        prop_oneof![Just(IndexCache::Auto), Just(IndexCache::Off), path.clone().prop_map(|dir| dir.to_str().unwrap().parse().unwrap())];
    let level = prop::sample::select(vec![LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]);
    let http = prop_oneof![Just(HttpListen::Off), address.clone().prop_map(HttpListen::On)];
    let net = prop_oneof![Just(Net::Kernel), "[a-z0-9.@-]{3,15}".prop_map(Net::AfXdp), "[a-z0-9]{1,15}".prop_map(Net::Tap)];
    let ip = prop::collection::vec((any::<u32>(), 1..=32u8), 0..4).prop_map(|list| {
        // Not multicast, loopback or 0.0.0.0.
        let own = |(bits, prefix)| OwnAddress { ip: std::net::Ipv4Addr::from_bits(bits & 0x1fff_ffff | 0x4000_0000).into(), prefix };
        List(list.into_iter().map(own).collect())
    });
    let gateway = prop::option::of(any::<std::net::IpAddr>()).prop_map(|one| List(one.into_iter().collect()));
    let class = prop::sample::select(vec![Class::Guaranteed, Class::BestEffort]);
    let rules = (
        class,
        prop::sample::select(vec!["", "a/=guaranteed", "trailers/=best-effort, trailers/x=guaranteed"]),
        prop::sample::select(vec!["off", "any", "10.0.0.0/8,::1/128"]),
        prop::sample::select(vec![LagAction::Skip, LagAction::End]),
    );
    let live = (
        prop::sample::select(vec!["off", "live/", "a/b,c"]),
        prop::sample::select(vec!["off", "any", "10.0.0.0/8"]),
        prop::sample::select(vec![LiveLost::End, LiveLost::Hold]),
        0..=10_000u32,
        1..=3600u32,
        1..=86_400u32,
        (1u64 << 20)..=(1 << 30),
        prop::sample::select(vec!["", "a=udp://0.0.0.0:1", "a/b=udp://239.1.1.1:5000,c=udp://[ff02::1]:6"]),
    );
    let live = live.prop_map(|(paths, from, lost, latency_ms, timeout_s, hold_s, memory, sources)| LiveConfig {
        record: RecordRules { paths: paths.parse().unwrap(), from: from.parse().unwrap() },
        latency_ms,
        lost,
        timeout_s,
        hold_s,
        memory: ByteSize(memory),
        sources: sources.parse().unwrap(),
    });
    let shares = (0..=100u32, 1..=100u32, any::<bool>(), any::<bool>());
    let places = (path, address, http, cores, (cache.clone(), cache), level, rules, (net, ip, gateway));
    let numbers = (
        0..=32_767u16,
        1..=1_000_000u32,
        (1u64 << 20)..=(1 << 40),
        100..=60_000u32,
        1..=1024u64,
        5..=86_400u32,
        1..=3600u32,
        100..=3_600_000u32,
    );
    (places, numbers, any::<bool>(), shares, live).prop_map(
        |(places, numbers, busy, (disk_share_percent, cpu_share_percent, cache, realtime), live)| {
            let (media, rtsp, http, engine_cores, (index_cache, disk_profile), log, (class, paths, query, lag_action), (net, ip, gateway)) =
                places;
            let (half_port, max_sessions, memory, read_ahead_ms, pages, session_timeout_s, stall_timeout_s, lag_max_ms) = numbers;
            Config {
                media,
                rtsp,
                http,
                net,
                ip,
                gateway,
                engine_cores,
                poll: if busy { Poll::Busy } else { Poll::Adaptive },
                rtp_port: half_port * 2,
                max_sessions,
                memory: ByteSize(memory),
                read_ahead_ms,
                chunk: ByteSize(pages * 4096),
                session_timeout_s,
                index_cache,
                stall_timeout_s,
                classes: ClassRules {
                    default: class,
                    paths: paths.parse().unwrap(),
                    clients: if busy { ClassClients::default() } else { "10.1.0.0/16=best-effort, ::1=guaranteed".parse().unwrap() },
                    query: query.parse().unwrap(),
                },
                lag_max_ms,
                lag_action,
                disk_share_percent,
                cpu_share_percent,
                disk_profile,
                cache,
                realtime,
                live,
                import_from: if cache { Folder::Off } else { Folder::Dir(PathBuf::from("/in box")) },
                recordings_to: if cache { "a b/".parse().unwrap() } else { RecordPaths::default() },
                log,
            }
        },
    )
}

proptest! {
    #[test]
    fn what_is_printed_reads_back(config in any_config()) {
        let printed = config.to_toml();
        match Config::from_toml(printed.as_bytes(), Path::new("t.toml")) {
            Ok(read) => prop_assert_eq!(read, config),
            Err(ConfigError::Conflict(_)) => prop_assert!(config.check().is_err()),
            Err(other) => prop_assert!(false, "{}\n{}", other, printed),
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Config::from_toml(&bytes, Path::new("t.toml"));
    }

    #[test]
    fn any_value_of_any_key_is_survived(
        key in prop::sample::select(Key::ALL.to_vec()),
        value in prop_oneof![
            any::<i64>().prop_map(|n| n.to_string()),
            ".{0,20}".prop_map(|s| toml::Value::String(s).to_string()),
            Just("[1, 2]".to_owned()),
            Just("{ a = 1 }".to_owned()),
            Just("1979-05-27".to_owned()),
            Just("99999999999999999999999".to_owned()),
            Just("nan".to_owned()),
        ],
    ) {
        if let Ok(config) = from_toml(&format!("{} = {value}", key.name())) {
            prop_assert_eq!(from_toml(&config.to_toml()), Ok(config));
        }
    }
}
