//! Where a file that is not there yet goes in the media folder.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::{DEPTH_MAX, check};
use super::{Library, LibraryError};

/// The place of a new file. The folders that were made for it go again with it, as far as they are empty, unless [`Self::keep`] was called.
#[derive(Debug)]
pub struct NewPlace {
    path: PathBuf,
    made: Vec<PathBuf>,
}

impl NewPlace {
    /// Where the file goes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file is there: its folders stay.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for NewPlace {
    fn drop(&mut self) {
        // Those that have come to hold something else cannot be removed, and stay.
        while let Some(folder) = self.made.pop() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

impl Library {
    /// The place of the file at `path`, relative to the root with `/` separators; makes the folders that it needs. Whether there is a
    /// file already is not looked at. Nothing outside of the root is ever made.
    ///
    /// # Errors
    /// [`LibraryError::NotFound`] when the path is none that a media file can be found at, [`LibraryError::Open`] when the system refuses.
    pub fn place(&self, path: &str) -> Result<NewPlace, LibraryError> {
        let refuse = |reason| LibraryError::NotFound { path: path.chars().take(200).collect(), reason };
        check(path).map_err(refuse)?;
        let mut components: Vec<&str> = path.split('/').collect();
        let name = components.pop().unwrap_or_default();
        if components.len() > DEPTH_MAX {
            return Err(refuse("it lies in too many folders"));
        }
        let mut place = NewPlace { path: self.root().to_owned(), made: Vec::new() };
        for component in components {
            let folder = place.path.join(component);
            place.path = match folder.canonicalize() {
                Ok(real) if !real.starts_with(self.root()) => return Err(refuse("it is a link that leaves the media folder")),
                Ok(real) if !real.is_dir() => return Err(refuse("there is a file where a folder is needed")),
                Ok(real) => real,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let open_error = |error| LibraryError::Open { path: path.to_owned(), error: Arc::new(error) };
                    std::fs::create_dir(&folder).map_err(open_error)?;
                    place.made.push(folder.clone());
                    folder
                }
                Err(error) => return Err(LibraryError::Open { path: path.to_owned(), error: Arc::new(error) }),
            };
        }
        place.path.push(name);
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_and_go_again_and_none_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("media"), folder.path().join("outside"));
        std::fs::create_dir_all(&root).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        std::os::unix::fs::symlink(root.join("nowhere"), root.join("dangling")).unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        let library = Library::open(root.clone(), None).unwrap();
        let root = library.root().to_owned();

        let place = library.place("a/b/c.mp4").unwrap();
        assert_eq!(place.path(), root.join("a/b/c.mp4"));
        assert!(root.join("a/b").is_dir());
        drop(place);
        assert!(!root.join("a").exists());
        library.place("a/b/c.mp4").unwrap().keep();
        let place = library.place("a/d/c.mp4").unwrap();
        drop(place);
        assert!(root.join("a/b").is_dir() && !root.join("a/d").exists());

        for path in
            ["", "../x.mp4", "a/../../x.mp4", "/x.mp4", "a//x.mp4", "a/.x.mp4", "x.txt", "x", "link/x.mp4", "file/x.mp4", "a/\0.mp4"]
        {
            assert!(matches!(library.place(path), Err(LibraryError::NotFound { .. })), "{path:?}");
        }
        assert!(library.place(&format!("{}x.mp4", "d/".repeat(DEPTH_MAX + 1))).is_err());
        assert!(matches!(library.place("dangling/x.mp4"), Err(LibraryError::Open { .. })));
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}
