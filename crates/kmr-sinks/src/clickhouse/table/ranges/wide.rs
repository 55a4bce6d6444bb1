//! Integers of 256 bits, as far as decimals of up to 76 digits need them.

use super::DecimalInteger;

/// A signed integer of 256 bits. The derived order is that of two's complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Int256 {
    high: i128,
    low: u128,
}

impl Int256 {
    pub(crate) fn from_le_bytes(bytes: &[u8; 32]) -> Self {
        let mut halves = [[0; 16]; 2];
        halves[0].copy_from_slice(&bytes[..16]);
        halves[1].copy_from_slice(&bytes[16..]);
        Self { high: i128::from_le_bytes(halves[1]), low: u128::from_le_bytes(halves[0]) }
    }

    pub(crate) fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..].copy_from_slice(&self.high.to_le_bytes());
        bytes
    }

    fn negated(self) -> Self {
        let (low, borrowed) = (!self.low).overflowing_add(1);
        Self { high: (!self.high).wrapping_add(i128::from(borrowed)), low }
    }

    /// Ten times a number below 2^252, which is not negative.
    fn times_ten(self) -> Self {
        // In four parts of 64 bits, so that no product overflows.
        let part = |number: u128, at: u32| (number >> (64 * at)) & u128::from(u64::MAX);
        let (mut parts, mut carry) = ([0_u128; 4], 0);
        let high = self.high.unsigned_abs();
        for (at, part) in
            [part(self.low, 0), part(self.low, 1), part(high, 0), part(high, 1)].into_iter().enumerate()
        {
            let product = part * 10 + carry;
            (parts[at], carry) = (product & u128::from(u64::MAX), product >> 64);
        }
        Self { high: (parts[2] | parts[3] << 64) as i128, low: parts[0] | parts[1] << 64 }
    }
}

impl DecimalInteger for Int256 {
    fn limits(digits: u32) -> (Self, Self) {
        let power = (0..digits).fold(Self { high: 0, low: 1 }, |power, _| power.times_ten());
        let (low, borrowed) = power.low.overflowing_sub(1);
        let max = Self { high: power.high - i128::from(borrowed), low };
        (max.negated(), max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::table::ranges::{ValueRange, decimal};

    #[test]
    fn both_halves_are_compared() {
        let range: ValueRange<Int256> = decimal(39, 0);
        // 10^39 - 1, computed elsewhere.
        let max = Int256 { high: 2, low: 0xf050_fe93_8943_acc4_5f65_567f_ffff_ffff };
        let next = Int256 { low: max.low + 1, ..max };
        assert_eq!((range.fit(max), range.fit(next)), (Some(max), None));
        assert_eq!((range.fit(max.negated()), range.fit(next.negated())), (Some(max.negated()), None));
        assert_eq!(Int256::from_le_bytes(&max.negated().to_le_bytes()), max.negated());
        let (min, max) = Int256::limits(20);
        let expected = 10_u128.pow(20) - 1;
        assert_eq!((max.high, max.low, min.high, min.low), (0, expected, -1, expected.wrapping_neg()));
    }

    #[test]
    fn decimals_of_76_digits_fit() {
        let (min, max) = Int256::limits(76);
        assert!(max.high > 0 && min.high < 0 && max.high.leading_zeros() < 8);
    }
}
