//! Repeatable jitter for retries: it depends on a seed alone.

/// A number in 0..=1 from a seed and a counter (the finaliser of SplitMix64).
pub(crate) fn jitter(seed: u64, number: u32) -> f64 {
    let mut x = seed ^ u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    f64::from(u32::try_from((x ^ (x >> 31)) >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_spreads_over_its_range() {
        let values: Vec<f64> = (1..200).map(|n| jitter(3, n)).collect();
        assert!(values.iter().any(|v| *v < 0.1) && values.iter().any(|v| *v > 0.9));
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}
