use proptest::prelude::*;

use super::*;

const GOOD: &str = r#"
name = "dsl"

[hosts.server]
[hosts.client]
routes = [{ to = "default", via = "10.0.0.1" }]

[[links]]
name = "line"
ends = [{ host = "server", addresses = ["10.0.0.1/24", "fd00::1/64"] }, { host = "client", interface = "dsl0" }]
wire = { rate = "50 Mbps", delay = "10 ms" }
forward = { loss = "1%" }
backward = { rate = "10 Mbps" }
seed = 7

[[links]]
name = "direct"
ends = [{ host = "server" }, { host = "server" }]
mtu = 9000
offload = true
"#;

#[test]
fn a_topology_is_read() {
    let topology = Topology::from_toml(GOOD).unwrap();
    assert_eq!((topology.name(), topology.hosts().len(), topology.has_wires()), ("dsl", 2, true));
    let route = &topology.hosts()["client"].routes[0];
    assert_eq!(format!("{} {}", route.to, route.via), "default 10.0.0.1");
    let [line, direct] = topology.links() else { panic!() };
    assert_eq!(line.ends[0].addresses[1].to_string(), "fd00::1/64");
    let [there, back] = line.wire.unwrap();
    assert_eq!((there.rate_bps, back.rate_bps, there.delay_ns, back.delay_ns), (50_000_000, 10_000_000, 10_000_000, 10_000_000));
    assert!(there.loss > back.loss);
    assert_eq!((line.mtu_bytes, line.seed, line.offload), (1500, 7, false));
    let interfaces: Vec<&str> = line.ends.iter().chain(&direct.ends).map(|end| end.interface.as_str()).collect();
    assert_eq!(interfaces, ["eth0", "dsl0", "eth1", "eth2"]);
    assert!(direct.wire.is_none() && direct.offload);
    let short = Topology::parse("[hosts.a]", Path::new("/x/one-host.toml")).unwrap();
    assert_eq!((short.name(), short.has_wires()), ("one-host", false));
    assert_eq!(short.clone().named("other").unwrap().name(), "other");
    assert!(short.named("Other").is_err());
}

#[test]
fn mistakes_name_their_line() {
    let cases = [
        ("seed = 7", "sed = 7", 14, "unknown field `sed`"),
        ("rate = \"50 Mbps\"", "rate = \"50 Mb\"", 11, "\"50 Mb\" is not a rate"),
        ("loss = \"1%\"", "lost = \"1%\"", 12, "unknown field `lost`"),
        ("host = \"client\"", "host = \"clent\"", 10, "there is no host \"clent\"; the hosts are client, server"),
        ("[hosts.client]", "[hosts.wire]", 5, "\"wire\" is taken"),
        ("[hosts.client]", "[hosts.Client]", 5, "lower-case"),
        ("name = \"dsl\"", "name = \"../x\"", 2, "a name has"),
        ("interface = \"dsl0\"", "interface = \"sixteen-letters-\"", 10, "at most 15"),
        ("interface = \"dsl0\"", "interface = \"-n\"", 10, "at most 15"),
        ("name = \"direct\"", "name = \"line\"", 17, "two links \"line\""),
        ("mtu = 9000", "mtu = 9001", 19, "576 to 9000"),
        ("[{ host = \"server\" }, { host = \"server\" }]", "[{ host = \"server\" }]", 18, "two ends"),
        ("10.0.0.1/24", "10.0.0.1/33", 10, "length of its network"),
        ("offload = true", "forward = {}", 20, "need a wire"),
        ("seed = 7", "offload = true", 14, "finished frames"),
        ("ends = [{ host = \"server\", ", "ends = [{ host = \"client\", interface = \"dsl0\", ", 10, "two interfaces \"dsl0\""),
        ("forward = {", "wire = {", 12, "duplicate key"),
    ];
    for (from, to, line, problem) in cases {
        assert!(GOOD.contains(from), "{from}");
        let error = Topology::from_toml(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.problem.contains(problem), "{error}");
        assert!(error.to_string().starts_with(&format!("topology.toml:{line}:")), "{error}");
    }
    assert!(Topology::parse("[hosts.a]", Path::new("Bad Name.toml")).unwrap_err().problem.contains("no name"));
    assert!(Topology::from_toml("").is_err());
    assert!(Topology::from_toml("[hosts]").unwrap_err().problem.contains("1 to 200"));
    assert!(Topology::from_toml(&" ".repeat(FILE_BYTES_MAX + 1)).unwrap_err().problem.contains("longer"));
    assert!(Topology::read(Path::new("/nonexistent/x.toml")).is_err());
}

#[test]
fn every_topology_of_the_folder_can_be_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| Topology::read(&entry.unwrap().path()).unwrap_or_else(|e| panic!("{e}")).name().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["dsl", "gigabit", "pair", "router"]);
}

#[test]
fn memory_follows_rate_and_delay() {
    let link = |wire: &str| {
        let text = format!("[hosts.a]\n[[links]]\nname = \"l\"\nends = [{{ host = \"a\" }}, {{ host = \"a\" }}]\nwire = {wire}");
        Topology::from_toml(&text).unwrap().links()[0].clone()
    };
    let frames = |link: &Link| link.pool(&link.wire.unwrap()[0]).frames;
    assert_eq!(frames(&link("{}")), 4096);
    assert_eq!(frames(&link("{ rate = \"1 Gbps\", delay = \"9 ms\", reorder_by = \"0 s\" }")), 14_392);
    assert_eq!(frames(&link("{ rate = \"10 Gbps\", delay = \"10 s\" }")), 1 << 16);
    assert_eq!(link("{}").pool(&WireConfig::default()).frame_bytes, 1518);
}

/// Pieces that a hand or a fault puts into such a file.
fn piece() -> impl Strategy<Value = String> {
    let known =
        ["", "\n", "\"", "[", "]]", "{}", "= ", "eth0", "eth1", "server", "wire", "99999999999 s", "0 bps", "1e9", "-1", "\u{e4}", "../"];
    prop_oneof![4 => prop::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".{0,8}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damaged_topologies_are_survived(edits in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, piece()), 1..4)) {
        let mut chars: Vec<char> = GOOD.chars().collect();
        for (at, removed, put) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + removed).min(chars.len());
            chars.splice(at..end, put.chars());
        }
        crate::fuzz::topology::run(chars.into_iter().collect::<String>().as_bytes());
    }
}
