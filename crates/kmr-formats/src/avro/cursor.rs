//! Reads the primitive values of a datum.

use super::fault::{Fault, Result};
use super::schema::Size;

/// How deep values may nest. Each level needs some of the stack.
pub(super) const DEEPEST: u32 = 128;
/// Values without bytes (null, empty records) that a datum may have besides one for each byte. An
/// array can claim any number of them.
const EMPTY_VALUES: u64 = 65_536;

/// A position in a datum.
#[derive(Debug)]
pub(super) struct Cursor<'d> {
    data: &'d [u8],
    pub(super) at: usize,
    /// How many more values may be read.
    values_left: u64,
}

impl<'d> Cursor<'d> {
    pub(super) fn new(data: &'d [u8]) -> Self {
        Self { data, at: 0, values_left: data.len() as u64 + EMPTY_VALUES }
    }

    /// Counts a value, so that an end is certain.
    ///
    /// # Errors
    /// There are too many, or they are nested too deeply.
    pub(super) fn start_value(&mut self, depth: u32) -> Result<()> {
        if depth > DEEPEST {
            return Err(Fault::new(self.at, format!("values are nested deeper than {DEEPEST}")));
        }
        match self.values_left.checked_sub(1) {
            Some(left) => self.values_left = left,
            None => return Err(Fault::new(self.at, "more values than the record has bytes")),
        }
        Ok(())
    }

    /// The datum has no more bytes.
    pub(super) fn end(&self) -> Result<()> {
        match self.data.len() - self.at {
            0 => Ok(()),
            more => Err(Fault::new(self.at, format!("{more} more bytes after the value"))),
        }
    }

    pub(super) fn take(&mut self, size: usize) -> Result<&'d [u8]> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        match rest.get(..size) {
            Some(bytes) => {
                self.at += size;
                Ok(bytes)
            }
            None => {
                let problem = format!("the value has {size} bytes, but the record ends after {}", rest.len());
                Err(Fault::new(self.at, problem))
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let at = self.at;
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| Fault::new(at, "the record ends"))
    }

    /// A number of variable length, zigzag encoded.
    pub(super) fn long(&mut self) -> Result<i64> {
        let start = self.at;
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some(byte) = self.data.get(self.at) else {
                return Err(Fault::new(start, "the record ends within a number"));
            };
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit.
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err(Fault::new(start, "a number has more than 64 bits"))
    }

    pub(super) fn int(&mut self) -> Result<i32> {
        let start = self.at;
        i32::try_from(self.long()?).map_err(|_| Fault::new(start, "the number exceeds an int"))
    }

    pub(super) fn boolean(&mut self) -> Result<bool> {
        let start = self.at;
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(Fault::new(start, "a boolean is neither 0 nor 1")),
        }
    }

    pub(super) fn float(&mut self) -> Result<f32> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn double(&mut self) -> Result<f64> {
        self.array().map(f64::from_le_bytes)
    }

    /// A number of three parts of four bytes.
    pub(super) fn duration(&mut self) -> Result<[u32; 3]> {
        Ok([self.array()?, self.array()?, self.array()?].map(u32::from_le_bytes))
    }

    /// Bytes after their number.
    pub(super) fn bytes(&mut self) -> Result<&'d [u8]> {
        let start = self.at;
        let size = self.long()?;
        let size = usize::try_from(size).map_err(|_| Fault::new(start, "a length is negative"))?;
        self.take(size)
    }

    pub(super) fn sized(&mut self, size: Size) -> Result<&'d [u8]> {
        match size {
            Size::Declared => self.bytes(),
            Size::Fixed(size) => self.take(size),
        }
    }

    pub(super) fn string(&mut self) -> Result<&'d str> {
        let bytes = self.bytes()?;
        let start = self.at - bytes.len();
        std::str::from_utf8(bytes).map_err(|error| {
            Fault::new(start + error.valid_up_to(), "the text is not valid UTF-8 from here on")
        })
    }

    /// One of `count` choices: a branch of a union, a symbol of an enum.
    pub(super) fn choice(&mut self, count: usize) -> Result<usize> {
        let start = self.at;
        let number = self.long()?;
        let choice = usize::try_from(number).ok().filter(|choice| *choice < count);
        choice.ok_or_else(|| Fault::new(start, format!("choice {number} of {count}, counted from 0")))
    }

    /// The number of elements in the next block of an array or map. 0: it ends.
    pub(super) fn block(&mut self) -> Result<u64> {
        let start = self.at;
        let count = self.long()?;
        if count < 0 {
            // The size of the block in bytes, for readers that skip it.
            self.long()?;
        }
        if count == i64::MIN {
            return Err(Fault::new(start, "a block has too many elements"));
        }
        Ok(count.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_zigzag_of_variable_length() {
        for (bytes, number) in [
            (&[0][..], 0),
            (&[1], -1),
            (&[2], 1),
            (&[0x80, 1], 64),
            (&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], i64::MAX),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], i64::MIN),
        ] {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.long().unwrap(), number);
            cursor.end().unwrap();
        }
        for bytes in [&[][..], &[0x80], &[0xff; 10], &[0xff; 11]] {
            assert!(Cursor::new(bytes).long().is_err(), "{bytes:?}");
        }
        assert!(Cursor::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).int().is_err());
    }

    #[test]
    fn lengths_that_exceed_the_record_are_errors() {
        let error = Cursor::new(&[0x7f]).bytes().unwrap_err().to_string();
        assert!(error.contains("negative"), "{error}");
        let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let error = Cursor::new(&huge).bytes().unwrap_err().to_string();
        assert!(error.contains("the record ends after 0"), "{error}");
    }
}
