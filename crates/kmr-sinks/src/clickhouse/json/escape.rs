//! Replaces the escapes of a JSON string.

use super::cursor::Raw;
use super::fault::{Fault, Result};

/// Appends the content of a string with its escapes replaced.
pub(super) fn unescape(raw: &Raw<'_>, out: &mut Vec<u8>) -> Result<()> {
    let mut rest = raw.bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let offset = raw.at + raw.bytes.len() - rest.len() + at;
        let (character, length) = escaped(&rest[at..])
            .ok_or_else(|| Fault::new(offset, "half of a surrogate pair is escaped in a string"))?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &rest[at + length..];
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// The character of an escape, and the number of its bytes. `None` for half of a pair.
fn escaped(text: &[u8]) -> Option<(char, usize)> {
    let simple = match text.get(1)? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = hex(text.get(2..6)?)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            let second = hex(text.get(6..12)?.strip_prefix(b"\\u")?)?;
            let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return Some((char::from_u32(0x1_0000 + (first - 0xd800) * 0x400 + low)?, 12));
        }
        other => char::from(*other),
    };
    Some((simple, 2))
}

fn hex(digits: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
