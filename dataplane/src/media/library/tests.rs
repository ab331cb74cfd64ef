use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, SystemTime};

use super::*;
use crate::media::test_file::plain_file;

struct Folder {
    media: tempfile::TempDir,
    cache: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { media: tempfile::tempdir().expect("a folder"), cache: tempfile::tempdir().expect("a folder") }
    }

    fn root(&self) -> &Path {
        self.media.path()
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, bytes).expect("a file");
    }

    fn library(&self) -> Library {
        Library::open(self.root().to_owned(), Some(self.cache.path().to_owned())).expect("the folder is there")
    }

    fn cache_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.cache.path()).expect("the cache").map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        files
    }
}

fn same(a: &OpenTitle, b: &OpenTitle) {
    assert_eq!(a.description, b.description);
    assert_eq!(a.title.left_out, b.title.left_out);
    for (a, b) in a.title.tracks.iter().zip(&b.title.tracks) {
        assert_eq!((a.id, a.kind, &a.codec, a.timescale), (b.id, b.kind, &b.codec, b.timescale));
        assert!(a.samples.iter().eq(b.samples.iter()));
        for time in [i64::MIN, 0, 5000, i64::MAX] {
            assert_eq!(a.samples.sync_at_or_before(time), b.samples.sync_at_or_before(time));
        }
    }
}

#[test]
fn lists_media_and_nothing_else() {
    let folder = Folder::new();
    for path in ["b.mp4", "a/c.MOV", "a/b/d.m4a", "e.3gp", "notes.txt", ".hidden.mp4", "a/.git/x.mp4"] {
        folder.put(path, b"");
    }
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret.mp4"), b"").expect("a file");
    symlink(outside.path(), folder.root().join("out")).expect("a link");
    symlink(outside.path().join("secret.mp4"), folder.root().join("secret.mp4")).expect("a link");
    symlink(folder.root(), folder.root().join("a/loop")).expect("a link");
    symlink(folder.root().join("b.mp4"), folder.root().join("same.mp4")).expect("a link");
    let paths: Vec<_> = folder.library().list().into_iter().map(|file| file.path).collect();
    assert_eq!(paths, ["a/b/d.m4a", "a/c.MOV", "b.mp4", "e.3gp", "same.mp4"]);
}

#[test]
fn no_path_leaves_the_folder() {
    let folder = Folder::new();
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret.mp4"), plain_file(3)).expect("a file");
    symlink(outside.path().join("secret.mp4"), folder.root().join("link.mp4")).expect("a link");
    symlink(outside.path(), folder.root().join("out")).expect("a link");
    folder.put("a/good.mp4", &plain_file(3));
    folder.put("a/good.txt", &plain_file(3));
    fs::create_dir(folder.root().join("folder.mp4")).expect("a folder");
    let library = folder.library();
    let absolute = outside.path().join("secret.mp4").display().to_string();
    let up = format!("../{}/secret.mp4", outside.path().file_name().expect("a name").to_string_lossy());
    let tried =
        [&absolute, &up, "link.mp4", "out/secret.mp4", "a/../a/good.mp4", "a//good.mp4", "./a/good.mp4", "a/good.mp4/", "/a/good.mp4", ""];
    for path in
        tried.into_iter().chain(["a/good.mp4\0", "a", "folder.mp4", "a/good.txt", "none.mp4", "a/good.mp4/x.mp4", &"x/".repeat(5000)])
    {
        let error = library.get(path).expect_err(path);
        assert!(matches!(error, LibraryError::NotFound { .. }), "{path}: {error}");
    }
    assert_eq!(library.get("a/good.mp4").expect("it is there").path, "a/good.mp4");
}

#[test]
fn reads_once_for_all_who_ask() {
    let folder = Folder::new();
    folder.put("a.mp4", &plain_file(200));
    folder.put("bad.mp4", b"this is no film");
    let library = folder.library();
    let start = Barrier::new(64);
    std::thread::scope(|scope| {
        let ask = || {
            start.wait();
            (library.get("a.mp4").expect("it reads"), library.get("bad.mp4").expect_err("it does not"))
        };
        let threads: Vec<_> = (0..64).map(|_| scope.spawn(ask)).collect();
        let answers: Vec<_> = threads.into_iter().map(|thread| thread.join().expect("no panic")).collect();
        let (first, LibraryError::Media { error: first_error, .. }) = &answers[0] else { panic!("a media error") };
        for (title, error) in &answers {
            assert!(Arc::ptr_eq(title, first), "one reading, one title");
            assert!(matches!(error, LibraryError::Media { error, .. } if Arc::ptr_eq(error, first_error)));
        }
    });
}

#[test]
fn a_changed_file_is_read_again() {
    let folder = Folder::new();
    folder.put("a.mp4", &plain_file(5));
    let library = folder.library();
    let before = library.get("a.mp4").expect("it reads");
    assert!(Arc::ptr_eq(&before, &library.get("a.mp4").expect("it reads")));
    let file = fs::File::options().write(true).open(folder.root().join("a.mp4")).expect("the file");
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).expect("a new time");
    let touched = library.get("a.mp4").expect("it reads");
    assert!(!Arc::ptr_eq(&before, &touched));
    folder.put("a.mp4", &plain_file(7));
    assert_eq!(library.get("a.mp4").expect("it reads").title.tracks[0].samples.len(), 7);
    fs::remove_file(folder.root().join("a.mp4")).expect("it goes");
    assert!(matches!(library.get("a.mp4"), Err(LibraryError::NotFound { .. })));
    assert_eq!(before.title.tracks[0].samples.len(), 5, "those who play it still have it");
}

#[test]
fn a_second_start_reads_the_cache() {
    let folder = Folder::new();
    let bytes = plain_file(300);
    folder.put("a.mp4", &bytes);
    let first = folder.library().get("a.mp4").expect("it reads");
    assert_eq!(folder.cache_files().len(), 1);
    // The file is spoilt, but looks unchanged: what comes now can only be from the cache.
    let path = folder.root().join("a.mp4");
    let modified = path.metadata().expect("the file").modified().expect("a time");
    let file = fs::File::options().write(true).open(&path).expect("the file");
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xff; bytes.len()], 0).expect("it is spoilt");
    file.set_modified(modified).expect("its time is put back");
    let second = folder.library().get("a.mp4").expect("the cache has it");
    same(&first, &second);
    // Once the cache is gone the truth comes out.
    fs::remove_file(&folder.cache_files()[0]).expect("the cache file goes");
    assert!(folder.library().get("a.mp4").is_err());
}

#[test]
fn a_spoilt_cache_is_ignored_and_written_anew() {
    let folder = Folder::new();
    folder.put("a.mp4", &plain_file(40));
    let first = folder.library().get("a.mp4").expect("it reads");
    let cached = folder.cache_files()[0].clone();
    let good = fs::read(&cached).expect("the cache file");
    for i in (0..60).chain((60..good.len()).step_by(23)) {
        let mut bad = good.clone();
        bad[i] ^= 0x40;
        fs::write(&cached, bad).expect("it is spoilt");
        same(&first, &folder.library().get("a.mp4").expect("it reads"));
        assert_eq!(fs::read(&cached).expect("the cache file"), good, "byte {i}");
    }
    for len in [0, 1, 43, 44, 51, 52, good.len() - 1] {
        fs::write(&cached, &good[..len]).expect("it is cut");
        same(&first, &folder.library().get("a.mp4").expect("it reads"));
    }
    fs::write(&cached, [&good[..], b"more"].concat()).expect("it is longer");
    same(&first, &folder.library().get("a.mp4").expect("it reads"));
    assert_eq!(folder.cache_files(), [cached], "no temporary files stay");
}

#[test]
fn a_scan_tidies_the_cache() {
    let folder = Folder::new();
    for path in ["stays.mp4", "goes.mp4"] {
        folder.put(path, &plain_file(3));
    }
    let elsewhere = Folder::new();
    elsewhere.put("other.mp4", &plain_file(3));
    let other = Library::open(elsewhere.root().to_owned(), Some(folder.cache.path().to_owned())).expect("the folder is there");
    other.get("other.mp4").expect("it reads");
    fs::remove_file(elsewhere.root().join("other.mp4")).expect("it goes");
    let part = folder.cache.path().join(".1-1.part");
    fs::write(&part, b"").expect("a file");
    folder.library().scan(1, |_| {});
    assert_eq!(folder.cache_files().len(), 4, "three indices, and a write that may be under way");
    fs::remove_file(folder.root().join("goes.mp4")).expect("it goes");
    let file = fs::File::options().write(true).open(&part).expect("the file");
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).expect("an old time");
    folder.library().scan(1, |_| {});
    assert_eq!(folder.cache_files().len(), 2, "what stays, and what belongs to another folder");
    fs::remove_file(folder.root().join("stays.mp4")).expect("it goes");
    folder.library().scan(1, |_| {});
    assert_eq!(folder.cache_files().len(), 2, "an empty folder may be a disk that is not mounted");
}

#[test]
fn works_without_a_cache() {
    let folder = Folder::new();
    folder.put("a.mp4", &plain_file(3));
    folder.put("file", b"in the way");
    let library = Library::open(folder.root().to_owned(), Some(folder.root().join("file/cache"))).expect("no cache is no error");
    assert_eq!(library.cache(), None);
    library.get("a.mp4").expect("it reads");
    assert!(matches!(Library::open(folder.root().join("none"), None), Err(LibraryError::Root { .. })));
}

#[test]
fn memory_is_bounded_and_the_oldest_goes() {
    let folder = Folder::new();
    for i in 0..10 {
        folder.put(&format!("{i}.mp4"), &plain_file(1000));
    }
    let each = folder.library().get("0.mp4").expect("it reads").memory_bytes();
    let library = folder.library().with_memory_bytes(3 * each);
    let summary = library.scan(2, |_| {});
    assert_eq!(summary, ScanSummary { good: 10, bad: 0 });
    {
        let shelf = lock(&library.shelf);
        assert!(shelf.bytes() <= 3 * each);
    }
    assert!(library.catalogue().iter().all(|entry| matches!(entry.result, Some(Ok(_)))), "what they are is kept");
    let held = |path: &str| {
        let before = library.get(path).expect("it reads");
        let weak = Arc::downgrade(&before);
        drop(before);
        weak
    };
    let eight = held("8.mp4");
    let others = [held("1.mp4"), held("2.mp4")];
    assert!(eight.upgrade().is_some());
    held("8.mp4");
    held("3.mp4");
    assert!(eight.upgrade().is_some(), "used last but one");
    assert!(others[0].upgrade().is_none(), "the least recently used went");
    let in_use = library.get("8.mp4").expect("it reads");
    for i in 3..6 {
        held(&format!("{i}.mp4"));
    }
    assert!(Arc::ptr_eq(&in_use, &library.get("8.mp4").expect("it reads")), "who plays it and who asks have the same one");
    drop(in_use);
    assert!(eight.upgrade().is_none(), "it had to go once nobody used it");
}

#[test]
fn a_scan_tells_of_every_file() {
    let folder = Folder::new();
    folder.put("good.mp4", &plain_file(5));
    folder.put("sub/good.mp4", &plain_file(5));
    folder.put("bad.mp4", b"not a film");
    folder.put("empty.mp4", b"");
    let cut = plain_file(5);
    folder.put("cut.mp4", &cut[..cut.len() - 1]);
    let library = folder.library();
    assert!(library.catalogue().iter().all(|entry| entry.result.is_none()));
    let told = Mutex::new(Vec::new());
    let summary = library.scan(3, |scanned| lock(&told).push(scanned));
    assert_eq!(summary, ScanSummary { good: 2, bad: 3 });
    let mut told = told.into_inner().expect("no panic");
    assert_eq!(told.iter().map(|scanned| scanned.done).max(), Some(5));
    told.sort_by(|a, b| a.file.path.cmp(&b.file.path));
    let good: Vec<_> = told.iter().map(|scanned| (scanned.file.path.as_str(), scanned.result.is_ok())).collect();
    assert_eq!(good, [("bad.mp4", false), ("cut.mp4", false), ("empty.mp4", false), ("good.mp4", true), ("sub/good.mp4", true)]);
    let reason = told[1].result.as_ref().expect_err("it is cut").to_string();
    assert!(reason.contains(&format!("first missing byte is {}", cut.len() - 1)), "{reason}");
    for entry in library.catalogue() {
        let scanned = told.iter().find(|scanned| scanned.file == entry.file).expect("the same file");
        assert_eq!(entry.result.expect("it is known").is_ok(), scanned.result.is_ok());
    }
}

#[test]
fn blocks_are_reckoned_once() {
    let folder = Folder::new();
    folder.put("a.mp4", &plain_file(100));
    let title = folder.library().get("a.mp4").expect("it reads");
    for _ in 0..2 {
        assert_eq!(title.resident_blocks_max(4096, 1_000_000_000), title.title.resident_blocks_max(4096, 1_000_000_000));
    }
    assert_eq!(lock(&title.blocks).len(), 1);
}
