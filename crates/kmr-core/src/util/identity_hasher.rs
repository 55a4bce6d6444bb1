//! A hasher for numbers that are hashes already.

use std::hash::Hasher;

/// Returns the last number that was written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for hashes, which are numbers. FNV-1a keeps other values apart.
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}
