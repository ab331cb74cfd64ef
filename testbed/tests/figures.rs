//! The report of a small run: whole, readable by strict parsers, in need of nothing else; and what is left when the run is killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TESTBED: &str = env!("CARGO_BIN_EXE_testbed");
/// Any wait of these tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// A table of peers with the testbed's own sender, and a server that does not start.
fn peers(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(testbed::peers::default_folder().join("send.toml"), folder.join("send.toml")).unwrap();
    let broken = "about = \"a <server> that ends\"\ninstall = []\nstart = [\"/bin/false\"]\nurl = \"rtsp://{address}/{title}\"\n";
    std::fs::write(folder.join("broken.toml"), broken).unwrap();
}

/// What runs without root, in seconds.
const SMALL: [&str; 6] = ["--only", "streams", "--only", "cpu-load", "--only", "ifq"];

fn figures(folder: &Path, arguments: &[&str]) -> Command {
    peers(&folder.join("peers"));
    let mut command = Command::new(TESTBED);
    command.args(["figures", "--quick", "--rate", "100k", "--peers", "send,broken", "--disturbance", "1000"]).args(arguments);
    command.arg("--peers-folder").arg(folder.join("peers")).arg("--out").arg(folder.join("out"));
    command
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The rows of a CSV file as (series, x).
fn rows(path: &Path) -> BTreeSet<(String, String)> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_path(path).unwrap();
    let names: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    assert!(
        ["series", "x", "mbps", "late_p99_ms", "noise_max_ms", "trouble"].iter().all(|name| names.iter().any(|n| n == name)),
        "{names:?}"
    );
    reader.records().map(Result::unwrap).map(|r| (r[0].to_owned(), r[1].to_owned())).collect()
}

/// Nothing in the page is fetched from elsewhere: no loaded element, no link but to files beside it.
fn check_page(folder: &Path) {
    let page = std::fs::read_to_string(folder.join("index.html")).unwrap();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..Default::default() };
    let document = roxmltree::Document::parse_with_options(&page, options).unwrap();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "object", "image", "use"].contains(&name), "<{name}>");
        for attribute in node.attributes() {
            assert!(!attribute.value().contains("://"), "{name} {attribute:?}");
            match attribute.name() {
                "src" => panic!("{name} loads {}", attribute.value()),
                "href" => assert!(folder.join(attribute.value()).is_file(), "{} is not there", attribute.value()),
                _ => {}
            }
        }
    }
    assert!(!page.contains("url(") && !page.contains("@import") && !page.contains("NaN"));
    let machine = testbed::machine::Machine::read();
    assert!(page.contains(&machine.kernel) && page.contains(&machine.commit) && page.contains("a spinning thread"));
    for id in
        ["streams-rate", "streams-cpu", "streams-late", "cpu-load-late", "ifq-rtt", "ifq-queue", "ifq-short", "ifq-fairness", "ifq-busy"]
    {
        let figure = document.descendants().find(|n| n.attribute("id") == Some(id)).unwrap_or_else(|| panic!("no figure {id}"));
        let count = |name: &str| figure.descendants().filter(|n| n.has_tag_name(name)).count();
        assert_eq!((count("svg"), count("figcaption")), (1, 1), "{id}");
        assert!(count("circle") >= 2, "{id} has its points");
    }
}

#[test]
fn a_small_run_leaves_a_whole_report_and_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let sizes = ["--seconds", "1", "--streams", "1,4", "--loads", "0,30", "--load-streams", "3"];
    let done = figures(folder.path(), &sizes).args(SMALL).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    check_page(&out);
    let expected = |xs: &[&str]| -> BTreeSet<(String, String)> {
        xs.iter().flat_map(|x| ["send", "broken"].map(|series| (series.to_owned(), (*x).to_owned()))).collect()
    };
    assert_eq!(rows(&out.join("streams.csv")), expected(&["1", "4"]));
    assert_eq!(rows(&out.join("cpu-load.csv")), expected(&["0", "30"]));
    assert!(std::fs::read_to_string(out.join("ifq.csv")).unwrap().lines().count() > 100, "a line for each tenth of a second");
    let data: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(out.join("streams.json")).unwrap()).unwrap();
    assert_eq!(data["failure"], serde_json::Value::Null);
    let row =
        |series: &str, x: f64| data["rows"].as_array().unwrap().iter().find(|r| r["series"] == series && r["x"] == x).unwrap().clone();
    assert_eq!((row("send", 4.0)["values"]["playing"].as_f64(), row("send", 4.0)["values"]["loss"].as_f64()), (Some(4.0), Some(0.0)));
    assert!(row("broken", 1.0)["trouble"].as_str().unwrap().contains("broken is not ready"));

    let again = ["--seconds", "1", "--streams", "1,4,6", "--loads", "0,30", "--load-streams", "3", "--resume"];
    let done = figures(folder.path(), &again).args(SMALL).output().unwrap();
    let said = text(&done);
    assert!(done.status.success(), "{said}");
    assert_eq!(said.matches("measured before").count(), 4, "{said}");
    assert_eq!(rows(&out.join("streams.csv")), expected(&["1", "4", "6"]));
    check_page(&out);

    std::fs::remove_file(out.join("index.html")).unwrap();
    let done = figures(folder.path(), &["--redraw"]).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    check_page(&out);
}

#[test]
fn an_experiment_that_fails_keeps_what_it_measured_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // More clients than one run can tell apart: the load generator refuses.
    let arguments = ["--only", "streams", "--seconds", "1", "--streams", "2,99999999"];
    let done = figures(folder.path(), &arguments).output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    assert!(text(&done).contains("not complete: streams"));
    let page = std::fs::read_to_string(folder.path().join("out/index.html")).unwrap();
    assert!(page.contains("Not complete: ") && page.contains("99999999 clients"), "{page}");
    assert_eq!(rows(&folder.path().join("out/streams.csv")).len(), 2);
    let unknown = figures(folder.path(), &["--only", "nothing"]).output().unwrap();
    assert!(unknown.status.code() == Some(2) && text(&unknown).contains("streams, cpu-load"), "{}", text(&unknown));
}

/// True when the test can run. In CI a skip is a failure.
fn can_be_root() -> bool {
    let able = testbed::net::is_root() && Path::new("/dev/fuse").exists() && testbed::player::have("qemu-storage-daemon");
    if !able {
        assert!(std::env::var("CI").is_err(), "CI must run everything");
        eprintln!("SKIPPED (needs root): experiments on slow disks also need /dev/fuse and qemu-storage-daemon");
    }
    able
}

/// How fast anything was decides nothing here, since other tests run meanwhile.
#[test]
fn the_priority_experiment_is_whole_and_leaves_no_disk() {
    if !can_be_root() {
        return;
    }
    testbed::serve::binary().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let arguments = ["--quick", "--only", "priority", "--guaranteed", "2", "--seconds", "2", "--peers", "tactus", "--out"];
    let mut child = Command::new(TESTBED).arg("figures").args(arguments).arg(&out).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let stderr = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(child.wait().unwrap().success(), "{stderr}");
    let data: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(out.join("priority.json")).unwrap()).unwrap();
    let rows = data["rows"].as_array().unwrap();
    let series: Vec<&str> = rows.iter().filter_map(|row| row["series"].as_str()).collect();
    assert_eq!(series, ["tactus", "tactus + a reader beside it", "tactus + an import"]);
    for row in rows {
        let value = |name: &str| row["values"][name].as_f64();
        assert_eq!((value("guaranteed_playing"), value("guaranteed_refused"), value("loss")), (Some(2.0), Some(0.0), Some(0.0)), "{row}");
        assert!(value("best_effort_mbps") > Some(0.0) && value("guaranteed_mbps") > Some(0.0) && row["trouble"].is_null(), "{row}");
    }
    for row in &rows[1..] {
        assert!(row["values"]["beside_mbps"].as_f64() > Some(0.0), "{row}");
    }
    assert!(std::fs::read_dir(out.join("elsewhere")).unwrap().next().is_none(), "nothing is left of an import that was cancelled");
    let profile: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(out.join("priority-disk.json")).unwrap()).unwrap();
    assert!(!profile["disks"][0]["profile"]["points"].as_array().unwrap().is_empty(), "tactus probe-disk measured it: {profile}");
    let disks = testbed::disk::left(&testbed::disk::default_folder());
    assert!(!disks.iter().any(|disk| disk.name == format!("priority-{pid}")), "{disks:?}");
    let page = std::fs::read_to_string(out.join("index.html")).unwrap();
    assert!(["priority-guaranteed", "priority-best-effort", "priority-playing"].iter().all(|id| page.contains(id)));
}

/// What namespaces can be made for: the kernel's TCP on a path, and our own stack on a cable.
#[test]
fn experiments_in_namespaces_are_whole() {
    if !testbed::net::is_root() {
        assert!(std::env::var("CI").is_err(), "CI must run everything");
        eprintln!("SKIPPED (needs root): experiments in network namespaces");
        return;
    }
    testbed::serve::binary().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let arguments = ["--quick", "--only", "ifq-linux", "--only", "lateness", "--seconds", "1", "--streams", "3", "--rate", "100k"];
    let done = Command::new(TESTBED).arg("figures").args(arguments).args(["--peers", "tactus", "--out"]).arg(&out).output().unwrap();
    assert!(done.status.success(), "{}", text(&done));
    let rows = |name: &str| -> Vec<serde_json::Value> {
        let data = std::fs::read_to_string(out.join(format!("{name}.json"))).unwrap();
        serde_json::from_str::<serde_json::Value>(&data).unwrap()["rows"].as_array().unwrap().clone()
    };
    let (linux, lateness) = (rows("ifq-linux"), rows("lateness"));
    let of = |series: &str| linux.iter().filter(|row| row["series"].as_str().unwrap().contains(series)).collect::<Vec<_>>();
    for series in ["CUBIC, 1000 frames in the wire", "CUBIC, pfifo"] {
        let rtts: Vec<f64> = of(series).iter().filter_map(|row| row["values"]["srtt_median_ms"].as_f64()).collect();
        assert!(rtts.len() >= 5 && rtts.iter().all(|rtt| *rtt > 2.0), "{series}: no shorter than the path: {rtts:?}");
        assert!(of(series).iter().any(|row| row["values"]["short_ms"].as_f64() > Some(2.0)), "{series}");
    }
    assert!(of("simulated").len() > 20);
    let places: BTreeSet<&str> = lateness.iter().map(|row| row["series"].as_str().unwrap()).collect();
    assert_eq!(places.len(), 4, "{places:?}");
    let picture = std::fs::read_to_string(out.join("lateness-p999.svg")).unwrap();
    assert!(picture.starts_with("<svg xmlns=") && places.iter().all(|place| picture.contains(place)), "{picture}");
    for row in &lateness {
        let value = |name: &str| row["values"][name].as_f64();
        assert!(value("playing") == Some(3.0) && value("busy_percent").is_some() && value("late_p999_ms").is_some(), "{row}");
    }
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| stat(*child).is_some_and(|(_, parent)| parent == pid)).collect()
}

/// A process's state and parent; `None` when there is no such process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn killed_without_traces(mut parent: Child, least: usize) {
    let own = wait_for("its processes", || Some(children(parent.id())).filter(|c| c.len() >= least));
    parent.kill().unwrap();
    parent.wait().unwrap();
    for pid in own {
        // A dead process that nobody waits for yet is dead.
        wait_for("the end of its processes", || stat(pid).is_none_or(|(state, _)| state == 'Z').then_some(()));
    }
}

#[test]
fn nothing_lives_on_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--only", "cpu-load", "--seconds", "30", "--loads", "20", "--load-streams", "2"];
    let figures = figures(folder.path(), &arguments).stderr(Stdio::null()).spawn().unwrap();
    // The server and the process that burns.
    killed_without_traces(figures, 2);

    let mut sender = Command::new(TESTBED).args(["send", "--seconds", "60"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(sender.stdout.take().unwrap()));
    let ready = lines.next().unwrap().unwrap();
    let address = ready.split("rtsp=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
    let url = format!("rtsp://{address}/x");
    let load = Command::new(TESTBED)
        .args(["load", "--clients", "3", "--noise", "0", "--duration", "60", "--url", &url])
        .stderr(Stdio::null())
        .spawn();
    killed_without_traces(load.unwrap(), 0);
    killed_without_traces(sender, 0);
    assert!(std::net::TcpStream::connect(&address).is_err(), "nobody listens any more");
}
