//! Which files the media folder has. No path and no link ever leads out of it.

use std::collections::HashSet;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Identity, LibraryError};

/// File name extensions of media files, in lower case.
pub const EXTENSIONS: [&str; 6] = ["mp4", "m4v", "mov", "m4a", "mp4a", "3gp"];

/// Folders inside folders.
pub(super) const DEPTH_MAX: usize = 16;
/// Media files listed.
const FILES_MAX: usize = 100_000;
/// Directory entries looked at.
const ENTRIES_MAX: usize = 1_000_000;
/// Bytes of a path asked for.
const PATH_BYTES_MAX: usize = 4096;

/// A file of the media folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Path below the media folder, with `/` separators.
    pub path: String,
    /// The file as it is now.
    pub identity: Identity,
}

/// Finds the file at `path` below `root`, which has no links in it.
pub fn locate(root: &Path, path: &str) -> Result<(PathBuf, Identity), LibraryError> {
    let refuse = |reason| LibraryError::NotFound { path: path.chars().take(200).collect(), reason };
    if let Err(reason) = check(path) {
        return Err(refuse(reason));
    }
    let file_path = match root.join(path).canonicalize() {
        Ok(file_path) => file_path,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Err(LibraryError::Open { path: path.to_owned(), error: Arc::new(error) });
        }
        Err(_) => return Err(refuse("there is no such file")),
    };
    if !file_path.starts_with(root) {
        return Err(refuse("it is a link that leaves the media folder"));
    }
    match file_path.metadata() {
        Ok(metadata) if metadata.is_file() => Ok((file_path, Identity::of(&metadata))),
        Ok(_) => Err(refuse("it is not a file")),
        Err(_) => Err(refuse("there is no such file")),
    }
}

/// Refuses what is not plainly a path of a media file below the root.
pub(super) fn check(path: &str) -> Result<(), &'static str> {
    if path.len() > PATH_BYTES_MAX {
        return Err("the path is too long");
    }
    if path.contains('\0') {
        return Err("the path has a NUL in it");
    }
    for component in path.split('/') {
        match component {
            "" => return Err("the path is empty in places"),
            "." | ".." => return Err("the path has dots for folders"),
            hidden if hidden.starts_with('.') => return Err("hidden files are not served"),
            _ => {}
        }
    }
    if is_media(Path::new(path)) { Ok(()) } else { Err("its name does not end as a media file's does") }
}

fn is_media(path: &Path) -> bool {
    path.extension().and_then(|ext| ext.to_str()).is_some_and(|ext| EXTENSIONS.iter().any(|known| ext.eq_ignore_ascii_case(known)))
}

/// The media files below `root`, sorted by path.
pub fn list(root: &Path) -> Vec<ListedFile> {
    let mut files = Vec::new();
    walk(root, |prefix, name, metadata| {
        if !name.starts_with('.') && metadata.is_file() && is_media(Path::new(name)) {
            files.push(ListedFile { path: format!("{prefix}{name}"), identity: Identity::of(metadata) });
        }
        files.len() < FILES_MAX
    });
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The paths of media files below `root` that hidden files beside them are about, whether they are there or not; `of` tells what a hidden file
/// is about by its name.
pub fn beside(root: &Path, of: impl Fn(&str) -> Option<&str>) -> Vec<String> {
    let mut paths = Vec::new();
    walk(root, |prefix, name, metadata| {
        let of = of(name).filter(|of| name.starts_with('.') && metadata.is_file() && check(of).is_ok());
        paths.extend(of.map(|of| format!("{prefix}{of}")));
        paths.len() < FILES_MAX
    });
    paths.sort();
    paths
}

/// Goes through all files below `root`: the path of their folder with a slash behind it, their name, what they are. `visit` says whether to go on.
fn walk(root: &Path, mut visit: impl FnMut(&str, &str, &Metadata) -> bool) {
    let mut entries = 0;
    let mut seen = HashSet::new();
    let mut folders = vec![(root.to_owned(), String::new(), 0)];
    while let Some((folder, prefix, depth)) = folders.pop() {
        // A folder is visited once, however many links lead to it.
        let Ok(metadata) = folder.metadata() else { continue };
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        let Ok(children) = folder.read_dir() else { continue };
        for child in children.flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                return;
            }
            let name = child.file_name();
            let Some(name) = name.to_str() else { continue };
            let Ok(target) = child.path().canonicalize() else { continue };
            if !target.starts_with(root) {
                continue;
            }
            let Ok(metadata) = target.metadata() else { continue };
            if metadata.is_dir() {
                if depth < DEPTH_MAX && !name.starts_with('.') {
                    folders.push((target, format!("{prefix}{name}/"), depth + 1));
                }
            } else if !visit(&prefix, name, &metadata) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_files_tell_of_those_beside_them_and_no_link_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("media");
        for made in ["media/a/b", "media/.hidden", "outside"] {
            std::fs::create_dir_all(folder.path().join(made)).unwrap();
        }
        for file in ["media/.x.mp4.notes", "media/a/b/.y.mp4.notes", "media/a/z.mp4", "media/.hidden/.h.mp4.notes", "outside/.o.mp4.notes"]
        {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        for file in ["media/.no-film.notes", "media/..mp4.notes", "media/plain.mp4.notes"] {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("outside"), root.join("link")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("outside/.o.mp4.notes"), root.join(".o.mp4.notes")).unwrap();
        let root = root.canonicalize().unwrap();
        let found = beside(&root, |name| name.strip_prefix('.')?.strip_suffix(".notes"));
        assert_eq!(found, ["a/b/y.mp4", "x.mp4"]);
        assert_eq!(list(&root).iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["a/z.mp4"]);
    }
}
