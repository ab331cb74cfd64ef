//! Fuzz target `topology`: the topology file of `testbed net`, and what is asked of its keeper.
//!
//! Whatever the bytes, reading ends with a topology whose names are fit for namespaces and interfaces, or with a message that has a place in
//! the text. A request that was read is written so that it reads back.

use std::path::Path;

use crate::net::control::Request;
use crate::net::topology::{Topology, is_name};

/// Runs one input.
pub fn run(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let written = serde_json::to_vec(&request).unwrap_or_else(|e| panic!("{request:?} is not written: {e}"));
        let again: Request = serde_json::from_slice(&written).unwrap_or_else(|e| panic!("{request:?} does not read back: {e}"));
        assert_eq!(again, request);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Topology::parse(text, Path::new("fuzz.toml")) {
        Ok(topology) => check(&topology),
        Err(error) => {
            assert!(error.line > 0 && error.column > 0 && error.line <= text.matches('\n').count() + 1, "{error}");
            assert!(!error.problem.is_empty());
        }
    }
}

fn check(topology: &Topology) {
    assert!(is_name(topology.name()) && topology.hosts().keys().all(|host| is_name(host)));
    let mut interfaces = Vec::new();
    for link in topology.links() {
        for end in &link.ends {
            assert!(topology.hosts().contains_key(&end.host));
            assert!((1..=15).contains(&end.interface.len()), "{}", end.interface);
            interfaces.push((&end.host, &end.interface));
        }
        for config in link.wire.iter().flatten() {
            assert!((4096..=1 << 16).contains(&link.pool(config).frames));
        }
    }
    let count = interfaces.len();
    interfaces.sort();
    interfaces.dedup();
    assert_eq!(interfaces.len(), count, "each interface of a host has a name of its own");
}
