//! The payload as it is.

use base64::Engine as _;
use kmr_core::Record;

use crate::binary::Binary;
use crate::error::DecodeError;
use crate::text::push_string;

const RAW: &str = "raw";

/// The payload of a record as a text or as Base64, without any structure.
///
/// # Examples
/// ```
/// use kmr_core::{OwnedRecord, Strategy};
/// use kmr_formats::{Binary, Raw};
/// use kmr_sinks::clickhouse::JsonRow;
///
/// // A row with the column `line`.
/// let strategy = Strategy::new().map(Raw::new(Binary::Text).rows::<JsonRow>("line"));
///
/// let record = OwnedRecord::new("logs", 0, 7).with_payload("GET /\n");
/// let object = Raw::new(Binary::Text).rows::<Vec<u8>>("line")(&record.as_record())?;
/// assert_eq!(object, br#"{"line":"GET /\u000a"}"#);
/// # Ok::<(), kmr_formats::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Raw {
    binary: Binary,
}

impl Raw {
    /// Decodes payloads as `binary` states.
    pub fn new(binary: Binary) -> Self {
        Self { binary }
    }

    /// A `map` stage: an object of JSON with one field, the payload. An empty payload is an
    /// empty text.
    pub fn rows<R: From<Vec<u8>> + Send + 'static>(
        self,
        field: &str,
    ) -> impl Fn(&Record<'_>) -> Result<R, DecodeError> + Clone + Send + Sync + 'static + use<R> {
        let mut start = vec![b'{'];
        push_string(&mut start, field);
        start.push(b':');
        move |record: &Record<'_>| {
            let payload = record.payload().ok_or_else(|| DecodeError::tombstone(RAW))?;
            let mut out = Vec::with_capacity(start.len() + payload.len() + 3);
            out.extend_from_slice(&start);
            self.binary.push(&mut out, payload).map_err(not_utf8)?;
            out.push(b'}');
            Ok(out.into())
        }
    }

    /// A `map` stage: the payload as a text.
    pub fn text(self) -> impl Fn(&Record<'_>) -> Result<String, DecodeError> + Clone + Send + Sync + 'static {
        move |record: &Record<'_>| {
            let payload = record.payload().ok_or_else(|| DecodeError::tombstone(RAW))?;
            match self.binary {
                Binary::Base64 => Ok(base64::engine::general_purpose::STANDARD.encode(payload)),
                Binary::Text => {
                    let text = std::str::from_utf8(payload).map_err(|error| not_utf8(error.valid_up_to()))?;
                    Ok(text.to_owned())
                }
            }
        }
    }
}

fn not_utf8(at: usize) -> DecodeError {
    let problem = "the payload is not valid UTF-8 from here on: Base64 accepts any bytes";
    DecodeError::new(RAW, problem).at(at)
}

#[cfg(test)]
mod tests {
    use kmr_core::OwnedRecord;

    use super::*;

    #[test]
    fn any_payload_is_base64_and_a_text_is_checked() {
        let record = OwnedRecord::new("t", 0, 0).with_payload(b"a\xff".to_vec());
        let record = record.as_record();
        let row = Raw::new(Binary::Base64).rows::<Vec<u8>>("a\"b")(&record).unwrap();
        assert_eq!(row, b"{\"a\\\"b\":\"Yf8=\"}");
        assert_eq!(Raw::new(Binary::Base64).text()(&record).unwrap(), "Yf8=");
        let error = Raw::new(Binary::Text).rows::<Vec<u8>>("a")(&record).unwrap_err().to_string();
        assert!(error.starts_with("raw, byte 1: the payload is not valid UTF-8"), "{error}");
        assert!(Raw::new(Binary::Text).text()(&record).is_err());
    }

    #[test]
    fn an_empty_payload_is_an_empty_text_and_a_tombstone_an_error() {
        let empty = OwnedRecord::new("t", 0, 0).with_payload("");
        assert_eq!(Raw::new(Binary::Text).text()(&empty.as_record()).unwrap(), "");
        let tombstone = OwnedRecord::new("t", 0, 0);
        assert!(Raw::new(Binary::Text).text()(&tombstone.as_record()).is_err());
    }
}
