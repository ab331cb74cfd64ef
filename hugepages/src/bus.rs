//! Where an arena lies in physical memory, for devices that are driven from user space.
//!
//! Found once at start from `/proc/self/pagemap` (Documentation/admin-guide/mm/pagemap.rst), which tells it to root only. A device uses
//! these addresses directly when no IOMMU stands between; behind an IOMMU they mean nothing, and VFIO is asked for a mapping instead.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::arena::{Arena, Backing, SMALL_PAGE_BYTES};

/// An entry of the file.
const ENTRY_BYTES: usize = 8;
/// The page is in memory.
const PRESENT: u64 = 1 << 63;
/// Page frame number.
const FRAME_MASK: u64 = (1 << 55) - 1;

/// Why there are no bus addresses.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The kernel may move such pages while a device writes to them.
    #[error("the arena lies on {0}, which the kernel may move; reserve huge pages: see `tactus check`")]
    MayMove(Backing),
    /// The kernel keeps the addresses to itself.
    #[error("the kernel tells physical addresses only to root (CAP_SYS_ADMIN)")]
    Hidden,
    /// A page is not in memory.
    #[error("the page {offset} bytes into the arena is not in memory")]
    Absent {
        /// Where it begins.
        offset: usize,
    },
    /// The file could not be read.
    #[error("cannot read /proc/self/pagemap: {0}")]
    Read(#[from] io::Error),
}

/// Bus addresses of an arena.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusMap {
    page_bytes: usize,
    /// Of the first byte of each page.
    pages: Box<[u64]>,
}

impl BusMap {
    /// Looks up every page of an arena.
    ///
    /// # Errors
    /// [`BusError`]; for instance for an arena that is not on reserved huge pages.
    pub fn new(arena: &Arena) -> Result<Self, BusError> {
        if !arena.backing().is_reserved() {
            return Err(BusError::MayMove(arena.backing()));
        }
        let pagemap = File::open("/proc/self/pagemap")?;
        look_up(&pagemap, arena.base().as_ptr() as usize, arena.len(), arena.backing().page_bytes())
    }

    /// Bus address of the byte `offset` into the arena; `None` beyond its end.
    pub fn address(&self, offset: usize) -> Option<u64> {
        let page = self.pages.get(offset / self.page_bytes)?;
        Some(page + (offset % self.page_bytes) as u64)
    }

    /// Bytes from `offset` on that lie together: up to the end of its page. A buffer that crosses it is two for a device.
    pub fn together(&self, offset: usize) -> usize {
        self.page_bytes - offset % self.page_bytes
    }
}

fn look_up(pagemap: &File, base: usize, len: usize, page_bytes: usize) -> Result<BusMap, BusError> {
    let pages = (0..len).step_by(page_bytes).map(|offset| {
        let mut entry = [0; ENTRY_BYTES];
        // One entry of eight bytes for each small page, also where a larger one covers many.
        pagemap.read_exact_at(&mut entry, ((base + offset) / SMALL_PAGE_BYTES * ENTRY_BYTES) as u64)?;
        match u64::from_ne_bytes(entry) {
            entry if entry & PRESENT == 0 => Err(BusError::Absent { offset }),
            entry if entry & FRAME_MASK == 0 => Err(BusError::Hidden),
            entry => Ok((entry & FRAME_MASK) * SMALL_PAGE_BYTES as u64),
        }
    });
    Ok(BusMap { page_bytes, pages: pages.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUGE: usize = 2 << 20;

    /// A file like pagemap, for two huge pages from address 4 MiB on.
    fn pagemap(test: &str, entries: [u64; 2]) -> File {
        let path = std::env::temp_dir().join(format!("tactus-pagemap-{}-{test}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        for (index, entry) in entries.iter().enumerate() {
            let address = 2 * HUGE + index * HUGE;
            file.write_all_at(&entry.to_ne_bytes(), (address / 4096 * 8) as u64).unwrap();
        }
        file
    }

    #[test]
    fn addresses_are_those_of_the_pages_and_end_with_the_arena() {
        let file = pagemap("found", [PRESENT | 0x1000, PRESENT | 1 << 61 | 0x8000]);
        let map = look_up(&file, 2 * HUGE, 2 * HUGE, HUGE).unwrap();
        assert_eq!(map.address(0), Some(0x1000 * 4096));
        assert_eq!(map.address(HUGE - 1), Some(0x1000 * 4096 + HUGE as u64 - 1));
        assert_eq!(map.address(HUGE + 5), Some(0x8000 * 4096 + 5));
        assert_eq!(map.address(2 * HUGE), None);
        assert_eq!((map.together(0), map.together(HUGE - 100), map.together(HUGE + 1)), (HUGE, 100, HUGE - 1));
    }

    #[test]
    fn what_the_kernel_does_not_tell_is_an_error() {
        let look = |test, entries| look_up(&pagemap(test, entries), 2 * HUGE, 2 * HUGE, HUGE).unwrap_err();
        assert!(matches!(look("absent", [PRESENT | 1, 7]), BusError::Absent { offset: HUGE }));
        assert!(matches!(look("hidden", [PRESENT, PRESENT]), BusError::Hidden));
        assert!(matches!(look_up(&pagemap("short", [PRESENT | 1; 2]), 2 * HUGE, 3 * HUGE, HUGE), Err(BusError::Read(_))));
    }

    #[test]
    fn this_machine_answers_for_its_own_pages() {
        let arena = Arena::new(SMALL_PAGE_BYTES).unwrap();
        if !arena.backing().is_reserved() {
            assert!(matches!(BusMap::new(&arena), Err(BusError::MayMove(_))));
        }
        // A small page stays where it is for long enough to be asked about.
        let file = File::open("/proc/self/pagemap").unwrap();
        match look_up(&file, arena.base().as_ptr() as usize, SMALL_PAGE_BYTES, SMALL_PAGE_BYTES) {
            Ok(map) => assert_ne!(map.address(0), Some(0)),
            Err(BusError::Hidden) => {
                println!("SKIPPED (needs root): physical addresses");
                assert!(std::env::var("CI").as_deref() != Ok("true"), "must not be skipped here");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
