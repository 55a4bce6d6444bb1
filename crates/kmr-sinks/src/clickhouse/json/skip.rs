//! Moves past values that nothing needs, and checks them.
//!
//! It never recurses: a constant limits the depth of a text, not the stack.

use super::cursor::Cursor;
use super::fault::{Fault, Result};

/// The deepest nesting of a text, as the server's `input_format_json_max_depth`.
pub(super) const MAX_DEPTH: usize = 1000;

impl<'j> Cursor<'j> {
    /// Moves past any value, and returns its text.
    #[inline]
    pub(super) fn skip(&mut self) -> Result<&'j [u8]> {
        let start = self.at;
        match self.peek() {
            b'{' | b'[' => self.skip_nested()?,
            _ => self.skip_scalar()?,
        }
        Ok(self.since(start))
    }

    #[inline]
    fn skip_scalar(&mut self) -> Result<()> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.skip_number(),
            _ => self.word().map(drop),
        }
    }

    /// Moves past an array or an object.
    fn skip_nested(&mut self) -> Result<()> {
        let mut open = Open::default();
        loop {
            // A value is next.
            match self.peek() {
                bracket @ (b'{' | b'[') => {
                    if !open.push(bracket == b'{') {
                        return Err(Fault::new(
                            self.at,
                            format!("the JSON is nested deeper than {MAX_DEPTH}"),
                        ));
                    }
                    self.at += 1;
                    self.skip_space();
                    if !self.take(open.closing()) {
                        if open.is_object() {
                            self.key_and_colon()?;
                        }
                        continue;
                    }
                    open.pop();
                }
                _ => self.skip_scalar()?,
            }
            // After a value.
            loop {
                if open.depth == 0 {
                    return Ok(());
                }
                self.skip_space();
                if self.take(b',') {
                    self.skip_space();
                    if open.is_object() {
                        self.key_and_colon()?;
                    }
                    break;
                }
                if !self.take(open.closing()) {
                    let expected = if open.is_object() { "a comma or }" } else { "a comma or ]" };
                    return Err(self.unexpected(expected));
                }
                open.pop();
            }
        }
    }
}

/// The open brackets: one bit for each, 1 for an object.
struct Open {
    bits: [u64; MAX_DEPTH.div_ceil(64)],
    depth: usize,
}

impl Default for Open {
    fn default() -> Self {
        Self { bits: [0; MAX_DEPTH.div_ceil(64)], depth: 0 }
    }
}

impl Open {
    /// Adds a bracket, if there is room.
    fn push(&mut self, is_object: bool) -> bool {
        if self.depth == MAX_DEPTH {
            return false;
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(is_object) << bit;
        self.depth += 1;
        true
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn is_object(&self) -> bool {
        let last = self.depth.saturating_sub(1);
        self.bits[last / 64] >> (last % 64) & 1 == 1
    }

    fn closing(&self) -> u8 {
        if self.is_object() { b'}' } else { b']' }
    }
}
