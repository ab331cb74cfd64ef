//! The Internet checksum (RFC 1071), fast enough for every byte that is sent.
//!
//! A ones-complement sum does not depend on the order of the bytes in a word (RFC 1071 2B), so words are added as they lie in memory,
//! 32 bits at a time into 64-bit lanes that have room for 2^32 of them, and only the folded result is written back as it is.

/// A sum of 16-bit words that is not folded yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum(u64);

impl Sum {
    /// Adds bytes; an odd last one counts as if a zero followed. Parts before the last have an even length.
    #[inline]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<64>();
        let (mut low, mut high) = ([0_u64; 8], [0_u64; 8]);
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for ((low, high), word) in low.iter_mut().zip(&mut high).zip(words) {
                let word = u64::from_ne_bytes(*word);
                *low += word & 0xffff_ffff;
                *high += word >> 32;
            }
        }
        let (words, rest) = rest.as_chunks::<8>();
        let (pairs, odd) = rest.as_chunks::<2>();
        let mut tail: u64 = words.iter().map(|word| fold32(u64::from_ne_bytes(*word))).sum();
        tail += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
        if let [last] = odd {
            tail += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        // Lanes are far from full even for the longest packets, and so is their sum; folding keeps the total so.
        Self(fold32(self.0) + fold32(low.iter().sum()) + fold32(high.iter().sum()) + tail)
    }

    /// Adds a 16-bit field.
    pub(crate) fn word(self, value: u16) -> Self {
        Self(self.0 + u64::from(value.to_be()))
    }

    /// The sum in 16 bits, as it lies in memory: all ones over bytes that hold a right checksum.
    pub(crate) fn folded(self) -> u16 {
        let mut sum = fold32(self.0);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        ((sum & 0xffff) + (sum >> 16)) as u16
    }

    /// The checksum field.
    pub(crate) fn checksum(self) -> [u8; 2] {
        (!self.folded()).to_ne_bytes()
    }

    /// The checksum field of UDP, where zero would mean that there is none (RFC 768).
    pub(crate) fn udp_checksum(self) -> [u8; 2] {
        match !self.folded() {
            0 => [0xff, 0xff],
            checksum => checksum.to_ne_bytes(),
        }
    }

    /// The bytes summed hold a right checksum.
    pub(crate) fn is_right(self) -> bool {
        self.folded() == 0xffff
    }
}

/// Adds the upper half to the lower one: the same value modulo 2^16 - 1, below 2^33.
fn fold32(sum: u64) -> u64 {
    (sum & 0xffff_ffff) + (sum >> 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 1, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn example_of_the_rfc() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), (!0xddf2_u16).to_be_bytes());
    }

    #[test]
    fn a_zero_udp_checksum_is_sent_as_ones() {
        let sum = Sum::default().word(0xffff);
        assert_eq!((sum.checksum(), sum.udp_checksum()), ([0, 0], [0xff, 0xff]));
        assert!(sum.is_right());
    }

    proptest! {
        #[test]
        fn agrees_with_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000), cut in any::<prop::sample::Index>(), word: u16) {
            prop_assert_eq!(Sum::default().bytes(&bytes).checksum(), plain(&bytes).to_be_bytes());
            let cut = cut.index(bytes.len() + 1) & !1;
            let parts = Sum::default().bytes(&bytes[..cut]).word(word).bytes(&bytes[cut..]);
            let mut joined = bytes[..cut].to_vec();
            joined.extend(word.to_be_bytes());
            joined.extend(&bytes[cut..]);
            prop_assert_eq!(parts.checksum(), plain(&joined).to_be_bytes());
        }

        #[test]
        fn full_words_do_not_overflow(len in 0_usize..70_000) {
            let bytes = vec![0xff; len];
            prop_assert_eq!(Sum::default().bytes(&bytes).checksum(), plain(&bytes).to_be_bytes());
        }
    }
}
