//! The wire format of the Schema Registry: a byte 0, the schema's id, then the message.

use crate::error::DecodeError;

/// The bytes before the message: the byte 0, and an id of four bytes.
pub(crate) const PREFIX: usize = 5;

/// The largest id. A registry counts with signed numbers of 32 bits, and returns a 404 without a
/// code for a larger id: the answer of a proxy, which is retried.
const LARGEST_ID: u32 = i32::MAX.unsigned_abs();

/// A record in its two parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Framed<'p> {
    pub(crate) id: u32,
    /// It starts at [`PREFIX`].
    pub(crate) body: &'p [u8],
}

/// Splits a payload.
///
/// # Errors
/// It has no such prefix, or the id is none of a registry.
pub(crate) fn split<'p>(format: &'static str, payload: &'p [u8]) -> Result<Framed<'p>, DecodeError> {
    let problem = match payload {
        [] => "the record is empty",
        [0, rest @ ..] => match rest.split_first_chunk::<4>() {
            Some((id, body)) => match u32::from_be_bytes(*id) {
                id @ ..=LARGEST_ID => return Ok(Framed { id, body }),
                _ => {
                    "the four bytes after the byte 0 are no id of a registry, which is at most 2147483647: the record \
                     has another format"
                }
            },
            None => "the record ends within the five bytes of the schema registry's wire format",
        },
        [b'{' | b'[' | b'"', ..] | [0xef, 0xbb, 0xbf, ..] => {
            "the record starts like JSON, and not with the byte 0 of the schema registry's wire format: its producer \
             writes no schema id"
        }
        _ => {
            "the record does not start with the byte 0 of the schema registry's wire format: its producer writes no \
             schema id, or writes it into a header"
        }
    };
    Err(DecodeError::new(format, problem).at(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_split_off() {
        let framed = split("Avro", &[0, 0, 0, 1, 2, 7]).unwrap();
        assert_eq!(framed, Framed { id: 258, body: &[7] });
        assert_eq!(split("Avro", &[0, 0x7f, 0xff, 0xff, 0xff]).unwrap().id, LARGEST_ID);
    }

    #[test]
    fn a_payload_without_a_prefix_names_its_fault() {
        for (payload, expected) in [
            (&b""[..], "Avro, byte 0: the record is empty"),
            (b"\0\0\0\0", "ends within the five bytes"),
            (b"{\"id\": 1}", "starts like JSON"),
            (b"\xef\xbb\xbf{}", "starts like JSON"),
            (b"\x01\0\0\0\0\0\0", "into a header"),
            (b"\0\x80\0\0\0", "no id of a registry"),
            (b"\0\xff\xff\xff\xff\x02", "no id of a registry"),
        ] {
            let error = split("Avro", payload).unwrap_err().to_string();
            assert!(error.starts_with("Avro, byte 0: ") && error.contains(expected), "{error}");
        }
    }
}
