//! Runs the cases of `tests/tcp_traces/`.

use super::script::run_file;

#[test]
fn every_trace_is_as_it_should_be() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tcp_traces");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (mut cases, mut failures) = (0, Vec::new());
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        cases += text.lines().filter(|line| line.starts_with("== ")).count();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        failures.extend(run_file(&text).into_iter().map(|failure| format!("{name}: {failure}")));
    }
    assert!(failures.is_empty(), "{} of {cases} cases:\n{}", failures.len(), failures.join("\n"));
    assert!(cases > 30, "{cases} cases were found");
}

#[test]
fn a_wrong_trace_fails() {
    let start = "== case\n0.000 listen\n0.000 < S 0:0(0) win 1000 <mss 1000>\n";
    assert_eq!(run_file(&format!("{start}0.000 > S. 0:0(0) ack 1 <mss 1460>\n")), Vec::<String>::new());
    for wrong in [
        "",
        "0.000 > S 0:0(0) ack 1\n",
        "0.000 > S. 1:1(0) ack 1\n",
        "0.000 > S. 0:0(0) ack 2\n",
        "0.000 > S. 0:0(0) ack 1 <mss 1400>\n",
        "0.010 > S. 0:0(0) ack 1\n",
        "0.000 > S. 0:0(0) ack 1\n0.500 silence\n0.500 > . 1:1(0) ack 1\n",
    ] {
        assert_eq!(run_file(&format!("{start}{wrong}")).len(), 1, "{wrong}");
    }
}
