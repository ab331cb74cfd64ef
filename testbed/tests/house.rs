//! House rules that a machine can check: which room may use which, and how source files are kept.
//!
//! - `rooms_use_only_what_they_may`: the arrows of the design, from `cargo metadata`.
//! - `files_are_tidy`: size, module documentation, no leftovers, `unsafe` only where [`UNSAFE_FILES`] says and with its reason above.
//! - `the_hot_rooms_do_not_panic`: no `unwrap` or `expect` outside tests in the crates that run on engine cores. A call that cannot
//!   fail says why on the line above: `// INVARIANT: ...`.
//! - `gdsl_knows_no_delivery`: the data streaming library names nothing that is made with it.
//!
//! Each rule lists everything that breaks it, with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a room may use; a room that is not listed may use all.
const ARROWS: [(&str, &[&str]); 5] = [
    ("hugepages", &[]),
    ("pacing", &[]),
    ("stack", &["hugepages", "pacing"]),
    ("dataplane", &["hugepages", "pacing", "stack"]),
    ("controlplane", &["dataplane", "pacing"]),
];
/// Rooms whose code runs on engine cores.
const HOT_ROOMS: [&str; 4] = ["dataplane/src/", "stack/src/", "pacing/src/", "hugepages/src/"];
/// Files that may contain `unsafe`: small ones, with a safe face.
const UNSAFE_FILES: &[&str] = &[
    "controlplane/src/cli/os.rs",
    "dataplane/examples/disk_read.rs",
    "dataplane/examples/port_bench.rs",
    "dataplane/src/disks/file.rs",
    "dataplane/src/disks/new_file.rs",
    "dataplane/src/disks/tests.rs",
    "dataplane/src/disks/uring/ring.rs",
    "dataplane/src/engine/eventfd.rs",
    "dataplane/src/engine/realtime.rs",
    "dataplane/src/ports/af_xdp/rings.rs",
    "dataplane/src/ports/netdev.rs",
    "dataplane/src/ports/packet.rs",
    "dataplane/src/ports/steer/bpf.rs",
    "dataplane/src/ports/sys.rs",
    "dataplane/src/ports/tap/sys.rs",
    "dataplane/tests/engine/allocation.rs",
    "dataplane/tests/media/counting.rs",
    "dataplane/tests/ports/namespaces.rs",
    "dataplane/tests/packets_without_allocation.rs",
    "hugepages/src/arena.rs",
    "hugepages/src/chunk.rs",
    "hugepages/src/frame.rs",
    "hugepages/src/prefetch.rs",
    "pacing/src/clock/sys.rs",
    "stack/examples/host_send.rs",
    "stack/src/exchange/ring.rs",
    "stack/src/kernel/mmsg.rs",
    "stack/src/kernel/sockopt.rs",
    "stack/tests/tcp/allocation.rs",
    "stack/tests/without_allocation.rs",
    "testbed/src/load/sys.rs",
    "testbed/src/net/packet.rs",
    "testbed/src/net/sys.rs",
    "testbed/src/player/signal.rs",
    "testbed/src/send/sys.rs",
];
/// Modules of the engine that the data streaming library may use: a delivery is made with it, and never known to it.
const GDSL_USES: [&str; 2] = ["disks", "gdsl"];
/// Lines of a file.
const LINES_MAX: usize = 600;
/// Lines of a file of tests.
const TEST_LINES_MAX: usize = 1000;
/// What no file contains. Split, so that this file may contain them.
const LEFTOVERS: [&str; 6] =
    [concat!("to", "do!("), concat!("unimpl", "emented!("), concat!("db", "g!("), concat!("TO", "DO"), concat!("FIX", "ME"), "\t"];

/// A source file.
struct Source {
    /// Path below the repository's root.
    path: String,
    /// As it is.
    text: String,
    /// With comments and the insides of literals blanked; lines and columns are unchanged.
    code: String,
    /// All of it is test code.
    is_test: bool,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Rust files of the repository, by path.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            let ignored = name.starts_with('.') || name == "target" || (folder == root() && (name == "media" || name == "out"));
            if entry.file_type().unwrap().is_dir() && !ignored {
                folders.push(path);
            } else if name.ends_with(".rs") {
                paths.push(path);
            }
        }
    }
    paths.sort();
    let mut sources: Vec<Source> = paths.iter().map(|path| read(path)).collect();
    let test_modules: BTreeSet<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let stem = source.path.trim_end_matches(".rs").trim_end_matches("/mod");
        source.is_test |= test_modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")));
    }
    assert!(sources.len() > 20, "the walk finds the sources");
    sources
}

fn read(path: &Path) -> Source {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let is_test = path.contains("/tests/") || path.ends_with("/tests.rs");
    Source { code: blank(&text), path, text, is_test }
}

/// Paths, without `.rs`, of the modules that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let folder = match source.path.rsplit_once('/') {
        Some((folder, "mod.rs" | "lib.rs" | "main.rs")) => folder,
        _ => source.path.trim_end_matches(".rs"),
    };
    let declared = |item: &&str| item.ends_with(';') && item.split_whitespace().any(|word| word == "mod");
    let name = |item: &str| item.trim_end_matches(';').split_whitespace().last().unwrap_or_default().to_owned();
    test_items(&source.code)
        .into_iter()
        .map(|(start, end)| &source.code[start..end])
        .filter(declared)
        .map(|item| format!("{folder}/{}", name(item)))
        .collect()
}

/// Byte ranges of the items under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut at = 0;
    while let Some(found) = code[at..].find("#[cfg(test)]") {
        let start = at + found;
        let mut depth = 0usize;
        let end = code[start..].char_indices().find_map(|(i, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0 && (c == '}' || c == ';')).then_some(start + i + 1)
        });
        at = end.unwrap_or(code.len());
        items.push((start, at));
    }
    items
}

/// The source with comments and the insides of string and character literals replaced by spaces.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text.as_bytes()[at..];
        let previous_is_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let len = match rest {
            [b'/', b'/', ..] => rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => block_comment(rest),
            [b'"', ..] => string(rest),
            [b'r', b'"' | b'#', ..] if !previous_is_word => raw_string(rest).unwrap_or(0),
            [b'\'', b'\\', ..] => 2 + rest[2..].iter().skip(1).position(|b| *b == b'\'').map_or(0, |i| i + 2),
            [b'\'', ..] => character(rest),
            _ => 0,
        };
        for byte in &mut out[at..at + len] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += len.max(1);
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Length of a block comment; they nest.
fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Length of `r"..."` or `r#"..."#`; `None` when this is a raw identifier.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(1 + hashes) == Some(&b'"')).then_some(())?;
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = 2 + hashes;
    Some(bytes[body..].windows(close.len()).position(|w| w == close).map_or(bytes.len(), |i| body + i + close.len()))
}

/// Length of a character literal; 0 for a lifetime.
fn character(bytes: &[u8]) -> usize {
    let width = match bytes.get(1) {
        Some(lead) if *lead >= 0xf0 => 4,
        Some(lead) if *lead >= 0xe0 => 3,
        Some(lead) if *lead >= 0xc0 => 2,
        _ => 1,
    };
    if bytes.get(1 + width) == Some(&b'\'') { width + 2 } else { 0 }
}

/// True when `word` stands in `line` by itself.
fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|part| part == word)
}

/// What is untidy in a file, one message each.
fn untidy(source: &Source) -> Vec<String> {
    let mut out = Vec::new();
    let path = &source.path;
    let lines: Vec<&str> = source.text.lines().collect();
    let max = if source.is_test { TEST_LINES_MAX } else { LINES_MAX };
    if lines.len() > max {
        out.push(format!("{path}: {} lines, at most {max}: which second subject has moved in?", lines.len()));
    }
    let documented = lines.iter().find(|line| !line.is_empty() && !line.starts_with("#!")).is_some_and(|line| line.starts_with("//!"));
    if !documented && !source.is_test && !path.contains("/fuzz_targets/") {
        out.push(format!("{path}:1: no module documentation (//! what it is for)"));
    }
    for (number, line) in (1..).zip(&lines) {
        for leftover in LEFTOVERS.iter().filter(|leftover| line.contains(**leftover)) {
            out.push(format!("{path}:{number}: {leftover:?}"));
        }
    }
    for (index, line) in source.code.lines().enumerate().filter(|(_, line)| has_word(line, "unsafe")) {
        let number = index + 1;
        if line.contains("unsafe_") {
            continue;
        }
        if !UNSAFE_FILES.contains(&path.as_str()) {
            out.push(format!("{path}:{number}: unsafe in a file that is not on the list"));
        }
        // What an unsafe function asks of its caller is written in its trait or, clippy sees to that, in its own documentation.
        if line.contains("unsafe fn") {
            continue;
        }
        let above = lines[..index].iter().rev().take(12).take_while(|line| !line.trim().is_empty());
        if !above.into_iter().any(|line| line.contains("// SAFETY:") || line.contains("# Safety")) {
            out.push(format!("{path}:{number}: unsafe without `// SAFETY:` above it"));
        }
    }
    out
}

/// Places where code that runs on engine cores may panic, one message each.
fn may_panic(source: &Source) -> Vec<String> {
    let tests = test_items(&source.code);
    let lines: Vec<&str> = source.text.lines().collect();
    let mut out = Vec::new();
    let mut offset = 0;
    for (index, line) in source.code.split_inclusive('\n').enumerate() {
        let in_test = tests.iter().any(|(start, end)| (*start..*end).contains(&offset));
        let reasoned = index > 0 && lines[index - 1].trim_start().starts_with("// INVARIANT:");
        let call = [".unwrap()", ".expect(", ".unwrap_unchecked("].into_iter().find(|call| line.contains(call));
        if let Some(call) = call.filter(|_| !in_test && !reasoned) {
            out.push(format!("{}:{}: {call} (handle it, or say above why it cannot fail: // INVARIANT: ...)", source.path, index + 1));
        }
        offset += line.len();
    }
    out
}

/// Modules of its crate that a file names and may not, one message each.
fn named(source: &Source, allowed: &[&str]) -> Vec<String> {
    let tests = test_items(&source.code);
    let mut out = Vec::new();
    for (at, _) in source.code.match_indices("crate::") {
        let rest = &source.code[at + "crate::".len()..];
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let in_test = tests.iter().any(|(start, end)| (*start..*end).contains(&at));
        if !in_test && !allowed.contains(&name.as_str()) {
            let number = source.code[..at].lines().count();
            out.push(format!("{}:{number}: crate::{name}", source.path));
        }
    }
    out
}

#[test]
fn gdsl_knows_no_delivery() {
    let sources = sources();
    let gdsl: Vec<_> = sources.iter().filter(|source| source.path.starts_with("dataplane/src/gdsl/") && !source.is_test).collect();
    assert!(gdsl.len() > 5, "the check sees the library");
    let broken: Vec<String> = gdsl.into_iter().flat_map(|source| named(source, &GDSL_USES)).collect();
    assert!(broken.is_empty(), "the data streaming library uses what is made with it:\n{}", broken.join("\n"));
}

#[test]
fn rooms_use_only_what_they_may() {
    let manifest = root().join("Cargo.toml");
    let metadata = cargo_metadata::MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let rooms: BTreeMap<String, Vec<String>> = metadata
        .packages
        .iter()
        .map(|package| {
            let used = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
            (package.name.to_string(), used.map(|dependency| dependency.name.clone()).collect())
        })
        .collect();
    let mut broken = Vec::new();
    for (room, allowed) in ARROWS {
        let used = rooms.get(room).unwrap_or_else(|| panic!("there is no room {room}"));
        broken.extend(used.iter().filter(|name| !allowed.contains(&name.as_str())).map(|name| format!("{room} uses {name}")));
    }
    assert!(broken.is_empty(), "arrows that the design does not have:\n{}", broken.join("\n"));
    assert!(rooms["dataplane"].contains(&"hugepages".to_owned()), "the check sees arrows");
}

#[test]
fn files_are_tidy() {
    let broken: Vec<String> = sources().iter().flat_map(untidy).collect();
    let list = UNSAFE_FILES.join("\n  ");
    assert!(broken.is_empty(), "{} untidy places:\n{}\nunsafe may be in:\n  {list}", broken.len(), broken.join("\n"));
}

#[test]
fn the_list_of_unsafe_files_is_not_stale() {
    let sources = sources();
    let unneeded = |path: &&&str| !sources.iter().any(|source| source.path == ***path && has_word(&source.code, "unsafe"));
    let stale: Vec<_> = UNSAFE_FILES.iter().filter(unneeded).collect();
    assert!(stale.is_empty(), "no unsafe in {stale:?}: take them off UNSAFE_FILES");
}

#[test]
fn the_hot_rooms_do_not_panic() {
    let hot = |source: &&Source| !source.is_test && HOT_ROOMS.iter().any(|room| source.path.starts_with(room));
    let broken: Vec<String> = sources().iter().filter(hot).flat_map(may_panic).collect();
    assert!(broken.is_empty(), "{} places:\n{}", broken.len(), broken.join("\n"));
}

/// The rules themselves: each sees what it is for, and not more.
mod rules {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.into(), text: text.into(), code: blank(text), is_test: false }
    }

    #[test]
    fn literals_and_comments_are_no_code() {
        for (text, code) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("a\"b", 'x')"#, "f(      ,    )"),
            (r"'\'' '\n' '\u{1}' 'a: &'a T", "                  'a: &'a T"),
            ("r#\"a\"b\"# r\"\\\" c", "              c"),
            ("'ü' x", "     x"),
        ] {
            let blanked = blank(text);
            assert_eq!(blanked.trim_end(), code.trim_end(), "{text}");
            assert_eq!(blanked.len(), text.len(), "{text}");
        }
        assert_eq!(blank("r#type"), "r#type");
        assert_eq!(blank("for\"x\""), "for   ");
    }

    #[test]
    fn untidy_places_are_seen() {
        assert!(untidy(&source("a/src/x.rs", "//! Doc.\n\nfn f() {}\n")).is_empty());
        assert_eq!(untidy(&source("a/src/x.rs", "fn f() {}\n")).len(), 1);
        assert_eq!(untidy(&source("a/src/x.rs", &format!("//! Doc.\n{}", "\n".repeat(LINES_MAX)))).len(), 1);
        for leftover in LEFTOVERS {
            assert_eq!(untidy(&source("a/src/x.rs", &format!("//! Doc.\n{leftover}\n"))).len(), 1, "{leftover}");
        }
        let reasoned = "//! Doc.\n// SAFETY: fine.\nlet x = unsafe { y };\n";
        let bare = "//! Doc.\nlet x = unsafe { y }; // \"unsafe\"\n";
        assert!(untidy(&source(UNSAFE_FILES[0], reasoned)).is_empty());
        assert_eq!(untidy(&source(UNSAFE_FILES[0], bare)).len(), 1);
        assert_eq!(untidy(&source("a/src/x.rs", bare)).len(), 2);
        assert!(untidy(&source("a/src/x.rs", "//! Doc of unsafe.\n#![deny(unsafe_code)]\n")).is_empty());
    }

    #[test]
    fn what_is_named_is_seen_outside_of_tests_and_comments_only() {
        let text = "//! crate::media\nuse crate::disks::Disk;\nuse crate::delivery::X;\n#[cfg(test)]\nmod tests { use crate::media::Y; }\n\
                    fn f() -> crate::rtp::Z {}\n";
        let found = named(&source("dataplane/src/gdsl/x.rs", text), &GDSL_USES);
        assert_eq!(found, ["dataplane/src/gdsl/x.rs:3: crate::delivery", "dataplane/src/gdsl/x.rs:6: crate::rtp"]);
    }

    #[test]
    fn panics_are_seen_outside_of_tests_only() {
        let text = "fn f() { a.unwrap(); }\n#[cfg(test)]\nmod tests;\nfn g() { b.expect(\"x\") }\n\
                    // INVARIANT: because.\nc.unwrap();\n#[cfg(test)]\nmod more {\n    fn h() { d.unwrap() }\n}\ne.unwrap_or(\".unwrap()\");\n";
        let places: Vec<_> = may_panic(&source("stack/src/x.rs", text)).iter().map(|m| m.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(places, ["stack/src/x.rs:1:", "stack/src/x.rs:4:"]);
        let declared = |path| test_modules(&source(path, "#[cfg(test)]\npub(crate) mod fake;\nmod real;\n"));
        assert_eq!(declared("stack/src/x.rs"), ["stack/src/x/fake"]);
        assert_eq!(declared("stack/src/lib.rs"), ["stack/src/fake"]);
    }
}
