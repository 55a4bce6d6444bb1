//! Generates the records of the topic: JSON of exactly 200 bytes, always the same for one number.

use std::io::Write as _;

/// Size of every record.
pub(crate) const PAYLOAD_BYTES: usize = 200;

const NAMES: [&str; 8] = [
    "d:transactions/duration@ms",
    "d:transactions/fcp@ms",
    "d:transactions/lcp@ms",
    "s:transactions/user@none",
    "c:sessions/session@none",
    "d:sessions/duration@s",
    "s:sessions/error@none",
    "d:custom/queue.depth@none",
];
const ENVIRONMENTS: [&str; 4] = ["production", "staging", "canary", "dev"];

/// Record `number`.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut out = Vec::with_capacity(PAYLOAD_BYTES);
    // Writing to a Vec does not fail.
    let _ = write!(
        out,
        r#"{{"org_id":{},"project_id":{},"name":"{}","timestamp":{},"value":{}.{},"tags":{{"environment":"{}","release":"{}.{}"}},"retention_days":{},"pad":""#,
        random.u32(1..5_000),
        random.u32(1..60_000),
        NAMES[random.usize(..NAMES.len())],
        1_700_000_000 + number / 1_000,
        random.u32(..10_000),
        random.u32(..100),
        ENVIRONMENTS[random.usize(..ENVIRONMENTS.len())],
        random.u32(1..30),
        random.u32(..20),
        if random.bool() { 30 } else { 90 },
    );
    let room = PAYLOAD_BYTES.saturating_sub(out.len() + 2);
    // Random characters, because a pad of one character would vanish in compression.
    out.extend((0..room).map(|_| random.u8(b'a'..=b'z')));
    out.extend_from_slice(b"\"}");
    out
}
