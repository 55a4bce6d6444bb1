//! The token that actions require.

use std::fmt;
use std::hint::black_box;

use crate::error::StatusError;

/// Fewest bytes of a token. A shorter one can be guessed.
const LEAST: usize = 16;

/// A secret that a request has to carry. `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Token(Box<[u8]>);

impl Token {
    /// # Errors
    /// The token is too short, or has white space or other bytes that a header cannot carry.
    pub(crate) fn new(text: &str) -> Result<Self, StatusError> {
        let usable = text.bytes().take_while(u8::is_ascii_graphic).count();
        if usable < LEAST || usable < text.len() {
            return Err(StatusError::WeakToken { found: usable, least: LEAST });
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Whether the value of a header `Authorization` carries the token. The time that it takes
    /// depends on the length of the value alone.
    pub(crate) fn accepts(&self, authorization: &[u8]) -> bool {
        let Some((scheme, value)) = authorization.split_at_checked("Bearer ".len()) else { return false };
        let same_length = value.len() == self.0.len();
        let differences = value.iter().enumerate().fold(0, |differences, (at, byte)| {
            let expected = self.0.get(at).copied().unwrap_or(!byte);
            black_box(differences | (byte ^ expected))
        });
        scheme.eq_ignore_ascii_case(b"Bearer ") && same_length && differences == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_accepted() {
        let token = Token::new("correct-horse-battery").unwrap();
        assert!(
            token.accepts(b"Bearer correct-horse-battery") && token.accepts(b"bearer correct-horse-battery")
        );
        for wrong in [
            &b""[..],
            b"Bearer ",
            b"Bearer correct-horse-batter",
            b"Bearer correct-horse-batterx",
            b"Bearer correct-horse-battery1",
            b"Basic  correct-horse-battery",
            b"correct-horse-battery",
        ] {
            assert!(!token.accepts(wrong), "{}", String::from_utf8_lossy(wrong));
        }
        assert_eq!(format!("{token:?}"), "Token(hidden)");
    }

    #[test]
    fn tokens_that_can_be_guessed_or_not_be_sent_are_errors() {
        for weak in ["", "short", "fifteen-bytes-1", "sixteen bytes have spaces", "with-a-line-end\n"] {
            assert!(Token::new(weak).is_err(), "{weak:?}");
        }
    }
}
