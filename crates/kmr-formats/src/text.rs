//! What all formats of text check, and how JSON is written.

use crate::error::DecodeError;

const BOM: &[u8] = b"\xef\xbb\xbf";
/// The bytes of a schema's id after the byte 0, in the wire format of a schema registry.
const SCHEMA_ID: usize = 4;

/// The payload as text.
///
/// # Errors
/// It is empty, is no UTF-8, or starts with a BOM or with the prefix of a schema registry.
pub(crate) fn text<'p>(format: &'static str, payload: &'p [u8]) -> Result<&'p str, DecodeError> {
    if payload.is_empty() {
        return Err(DecodeError::new(format, "the record is empty").at(0));
    }
    if payload.starts_with(BOM) {
        let problem = "the text starts with a BOM (U+FEFF): the producer must not write it";
        return Err(DecodeError::new(format, problem).at(0));
    }
    if let Some((0, rest)) = payload.split_first()
        && let Some(id) = rest.first_chunk::<SCHEMA_ID>()
    {
        let id = u32::from_be_bytes(*id);
        let problem = format!(
            "the text starts with the byte 0 and four more, as in a schema registry's wire format (schema id {id}): \
             use the format of the schema"
        );
        return Err(DecodeError::new(format, problem).at(0));
    }
    std::str::from_utf8(payload).map_err(|error| {
        DecodeError::new(format, "the text is not valid UTF-8 from here on").at(error.valid_up_to())
    })
}

/// Writes a text in quotes, with JSON's escapes.
#[cfg(any(feature = "avro", feature = "csv", feature = "protobuf", feature = "raw"))]
pub(crate) fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) {
        let (plain, from) = rest.split_at(at);
        out.extend_from_slice(plain);
        match from.split_first() {
            Some((byte @ (b'"' | b'\\'), after)) => {
                out.extend_from_slice(&[b'\\', *byte]);
                rest = after;
            }
            Some((byte, after)) => {
                let digit = |number: u8| HEX.get(usize::from(number)).copied().unwrap_or(b'0');
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
                rest = after;
            }
            None => break,
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Writes the shortest text that is read as the same number of its type. `double` is the number.
/// JSON has no text for infinity and NaN; JSON rows read these in quotes.
#[cfg(any(feature = "avro", feature = "protobuf"))]
pub(crate) fn push_float(out: &mut Vec<u8>, number: impl serde::Serialize, double: f64) {
    if double.is_finite() {
        // Writing to a Vec does not fail.
        let _ = serde_json::to_writer(out, &number);
    } else {
        let text: &[u8] = match (double.is_nan(), double > 0.0) {
            (true, _) => b"\"nan\"",
            (false, true) => b"\"inf\"",
            (false, false) => b"\"-inf\"",
        };
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(feature = "avro", feature = "csv", feature = "protobuf", feature = "raw"))]
    fn strings_are_escaped_as_serde_json_does() {
        for text in ["", "plain", "a\"b\\c", "\u{0}\u{1f}\u{20}", "ü\u{2028}😀", "\n\r\t"] {
            let mut out = Vec::new();
            push_string(&mut out, text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
