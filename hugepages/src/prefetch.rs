//! Asks the processor to load memory that will be needed soon.
//!
//! An engine core visits thousands of sessions in turn, each a few cache lines that were last touched milliseconds ago. Asking for the
//! next ones while one is being served hides most of the wait for memory.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Most lines that one call asks for: about as many as a core can have under way.
const LINES_MAX: usize = 12;

/// Asks for the first lines of `value`. Changes nothing that can be observed but time.
#[inline]
pub fn prefetch<T>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<u8>();
    let bytes = size_of::<T>().min(LINES_MAX * LINE_BYTES);
    for line in 0..bytes.div_ceil(LINE_BYTES) {
        ask(first.wrapping_add(line * LINE_BYTES));
    }
    // What does not begin at the start of a line may end in one more.
    if align_of::<T>() < LINE_BYTES {
        ask(first.wrapping_add(bytes.saturating_sub(1)));
    }
}

/// A place in memory that will be read soon, remembered for [`prefetch_at`]. It gives no access to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint(usize);

impl Hint {
    /// The start of `bytes`.
    #[inline]
    pub fn at(bytes: &[u8]) -> Self {
        Self(bytes.as_ptr() as usize)
    }
}

/// Asks for `lines` cache lines from the place on, which may have been unmapped since.
#[inline]
pub fn prefetch_at(hint: Hint, lines: usize) {
    for line in 0..lines.min(LINES_MAX) {
        ask(std::ptr::without_provenance::<u8>(hint.0.wrapping_add(line * LINE_BYTES)));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ask(address: *const u8) {
    // SAFETY: a prefetch never faults and never changes memory, whatever the address.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ask(_address: *const u8) {}
