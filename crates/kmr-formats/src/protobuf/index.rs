//! The numbers between the prefix and the message: which message of its file it is.

use super::PROTOBUF;
use crate::error::DecodeError;

/// Messages nest a few levels.
const DEEPEST: usize = 32;

/// Splits the numbers from the message, which starts at the returned offset. `base`: where `body`
/// starts in its record. The numbers are those of a message, of a message in it, and so on. None:
/// the first message of the file.
///
/// # Errors
/// The numbers are no numbers, or too many.
pub(super) fn split(body: &[u8], base: usize) -> Result<(Vec<usize>, &[u8], usize), DecodeError> {
    let fault = |at: usize, problem: &str| DecodeError::new(PROTOBUF, problem).at(base + at);
    let mut at = 0;
    let mut next = || -> Result<usize, DecodeError> {
        let start = at;
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let Some(byte) = body.get(at) else {
                return Err(fault(start, "the record ends within the numbers of its message"));
            };
            at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                // Zigzag: odd numbers are negative.
                let number = (number & 1 == 0).then_some(number >> 1);
                return number
                    .and_then(|number| usize::try_from(number).ok())
                    .ok_or_else(|| fault(start, "a number of the message is negative"));
            }
        }
        Err(fault(start, "a number of the message is too large"))
    };
    let count = next()?;
    if count > DEEPEST {
        return Err(fault(0, "the message is nested too deeply in its file"));
    }
    let numbers = (0..count).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
    let numbers = if numbers.is_empty() { vec![0] } else { numbers };
    Ok((numbers, body.get(at..).unwrap_or_default(), base + at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_message_are_read() {
        for (bytes, numbers, at) in
            [(&[0, 9][..], vec![0], 6), (&[2, 2, 9], vec![1], 7), (&[4, 2, 0x80, 2, 9], vec![1, 128], 9)]
        {
            let (found, body, offset) = split(bytes, 5).unwrap();
            assert_eq!((found, body, offset), (numbers, &[9][..], at));
        }
    }

    #[test]
    fn wrong_numbers_name_their_place() {
        for (bytes, expected) in [
            (&[][..], "Protobuf, byte 5: the record ends"),
            (&[2], "Protobuf, byte 6: the record ends"),
            (&[1], "Protobuf, byte 5: a number of the message is negative"),
            (&[0xff; 12], "Protobuf, byte 5: a number of the message is too large"),
            (&[0x80, 0x80, 1], "Protobuf, byte 5: the message is nested too deeply"),
        ] {
            let error = split(bytes, 5).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
