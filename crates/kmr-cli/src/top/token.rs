//! The token that actions require: from a file or from the environment, never shown.

use std::fmt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use hyper::header::HeaderValue;

/// The environment variable with the token itself. Arguments can be read by every user.
const TOKEN: &str = "KMR_STATUS_TOKEN";

/// The value of a header `Authorization`. `Debug` does not show it.
#[derive(Clone)]
pub(super) struct Token(HeaderValue);

impl Token {
    /// The token of the file, or of the environment. `None`: there is none.
    ///
    /// # Errors
    /// The file cannot be read, or the token cannot be sent in a header.
    pub(super) fn find(file: Option<&Path>) -> anyhow::Result<Option<Self>> {
        if let Some(path) = file {
            let shown = path.display();
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("the token in {shown} cannot be read"))?;
            return Self::new(text.trim(), &format!("the file {shown}")).map(Some);
        }
        match std::env::var(TOKEN) {
            Ok(text) => Self::new(text.trim(), TOKEN).map(Some),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => bail!("the token in {TOKEN} is not ASCII"),
        }
    }

    pub(super) fn new(text: &str, place: &str) -> anyhow::Result<Self> {
        ensure!(!text.is_empty(), "the token in {place} is empty");
        let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(is_plain, "the token in {place} has white space, or characters that are not ASCII");
        let mut value = HeaderValue::from_str(&format!("Bearer {text}"))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(super) fn authorization(&self) -> HeaderValue {
        self.0.clone()
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
    fn a_token_is_sent_as_it_is_and_never_shown() {
        let token = Token::new("correct-horse-battery", "here").unwrap();
        assert_eq!(token.authorization().to_str().unwrap(), "Bearer correct-horse-battery");
        assert!(!format!("{token:?} {:?}", token.authorization()).contains("horse"));
        for wrong in ["", "correct horse", "gr\u{fc}n", "a\nb"] {
            let error = Token::new(wrong, "here").unwrap_err().to_string();
            assert!(error.starts_with("the token in here"), "{error}");
        }
        let error = Token::find(Some(Path::new("/no/such/file"))).unwrap_err().to_string();
        assert!(error.contains("/no/such/file"), "{error}");
    }
}
