//! Decimals: a whole number of any size, in two's complement, and a scale.

/// Bytes of the largest number, about 150 digits. ClickHouse's largest has 32 bytes.
const LARGEST: usize = 64;
/// More digits after the point than any number that fits.
const LARGEST_SCALE: u32 = 1_000;

/// The number as text, exactly: `-12.30`.
///
/// # Errors
/// It is larger than kmr reads.
pub(crate) fn text(bytes: &[u8], scale: u32) -> Result<String, String> {
    let is_negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let sign = if is_negative { 0xff } else { 0 };
    let significant = bytes.iter().position(|byte| *byte != sign).unwrap_or(bytes.len());
    let bytes = bytes.get(significant..).unwrap_or_default();
    if bytes.len() > LARGEST || scale > LARGEST_SCALE {
        return Err(format!("a decimal of {} bytes with the scale {scale} is too large", bytes.len()));
    }
    let mut digits = digits(magnitude(bytes, is_negative));
    let scale = scale as usize;
    while digits.len() <= scale {
        digits.push('0');
    }
    let mut text = String::with_capacity(digits.len() + 2);
    if is_negative {
        text.push('-');
    }
    for (at, digit) in digits.chars().rev().enumerate() {
        if at + scale == digits.len() {
            text.push('.');
        }
        text.push(digit);
    }
    Ok(text)
}

/// The number without its sign, in parts of 32 bits, the lowest first.
fn magnitude(bytes: &[u8], is_negative: bool) -> Vec<u32> {
    let mut parts: Vec<u32> = bytes
        .rchunks(4)
        .map(|chunk| {
            let fill = if is_negative { u32::MAX } else { 0 };
            chunk.iter().fold(fill, |part, byte| part << 8 | u32::from(*byte))
        })
        .collect();
    if is_negative {
        // Two's complement: all bits inverted, plus one.
        let mut carry = true;
        for part in &mut parts {
            (*part, carry) = (!*part).overflowing_add(u32::from(carry));
        }
        if carry {
            parts.push(1);
        }
    }
    parts
}

/// The decimal digits, the lowest first; at least one.
fn digits(mut parts: Vec<u32>) -> String {
    const BILLION: u64 = 1_000_000_000;
    let mut digits = String::new();
    while parts.iter().any(|part| *part != 0) {
        let mut rest = 0;
        for part in parts.iter_mut().rev() {
            let value = rest << 32 | u64::from(*part);
            rest = value % BILLION;
            // The quotient of a rest below the divisor fits.
            *part = u32::try_from(value / BILLION).unwrap_or(u32::MAX);
        }
        digits.extend(format!("{rest:09}").chars().rev());
    }
    let significant = digits.trim_end_matches('0').len();
    digits.truncate(significant.max(1));
    if digits.is_empty() {
        digits.push('0');
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        for number in [
            0,
            1,
            -1,
            9,
            10,
            -10,
            127,
            128,
            -128,
            -129,
            255,
            256,
            -256,
            1 << 32,
            -(1 << 32),
            1_000_000_000,
            10_i128.pow(38) - 1,
            i128::MAX,
            i128::MIN,
        ] {
            let bytes = number.to_be_bytes();
            assert_eq!(text(&bytes, 0).unwrap(), number.to_string());
            // Without the bytes that only repeat the sign.
            let shortest = (1..=16).map(|size| &bytes[16 - size..]).find(|bytes| {
                let sign = if bytes[0] & 0x80 != 0 { 0xff_u8 } else { 0 };
                let mut padded = [sign; 16];
                padded[16 - bytes.len()..].copy_from_slice(bytes);
                i128::from_be_bytes(padded) == number
            });
            assert_eq!(text(shortest.unwrap(), 0).unwrap(), number.to_string());
        }
    }

    #[test]
    fn the_scale_sets_the_point() {
        for (number, scale, expected) in
            [(1230_i16, 2, "12.30"), (-5, 2, "-0.05"), (0, 3, "0.000"), (100, 2, "1.00"), (-100, 0, "-100")]
        {
            assert_eq!(text(&number.to_be_bytes(), scale).unwrap(), expected);
        }
        assert_eq!(text(&[], 0).unwrap(), "0");
    }

    #[test]
    fn a_number_of_a_megabyte_is_rejected_unless_it_is_small() {
        assert!(text(&vec![0x12; 1 << 20], 2).unwrap_err().contains("1048576 bytes"));
        assert_eq!(text(&[&vec![0; 1 << 20][..], &[5]].concat(), 0).unwrap(), "5");
        assert_eq!(text(&[&vec![0xff; 1 << 20][..], &[0xfb]].concat(), 0).unwrap(), "-5");
        assert!(text(&[5], 1_001).is_err());
    }
}
