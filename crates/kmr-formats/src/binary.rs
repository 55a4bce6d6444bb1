//! How bytes become text.

use base64::Engine as _;

use crate::text::push_string;

/// How bytes become text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Binary {
    /// Base64 with padding, for any bytes. The default.
    #[default]
    Base64,
    /// The bytes are a text in UTF-8. Others are an error of the record.
    Text,
}

impl Binary {
    /// Writes `bytes` as a string of JSON.
    ///
    /// # Errors
    /// The bytes are no UTF-8: the offset from which on they are not.
    pub(crate) fn push(self, out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), usize> {
        match self {
            Self::Base64 => {
                out.push(b'"');
                out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes());
                out.push(b'"');
            }
            Self::Text => {
                let text = std::str::from_utf8(bytes).map_err(|error| error.valid_up_to())?;
                push_string(out, text);
            }
        }
        Ok(())
    }
}
