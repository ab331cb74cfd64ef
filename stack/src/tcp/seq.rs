//! Sequence numbers: 32 bits that wrap around (RFC 9293 3.4).

/// A sequence number. Comparisons hold for numbers less than 2^31 apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seq(pub u32);

impl Seq {
    /// How far this is after `other`; negative when it is before.
    pub fn after(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Bytes from `other` to this, which is not before it: 0 if it is.
    pub fn since(self, other: Self) -> u32 {
        self.after(other).max(0) as u32
    }

    pub fn lt(self, other: Self) -> bool {
        self.after(other) < 0
    }

    pub fn le(self, other: Self) -> bool {
        self.after(other) <= 0
    }

    pub fn max(self, other: Self) -> Self {
        if self.lt(other) { other } else { self }
    }

    pub fn min(self, other: Self) -> Self {
        if self.lt(other) { self } else { other }
    }
}

impl std::ops::Add<u32> for Seq {
    type Output = Self;

    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl std::ops::Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}
