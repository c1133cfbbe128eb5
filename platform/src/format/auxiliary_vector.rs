//! The auxiliary vector: pairs of numbers that the kernel hands to a new program.

/// Pairs of a key (`AT_PHDR`, `AT_ENTRY`, ...) and its value, without the closing `AT_NULL`. `bytes` are those of a
/// 64-bit little-endian process; what follows `AT_NULL` or makes no whole pair is dropped.
pub fn parse_auxiliary_vector(bytes: &[u8]) -> Vec<(u64, u64)> {
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
    bytes
        .chunks_exact(16)
        .map(|pair| {
            let (key, value) = pair.split_at(8);
            (word(key), word(value))
        })
        .take_while(|&(key, _)| key != 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_up_to_the_end_mark() {
        let bytes: Vec<u8> =
            [3u64, 0x40, 9, 0x1000, 0, 0, 7, 7].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(parse_auxiliary_vector(&bytes), [(3, 0x40), (9, 0x1000)]);
        assert_eq!(parse_auxiliary_vector(&bytes[..31]), [(3, 0x40)]);
    }
}
