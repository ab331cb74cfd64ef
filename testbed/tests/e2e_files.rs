//! Files that come to be in the media folder of a running server: imports, over HTTP and by the command.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::clip::{self, ClipSpec};
use testbed::player::rtsp_client::{Over, RtspClient};
use testbed::serve::{Server, binary, http_ask};

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder to import from, a media folder with one title, and what lies outside of both.
struct House {
    _base: tempfile::TempDir,
    inbox: PathBuf,
    media: PathBuf,
    clip: Vec<u8>,
}

impl House {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = base.path().canonicalize().unwrap().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        let (inbox, media) = (folder("inbox"), folder("media"));
        let made = clip::make_clips(&ClipSpec { seconds: 10, ..ClipSpec::default() }, 1, &inbox).unwrap().remove(0);
        std::fs::rename(made, inbox.join("film.mp4")).unwrap();
        std::fs::copy(inbox.join("film.mp4"), media.join("old.mp4")).unwrap();
        let clip = std::fs::read(inbox.join("film.mp4")).unwrap();
        // Longer than it takes to cancel, at the rate below.
        std::fs::write(inbox.join("long.mp4"), vec![7; 20_000_001]).unwrap();
        Self { _base: base, inbox, media, clip }
    }

    fn serve(&self) -> Server {
        Server::start(&self.media, &["--import-from", self.inbox.to_str().unwrap()]).unwrap()
    }

    /// All files of the media folder, hidden ones too.
    fn names(&self) -> Vec<String> {
        fn walk(folder: &Path, prefix: &str, out: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    out.push(format!("{name}/"));
                    walk(&entry.path(), &format!("{name}/"), out);
                } else {
                    out.push(name);
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.media, "", &mut names);
        names.sort();
        names
    }
}

fn ask(server: &Server, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, answer) = http_ask(server.http, method, path, &body).unwrap();
    (status, serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{method} {path}: {e}: {answer}")))
}

fn post(server: &Server, body: Value) -> (u16, Value) {
    ask(server, "POST", "/api/v1/imports", body)
}

/// The import when it is over.
fn over(server: &Server, import: &Value) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, now) = ask(server, "GET", &format!("/api/v1/imports/{}", import["id"]), Value::Null);
        assert_eq!(status, 200, "{now}");
        if !["running", "finishing"].contains(&now["state"].as_str().unwrap()) {
            return now;
        }
        assert!(Instant::now() < deadline, "{now}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_listed(server: &Server, path: &str) -> bool {
    // The monitor's list may be a second old.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let media = server.json("/api/v1/media").unwrap();
        let found = media["media"].as_array().unwrap().iter().any(|entry| entry["path"] == path && entry["error"].is_null());
        if found || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_file_is_imported_and_served() {
    let house = House::new();
    let server = house.serve();
    let (status, import) = post(&server, json!({"from": "film.mp4", "to": "new/deep/film.mp4"}));
    assert_eq!((status, &import["to"]), (201, &json!("new/deep/film.mp4")), "{import}");
    let end = over(&server, &import);
    assert_eq!((&end["state"], &end["bytes"], &end["error"]), (&json!("done"), &json!(house.clip.len()), &Value::Null), "{end}");
    assert_eq!(house.names(), ["new/", "new/deep/", "new/deep/film.mp4", "old.mp4"]);
    assert!(std::fs::read(house.media.join("new/deep/film.mp4")).unwrap() == house.clip);
    assert!(is_listed(&server, "new/deep/film.mp4"));
    let mut client = RtspClient::connect(server.rtsp).unwrap();
    let url = server.url("new/deep/film.mp4");
    client.open(&url, Over::Udp).unwrap();
    assert_eq!(client.play(&url, None).unwrap().status, 200);
    assert!(!client.receive_for(Duration::from_millis(500)).is_empty());
    let status = server.json("/api/v1/status").unwrap();
    assert_eq!(status["cores"][0]["disk_errors"], 0);
    // It is there: only who says so replaces it.
    assert_eq!(post(&server, json!({"from": "film.mp4", "to": "old.mp4"})).0, 409);
    std::fs::write(house.inbox.join("other.mp4"), b"not the clip").unwrap();
    let (status, import) = post(&server, json!({"from": house.inbox.join("other.mp4"), "to": "old.mp4", "replace": true}));
    assert_eq!(status, 201, "{import}");
    assert_eq!(over(&server, &import)["state"], "done");
    assert_eq!(std::fs::read(house.media.join("old.mp4")).unwrap(), b"not the clip");
    // What is over can be forgotten.
    assert_eq!(ask(&server, "DELETE", &format!("/api/v1/imports/{}", import["id"]), Value::Null).0, 200);
    assert_eq!(ask(&server, "GET", "/api/v1/imports", Value::Null).1["count"], 1);
}

#[test]
fn what_must_not_be_imported_is_refused() {
    let house = House::new();
    std::fs::write(house.media.parent_of_both().join("secret.mp4"), "x").unwrap();
    std::os::unix::fs::symlink(house.media.parent_of_both().join("secret.mp4"), house.inbox.join("link.mp4")).unwrap();
    let sparse = std::fs::File::create(house.inbox.join("sparse.mp4")).unwrap();
    sparse.set_len(4 << 40).unwrap();
    let before = house.names();
    let server = house.serve();
    for (from, to, status, within) in [
        ("../secret.mp4", "a.mp4", 403, "not below"),
        ("link.mp4", "a.mp4", 403, "not below"),
        ("/etc/passwd", "a.mp4", 403, "not below"),
        ("none.mp4", "a.mp4", 404, "No such file"),
        ("film.mp4", "../a.mp4", 400, "dots"),
        ("film.mp4", "/a.mp4", 400, "to: "),
        ("film.mp4", "a.txt", 400, "media file"),
        ("film.mp4", ".a.mp4", 400, "hidden"),
        ("film.mp4", "old.mp4/a.mp4", 400, "a file where a folder is needed"),
        ("sparse.mp4", "new/a.mp4", 507, "no room"),
    ] {
        let (got, answer) = post(&server, json!({"from": from, "to": to}));
        assert!(got == status && answer["error"].as_str().unwrap().contains(within), "{from} to {to}: {got} {answer}");
    }
    assert_eq!(post(&server, json!({"from": "film.mp4", "to": "a.mp4", "rate_bps": 1})).0, 400);
    assert_eq!(ask(&server, "DELETE", "/api/v1/imports/77", Value::Null).0, 404);
    assert_eq!((house.names(), ask(&server, "GET", "/api/v1/imports", Value::Null).1["count"].clone()), (before, json!(0)));
    drop(server);
    let closed = Server::start(&house.media, &[]).unwrap();
    let (status, answer) = post(&closed, json!({"from": "film.mp4", "to": "a.mp4"}));
    assert!(status == 403 && answer["error"].as_str().unwrap().contains("--import-from"), "{answer}");
}

trait Above {
    fn parent_of_both(&self) -> PathBuf;
}

impl Above for PathBuf {
    fn parent_of_both(&self) -> PathBuf {
        self.parent().unwrap().to_owned()
    }
}

#[test]
fn what_ends_early_leaves_nothing() {
    let house = House::new();
    let before = house.names();
    let server = house.serve();
    // 20 MB at 40 Mbps: four seconds.
    let slow = |to: &str| json!({"from": "long.mp4", "to": to, "rate_bps": 40_000_000});
    let (_, cancelled) = post(&server, slow("x/a.mp4"));
    assert_eq!(post(&server, slow("x/a.mp4")).0, 409, "one at a time to one place");
    assert!(house.names().contains(&"x/.a.mp4.part".to_owned()));
    let (status, end) = ask(&server, "DELETE", &format!("/api/v1/imports/{}", cancelled["id"]), Value::Null);
    assert_eq!((status, &end["state"]), (200, &json!("cancelled")));
    assert_eq!(house.names(), before);
    let long = std::fs::OpenOptions::new().write(true).open(house.inbox.join("long.mp4")).unwrap();
    for (length, why) in [(10_000_000, "shorter"), (10_000_000 + 4096, "written to")] {
        let (_, import) = post(&server, slow("b.mp4"));
        std::thread::sleep(Duration::from_millis(50));
        long.set_len(length).unwrap();
        let end = over(&server, &import);
        assert!(end["state"] == "failed" && end["error"].as_str().unwrap().contains(why), "{end}");
        assert_eq!(house.names(), before);
    }
    // A server that is stopped meanwhile leaves nothing either.
    assert_eq!(post(&server, slow("c.mp4")).0, 201);
    let (status, stderr) = server.stop().unwrap();
    assert!(status.success(), "{stderr}");
    assert_eq!(house.names(), before);
}

#[test]
fn the_command_imports_and_says_how_it_went() {
    let house = House::new();
    let server = house.serve();
    let url = format!("http://{}", server.http);
    let tactus = |arguments: &[&str]| {
        let output = Command::new(binary().unwrap()).arg("import").args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let film = house.inbox.join("film.mp4");
    let film = film.to_str().unwrap();
    let (code, stdout, stderr) = tactus(&[film, "--url", &url]);
    assert!(code == 0 && stdout.starts_with("film.mp4: ") && stdout.contains("imported in") && stderr.is_empty(), "{stdout}{stderr}");
    let (code, stdout, _) = tactus(&["film.mp4", "--to", "b/c.mp4", "--rate", "500", "--json", "--url", &url]);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["state"], &json["rate_bps"]), (0, &json!("done"), &json!(500_000_000)));
    let (code, stdout, stderr) = tactus(&[film, "--url", &url]);
    assert!(code == 1 && stdout.is_empty() && stderr.contains("there already"), "{stderr}");
    let (code, _, stderr) = tactus(&["/etc/passwd", "--to", "x.mp4", "--url", &url]);
    assert!(code == 1 && stderr.contains("import-from"), "{stderr}");
    let (code, _, stderr) = tactus(&[film, "--url", "http://127.0.0.1:1"]);
    assert!(code == 1 && stderr.contains("tactus serve"), "{stderr}");
    assert_eq!((tactus(&[]).0, tactus(&[film, "--rate", "0"]).0), (2, 2));
    assert_eq!(house.names(), ["b/", "b/c.mp4", "film.mp4", "old.mp4"]);
}
