//! Entries of Linux `/proc/PID/pagemap`: one number of 64 bits for each page of the address space.
//!
//! Format: Linux, `Documentation/admin-guide/mm/pagemap.rst`. The page frame number in the low bits is hidden from
//! processes without `CAP_SYS_ADMIN` and is not read here.

use crate::PageState;

/// Bytes of one entry.
pub const ENTRY_LEN_BYTES: usize = 8;

const EXCLUSIVELY_MAPPED: u64 = 1 << 56;
const FILE_OR_SHARED_ANONYMOUS: u64 = 1 << 61;
const SWAPPED: u64 = 1 << 62;
const PRESENT: u64 = 1 << 63;

/// What one entry says of its page. Whether a page is the shared page of zeros is not in the entry.
pub const fn decode_entry(entry: u64) -> PageState {
    PageState {
        present: entry & PRESENT != 0,
        swapped: entry & SWAPPED != 0,
        file_or_shared: entry & FILE_OR_SHARED_ANONYMOUS != 0,
        exclusively_mapped: Some(entry & EXCLUSIVELY_MAPPED != 0),
        zero: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits() {
        assert!(!decode_entry(0).is_backed());
        let anonymous = decode_entry(0x8100_0000_0000_0000);
        assert!(anonymous.present && !anonymous.swapped && !anonymous.file_or_shared);
        assert_eq!(anonymous.exclusively_mapped, Some(true));
        let shared = decode_entry(0xa000_0000_0000_1234);
        assert!(shared.present && shared.file_or_shared);
        assert_eq!(shared.exclusively_mapped, Some(false));
        let swapped = decode_entry(0x4000_0000_0000_0000);
        assert!(swapped.swapped && !swapped.present && swapped.is_backed());
    }
}
