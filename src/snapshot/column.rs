//! Columns of numbers as bytes: a shift, then one variable-length number a value.
//!
//! Most numbers are small once they are differences in units of a page, and most of those are equal: what is
//! left for the compressor is nearly nothing.

/// The values as bytes; nothing for no values.
pub(super) fn encode(values: &[i64]) -> Vec<u8> {
    if values.is_empty() {
        return Vec::new();
    }
    let all_bits = values.iter().fold(0, |bits, value| bits | value);
    let shift = if all_bits == 0 { 0 } else { all_bits.trailing_zeros() };
    let mut bytes = Vec::with_capacity(values.len() + values.len() / 4 + 16);
    bytes.push(u8::try_from(shift).unwrap_or_default());
    for value in values {
        let value = value >> shift;
        put_varint(&mut bytes, zigzag(value));
    }
    bytes
}

/// Calls `take` with each value; `None` where the bytes are not those of a column or a value is refused.
pub(super) fn decode(bytes: &[u8], mut take: impl FnMut(i64) -> Option<()>) -> Option<()> {
    let Some((&shift, mut rest)) = bytes.split_first() else { return Some(()) };
    if shift > 63 {
        return None;
    }
    while let Some((&first, after)) = rest.split_first() {
        let number = if first < 0x80 {
            rest = after;
            u64::from(first)
        } else {
            take_varint(&mut rest)?
        };
        take(unzigzag(number) << shift)?;
    }
    Some(())
}

/// Small magnitudes become small numbers, whatever their sign.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// Seven bits a byte, lowest first; the top bit says that more follow (LEB128).
fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(bytes: &[u8]) -> Option<Vec<i64>> {
        let mut values = Vec::new();
        decode(bytes, |value| {
            values.push(value);
            Some(())
        })?;
        Some(values)
    }

    #[test]
    fn small_values_take_one_byte_each() {
        assert_eq!(encode(&[0, 4096, -4096, 63 << 12]), [12, 0, 2, 1, 126]);
    }

    #[test]
    fn a_number_cut_off_or_of_more_than_64_bits_is_refused() {
        assert_eq!(decoded(&[0, 0x80]), None);
        assert_eq!(decoded(&[0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]), None);
        assert_eq!(decoded(&[64, 0]), None);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(values: Vec<i64>, shift in 0..64) {
            let values: Vec<i64> = values.into_iter().map(|value| value << shift).collect();
            prop_assert_eq!(decoded(&encode(&values)), Some(values));
        }
    }
}
