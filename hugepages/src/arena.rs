//! One prefaulted mapping for buffers that devices and cores share.
//!
//! Reserved huge pages are asked for first (`MAP_HUGETLB`, see [`reserve`](crate::reserve)): of 1 GiB where little of them would be wasted,
//! then of 2 MiB. Then come transparent huge pages, then small pages. What was granted is told by [`Arena::backing`], so that a start-up message and the JSON can say it. Every page is
//! touched before `new` returns: fresh memory costs a fault each, which an engine core must never pay.

use std::fmt;
use std::io;
use std::ptr::NonNull;

/// Size of a huge page.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Size of a gigantic page.
pub const GIGANTIC_PAGE_BYTES: usize = 1 << 30;
/// Size of an ordinary page.
pub const SMALL_PAGE_BYTES: usize = 4096;
/// An arena goes on gigantic pages only if rounding up wastes less than this part of what was asked for.
const WASTE_DIVISOR: usize = 8;

/// What pages an arena lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved 1 GiB pages.
    Huge1G,
    /// Reserved 2 MiB pages.
    Huge2M,
    /// Ordinary pages that the kernel was asked to make huge when it can.
    Transparent,
    /// Ordinary 4 KiB pages.
    Small,
}

impl Backing {
    /// Bytes that certainly lie together in memory, at a multiple of themselves.
    pub fn page_bytes(self) -> usize {
        match self {
            Backing::Huge1G => GIGANTIC_PAGE_BYTES,
            Backing::Huge2M => HUGE_PAGE_BYTES,
            Backing::Transparent | Backing::Small => SMALL_PAGE_BYTES,
        }
    }

    /// The pages were reserved for this: the kernel neither swaps nor moves them in operation.
    pub fn is_reserved(self) -> bool {
        matches!(self, Backing::Huge1G | Backing::Huge2M)
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backing::Huge1G => "1 GiB huge pages",
            Backing::Huge2M => "2 MiB huge pages",
            Backing::Transparent => "transparent huge pages",
            Backing::Small => "4 KiB pages",
        })
    }
}

/// Why an arena could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ArenaError {
    /// No bytes asked for.
    #[error("an arena of 0 bytes was asked for")]
    Empty,
    /// The kernel refused the mapping.
    #[error("cannot map {bytes} bytes of buffer memory: {source}; ask for less (see --memory)")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A prefaulted, page-aligned, zeroed mapping; unmapped on drop.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    len: usize,
    backing: Backing,
}

// SAFETY: the mapping is plain memory owned by this value; `Arena` itself never hands out references into it, and whoever takes
// `base()` answers for aliasing.
unsafe impl Send for Arena {}
// SAFETY: as above; all methods of `&Arena` only read its own fields.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps at least `bytes` (rounded up to whole pages) on the largest pages that the machine grants.
    ///
    /// # Errors
    /// [`ArenaError::Empty`] for 0 bytes, [`ArenaError::Map`] when the kernel refuses.
    pub fn new(bytes: usize) -> Result<Self, ArenaError> {
        if bytes == 0 {
            return Err(ArenaError::Empty);
        }
        let reserved = libc::MAP_HUGETLB | libc::MAP_POPULATE;
        if let Some(len) = gigantic_len(bytes)
            && let Ok(base) = map(len, reserved | libc::MAP_HUGE_1GB)
        {
            return Ok(Self { base, len, backing: Backing::Huge1G });
        }
        let huge_len = bytes.checked_next_multiple_of(HUGE_PAGE_BYTES).unwrap_or(bytes);
        if let Ok(base) = map(huge_len, reserved | libc::MAP_HUGE_2MB) {
            return Ok(Self { base, len: huge_len, backing: Backing::Huge2M });
        }
        let (len, want_transparent) =
            if bytes >= HUGE_PAGE_BYTES { (huge_len, true) } else { (bytes.next_multiple_of(SMALL_PAGE_BYTES), false) };
        let base = map(len, 0).map_err(|source| ArenaError::Map { bytes: len, source })?;
        let mut arena = Self { base, len, backing: Backing::Small };
        if want_transparent && arena.advise_huge() {
            arena.backing = Backing::Transparent;
        }
        arena.prefault();
        Ok(arena)
    }

    /// First byte of the mapping.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length of the mapping in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: an arena has at least one page.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What pages it lies on.
    pub fn backing(&self) -> Backing {
        self.backing
    }

    fn advise_huge(&self) -> bool {
        // SAFETY: the range is exactly the mapping that this value owns.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE) == 0 }
    }

    fn prefault(&mut self) {
        for at in (0..self.len).step_by(SMALL_PAGE_BYTES) {
            // SAFETY: `at` is inside the mapping, which is writable and not shared yet.
            unsafe { self.base.as_ptr().add(at).write_volatile(0) };
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: base and len are those of the mapping made in `new`; nothing uses it after its owner is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Length of `bytes` on gigantic pages, if that wastes little.
fn gigantic_len(bytes: usize) -> Option<usize> {
    let len = bytes.checked_next_multiple_of(GIGANTIC_PAGE_BYTES)?;
    (len - bytes <= bytes / WASTE_DIVISOR).then_some(len)
}

fn map(len: usize, extra_flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | extra_flags;
    // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned the null page"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_whole_zeroed_pages_and_says_which() {
        let arena = Arena::new(3 << 20).unwrap();
        assert_eq!(arena.len() % SMALL_PAGE_BYTES, 0);
        assert!(arena.len() >= 3 << 20);
        assert!(!arena.backing().to_string().is_empty());
        // SAFETY: the last byte is inside the mapping.
        assert_eq!(unsafe { arena.base().as_ptr().add(arena.len() - 1).read() }, 0);
    }

    #[test]
    fn gigantic_pages_are_for_what_nearly_fills_them() {
        let gib = GIGANTIC_PAGE_BYTES;
        for (bytes, len) in [
            (1, None),
            (gib / 2, None),
            (gib - gib / 16, Some(gib)),
            (gib, Some(gib)),
            (gib + 1, None),
            (9 * gib - gib / 2, Some(9 * gib)),
            (usize::MAX, None),
        ] {
            assert_eq!(gigantic_len(bytes), len, "{bytes}");
        }
    }

    #[test]
    fn backings_know_their_pages() {
        for backing in [Backing::Huge1G, Backing::Huge2M, Backing::Transparent, Backing::Small] {
            assert_eq!(backing.is_reserved(), backing.page_bytes() > SMALL_PAGE_BYTES);
            let arena = Arena::new(backing.page_bytes().min(HUGE_PAGE_BYTES)).unwrap();
            assert_eq!(arena.base().as_ptr() as usize % arena.backing().page_bytes(), 0, "a page lies at a multiple of its size");
        }
    }

    #[test]
    fn refuses_nothing_and_far_too_much() {
        assert!(matches!(Arena::new(0), Err(ArenaError::Empty)));
        assert!(matches!(Arena::new(usize::MAX / 2), Err(ArenaError::Map { .. })));
    }
}
