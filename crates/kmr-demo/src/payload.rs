//! The messages that the demo produces: small JSON objects, and malformed ones.

use std::io::Write;

use serde::Deserialize;

/// A message, borrowed from its payload.
#[derive(Debug, Deserialize)]
pub(crate) struct Measurement<'a> {
    /// Number of the message in its partition, from 0.
    pub(crate) id: u64,
    #[serde(borrow)]
    pub(crate) metric: &'a str,
    pub(crate) value: f64,
}

const METRICS: [&str; 4] = ["cpu.load", "disk.read", "net.sent", "mem.used"];

/// Writes message `id` of a partition to `out`, replacing its content. Pads the message to `size`
/// bytes if its fields are shorter.
pub(crate) fn write(out: &mut Vec<u8>, id: u64, malformed: bool, size: usize) {
    out.clear();
    let metric = METRICS[(id % 4) as usize];
    // Writing to a Vec does not fail.
    let _ = write!(out, r#"{{"id":{id},"metric":"{metric}","value":{}.{:02}"#, id % 1000, id % 97);
    let room = size.saturating_sub(out.len() + PAD_FRAME);
    if room > 0 {
        out.extend_from_slice(br#","pad":""#);
        // Varied, because compression would remove a pad of one repeated byte.
        out.extend(
            (0..room).map(|at| b'a' + ((id as usize).wrapping_mul(31).wrapping_add(at * at) % 26) as u8),
        );
        out.push(b'"');
    }
    // A malformed message lacks its closing brace.
    if !malformed {
        out.push(b'}');
    }
}

/// `,"pad":""` and the closing brace.
const PAD_FRAME: usize = 10;

/// Whether message `id` of `partition` is malformed. Deterministic, for a ratio of all messages.
pub(crate) fn is_malformed(partition: i32, id: u64, ratio: f64) -> bool {
    let seed = (u64::from(partition.unsigned_abs()) << 40) ^ id;
    ratio > 0.0 && fastrand::Rng::with_seed(seed).f64() < ratio
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_parse_unless_malformed() {
        let mut out = Vec::new();
        for (id, size) in [(0, 0), (7, 60), (123_456_789, 200)] {
            write(&mut out, id, false, size);
            assert!(out.len() >= size.min(200), "{} of {size}", out.len());
            let parsed: Measurement<'_> = serde_json::from_slice(&out).unwrap();
            assert_eq!((parsed.id, parsed.metric), (id, METRICS[(id % 4) as usize]));
            write(&mut out, id, true, size);
            assert!(serde_json::from_slice::<Measurement<'_>>(&out).is_err());
        }
    }

    #[test]
    fn malformed_messages_have_about_their_ratio() {
        let count =
            (0..8).map(|p| (0..50_000).filter(|id| is_malformed(p, *id, 0.01)).count()).sum::<usize>();
        assert!((3_000..5_000).contains(&count), "{count}");
        assert!(!is_malformed(0, 0, 0.0) && is_malformed(0, 0, 1.0));
    }
}
