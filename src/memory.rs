//! Reading the memory of a process, wherever its bytes are.
//!
//! A [`Memory`] is a live process, a capture or a core file; what reads it cannot tell which. A [`Fault`] is
//! a fact about the target (these bytes are not there) and is never an error of the operating system: those
//! end a capture, faults only leave a hole in it.

use heaptap_platform::AddressRange;

/// Bytes of the target that cannot be had: unmapped, not captured, or cut off in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("no readable memory at {address:#x}")]
pub struct Fault {
    /// The first address that could not be read.
    pub address: u64,
}

/// Byte-wise access to the address space of a target.
pub trait Memory {
    /// Fills `bytes` from `address` on, or faults at the first byte that is not there; `bytes` may then
    /// have been written in part.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault>;

    /// The bytes of a range without a copy, where the source holds them contiguously.
    fn slice(&self, _address: u64, _len_bytes: usize) -> Option<&[u8]> {
        None
    }

    /// Whether the bytes at `address` are known to be those of the moment that is asked about.
    fn is_certain(&self, _address: u64) -> bool {
        true
    }

    /// Whether they were read in that moment, and not found unchanged before and after.
    fn is_of_the_moment(&self, _address: u64) -> bool {
        true
    }

    /// Whether that holds for all bytes.
    fn is_of_one_moment(&self) -> bool {
        true
    }

    /// Private memory without a file, as it was mapped in that moment, in address order; empty where that is not known.
    fn anonymous(&self) -> &[AddressRange] {
        &[]
    }

    /// The pages of `range` that can be read without making the target grow, in address order.
    ///
    /// A source that cannot tell returns the range itself.
    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        vec![range]
    }

    /// Whether [`Memory::present`] is known page by page. Where it is not, whoever reads sparse arrays has to tell by
    /// what they speak of which parts were ever written to.
    fn tells_pages(&self) -> bool {
        true
    }

    /// Whether anything in `range` may be mapped; known only where pages are not told.
    fn may_be_mapped(&self, _range: AddressRange) -> bool {
        true
    }
}

/// Typed little-endian reads; every target supported so far is little endian.
pub trait MemoryExt: Memory {
    /// Reads an unsigned 64-bit word.
    fn read_u64(&self, address: u64) -> Result<u64, Fault> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Reads an unsigned 32-bit word.
    fn read_u32(&self, address: u64) -> Result<u32, Fault> {
        let mut bytes = [0; 4];
        self.read(address, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// Reads `len_bytes` bytes.
    fn read_vec(&self, address: u64, len_bytes: usize) -> Result<Vec<u8>, Fault> {
        let mut bytes = vec![0; len_bytes];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads `len_bytes` bytes of memory that starts out as zeros: pages that are not present were never
    /// written to.
    fn read_vec_sparse(&self, address: u64, len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        let range = AddressRange { start: address, end: address.saturating_add(len_bytes as u64) };
        for present in self.present(range) {
            let start = usize::try_from(present.start - address).unwrap_or(usize::MAX);
            let end = usize::try_from(present.end - address).unwrap_or(usize::MAX);
            if let Some(part) = bytes.get_mut(start..end)
                && self.read(present.start, part).is_err()
            {
                part.fill(0);
            }
        }
        bytes
    }

    /// Reads `count` 64-bit words.
    fn read_words(&self, address: u64, count: usize) -> Result<Vec<u64>, Fault> {
        let bytes = self.read_vec(address, count.saturating_mul(8))?;
        Ok(words(&bytes).collect())
    }
}

impl<M: Memory + ?Sized> MemoryExt for M {}

/// The little-endian 64-bit words of `bytes`; a tail shorter than a word is left out.
pub fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    bytes.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_le_bytes))
}

/// The 64-bit word at `offset` in a structure's bytes, or `None` past its end.
pub fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let word = bytes.get(offset..offset.checked_add(8)?)?;
    word.try_into().ok().map(u64::from_le_bytes)
}

/// The 32-bit word at `offset` in a structure's bytes, or `None` past its end.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let word = bytes.get(offset..offset.checked_add(4)?)?;
    word.try_into().ok().map(u32::from_le_bytes)
}

/// The 16-bit word at `offset` in a structure's bytes, or `None` past its end.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let word = bytes.get(offset..offset.checked_add(2)?)?;
    word.try_into().ok().map(u16::from_le_bytes)
}
