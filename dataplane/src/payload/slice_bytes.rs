//! [`SampleBytes`] over a slice of which only a front part is resident yet: for tests and load generators.

use super::SampleBytes;

/// A sample in memory.
#[derive(Clone, Debug)]
pub struct SliceBytes<'a> {
    left: &'a [u8],
    resident: usize,
}

impl<'a> SliceBytes<'a> {
    /// A sample that is wholly resident.
    pub fn new(sample: &'a [u8]) -> Self {
        Self { left: sample, resident: sample.len() }
    }

    /// A sample of which the first `resident` bytes are there.
    pub fn with_resident(sample: &'a [u8], resident: usize) -> Self {
        Self { left: sample, resident: resident.min(sample.len()) }
    }

    /// So many more bytes arrive.
    pub fn arrive(&mut self, bytes: usize) {
        self.resident = self.resident.saturating_add(bytes).min(self.left.len());
    }
}

impl SampleBytes for SliceBytes<'_> {
    #[inline]
    fn remaining(&self) -> usize {
        self.left.len()
    }

    #[inline]
    fn resident(&self) -> usize {
        self.resident
    }

    #[inline]
    fn peek(&self, skip: usize, dst: &mut [u8]) -> bool {
        let end = skip.saturating_add(dst.len());
        match self.left.get(skip..end) {
            Some(src) if end <= self.resident => {
                dst.copy_from_slice(src);
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn take(&mut self, dst: &mut [u8]) -> bool {
        self.peek(0, dst) && self.skip(dst.len())
    }

    #[inline]
    fn skip(&mut self, n: usize) -> bool {
        if n > self.resident {
            return false;
        }
        self.left = &self.left[n..];
        self.resident -= n;
        true
    }
}
