//! A keyed hash of addresses, so that nobody outside can choose addresses that collide.

use std::hash::{BuildHasher, Hasher};

/// Mixes a seed well (splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// The secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    keys: [u64; 2],
}

impl Keyed {
    pub(crate) fn new(seed: u64) -> Self {
        Self { keys: [mix(seed), mix(seed ^ 0x5851_F42D_4C95_7F2D)] }
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.keys[0], key: self.keys[1] }
    }
}

/// One hash in the making.
pub(crate) struct KeyedHasher {
    state: u64,
    key: u64,
}

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(16) {
            let mut word = [0; 16];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u128(u128::from_ne_bytes(word));
        }
    }

    fn write_u128(&mut self, value: u128) {
        let (low, high) = (value as u64 ^ self.state, (value >> 64) as u64 ^ self.key);
        let product = u128::from(low) * u128::from(high);
        self.state = mix(product as u64 ^ (product >> 64) as u64 ^ low.rotate_left(32));
    }

    fn finish(&self) -> u64 {
        self.state
    }
}
