//! Unsigned integers of 256 bits, for numbers that exceed 128.

/// An integer of 256 bits, least significant part first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wide([u64; 4]);

impl Wide {
    /// `None` if the result exceeds 256 bits.
    pub(super) fn times_ten_plus(self, digit: u8) -> Option<Self> {
        let (mut parts, mut carry) = ([0; 4], u128::from(digit));
        for (part, old) in parts.iter_mut().zip(self.0) {
            let product = u128::from(old) * 10 + carry;
            (*part, carry) = (product as u64, product >> 64); // the low half
        }
        (carry == 0).then_some(Self(parts))
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == [0; 4]
    }

    pub(super) fn to_u128(self) -> Option<u128> {
        let [low, high, 0, 0] = self.0 else { return None };
        Some(u128::from(low) | u128::from(high) << 64)
    }

    /// Little-endian bytes of an unsigned integer. `None` for a negative one.
    pub(super) fn unsigned_bytes(self, negative: bool) -> Option<[u8; 32]> {
        (!negative || self.is_zero()).then(|| self.bytes())
    }

    /// Little-endian bytes in two's complement. `None` if the number exceeds 256 bits with a sign.
    pub(super) fn signed_bytes(self, negative: bool) -> Option<[u8; 32]> {
        let value = if negative { self.negated() } else { self };
        let is_negative = value.0[3] >> 63 == 1;
        (is_negative == negative || self.is_zero()).then(|| value.bytes())
    }

    fn negated(self) -> Self {
        let mut carry = true;
        Self(self.0.map(|part| {
            let (negated, carried) = (!part).overflowing_add(u64::from(carry));
            carry = carried;
            negated
        }))
    }

    fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, part) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&part.to_le_bytes());
        }
        bytes
    }
}
