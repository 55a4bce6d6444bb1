//! The size of the tests: moderate by default, large under `KMR_SOAK=1`.

/// Whether this run is a soak (`cargo xtask soak`, or `KMR_SOAK=1`).
pub fn soaking() -> bool {
    std::env::var("KMR_SOAK").is_ok_and(|value| !matches!(value.as_str(), "" | "0"))
}

/// A count of records: `normal`, or `soak` in a soak run.
pub fn records(normal: u64, soak: u64) -> u64 {
    if soaking() { soak } else { normal }
}
