//! Walks over the bytes of a JSON text: space, strings, numbers and words, as strict as RFC 8259.

use super::fault::{Fault, Result};

/// A position in a JSON text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'j> {
    pub(super) bytes: &'j [u8],
    pub(super) at: usize,
}

/// The content of a string, without its quotes. Its escapes are well-formed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raw<'j> {
    pub(super) bytes: &'j [u8],
    pub(super) has_escapes: bool,
    /// Offset of the content.
    pub(super) at: usize,
}

impl<'j> Cursor<'j> {
    pub(super) fn new(bytes: &'j [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte. 0, which is valid nowhere, at the end.
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// Moves past `byte` and reports whether it was there.
    #[inline]
    pub(super) fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == byte;
        self.at += usize::from(is_there);
        is_there
    }

    /// Moves past `text`, if it is next.
    #[inline]
    pub(super) fn take_text(&mut self, text: &[u8]) -> bool {
        let is_there = self.bytes.get(self.at..self.at + text.len()) == Some(text);
        if is_there {
            self.at += text.len();
        }
        is_there
    }

    /// The text from `start` to here.
    #[inline]
    pub(super) fn since(&self, start: usize) -> &'j [u8] {
        self.bytes.get(start..self.at).unwrap_or_default()
    }

    /// The error of a byte that cannot be here.
    #[cold]
    pub(super) fn unexpected(&self, expected: &'static str) -> Fault {
        let end = if self.is_at_end() { "the JSON ends" } else { "invalid JSON:" };
        match self.is_at_end() {
            true => Fault::new(self.at, format!("{end} where {expected} belongs")),
            false => Fault::new(self.at, format!("{end} {expected} belongs here")),
        }
    }

    /// The string whose opening quote is next.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Raw<'j>> {
        if !self.take(b'"') {
            return Err(self.unexpected("a string"));
        }
        let start = self.at;
        let mut has_escapes = false;
        loop {
            self.skip_plain();
            match self.peek() {
                b'"' => {
                    let bytes = self.since(start);
                    self.at += 1;
                    return Ok(Raw { bytes, has_escapes, at: start });
                }
                b'\\' => {
                    has_escapes = true;
                    self.skip_escape()?;
                }
                _ if self.is_at_end() => return Err(self.unexpected("the end of a string")),
                _ => return Err(Fault::new(self.at, "a control character in a string must be escaped")),
            }
        }
    }

    /// Moves past bytes that mean nothing in a string, eight at a time.
    #[inline]
    fn skip_plain(&mut self) {
        while let Some(word) = self.bytes[self.at..].first_chunk::<8>() {
            match special_bytes(u64::from_le_bytes(*word)) {
                0 => self.at += 8,
                found => {
                    self.at += (found.trailing_zeros() / 8) as usize;
                    return;
                }
            }
        }
        while let Some(byte) = self.bytes.get(self.at)
            && !matches!(byte, b'"' | b'\\' | 0..0x20)
        {
            self.at += 1;
        }
    }

    fn skip_escape(&mut self) -> Result<()> {
        let length = match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if self.has_four_digits(self.at + 2) => 6,
            _ => return Err(Fault::new(self.at, "invalid JSON: an unknown escape in a string")),
        };
        self.at += length;
        Ok(())
    }

    fn has_four_digits(&self, at: usize) -> bool {
        self.bytes.get(at..at + 4).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    }

    /// Moves past one of `true`, `false` and `null`.
    pub(super) fn word(&mut self) -> Result<&'static str> {
        for word in ["true", "false", "null"] {
            if self.take_text(word.as_bytes()) {
                return Ok(word);
            }
        }
        Err(self.unexpected("a value"))
    }

    /// Moves past a number, by the grammar of JSON.
    pub(super) fn skip_number(&mut self) -> Result<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<()> {
        if !self.peek().is_ascii_digit() {
            return Err(self.unexpected("a digit"));
        }
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// Moves past a key, its colon, and the space before its value.
    pub(super) fn key_and_colon(&mut self) -> Result<Raw<'j>> {
        let key = self.string()?;
        self.colon()?;
        Ok(key)
    }

    #[inline]
    pub(super) fn colon(&mut self) -> Result<()> {
        self.skip_space();
        if !self.take(b':') {
            return Err(self.unexpected("a colon"));
        }
        self.skip_space();
        Ok(())
    }
}

/// The high bit of each byte that is a quote, a backslash or a control character. Only the lowest
/// one is exact: a borrow can reach the bytes above it.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let is_quote = quote.wrapping_sub(ONES) & !quote;
    let is_backslash = backslash.wrapping_sub(ONES) & !backslash;
    let is_control = word.wrapping_sub(ONES * 0x20) & !word;
    (is_quote | is_backslash | is_control) & HIGH
}
