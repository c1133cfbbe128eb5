//! Extents: one record for each slab, each large block and each free piece of address space.

use super::layout::Layout;
use crate::memory::{Fault, Memory, u64_at};

/// State of an extent whose memory is in use.
pub const ACTIVE: u64 = 0;
/// Free, its pages not given back.
pub const DIRTY: u64 = 1;
/// Free, its pages given back lazily.
pub const MUZZY: u64 = 2;
/// Free address space.
pub const RETAINED: u64 = 3;

/// Most words of a slab's bitmap: 8192 regions, with pages of 64 KiB.
const BITMAP_WORDS_MAX: usize = 128;

/// An extent, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where the record itself is.
    pub record: u64,
    /// Address that it speaks of; for a large block the block's own.
    pub address: u64,
    /// Bytes of address space.
    pub size_bytes: u64,
    /// Owning arena.
    pub arena: u32,
    /// Divided into regions.
    pub slab: bool,
    /// One of the states above, or in motion.
    pub state: u64,
    /// Size class.
    pub szind: u64,
    /// Free regions.
    pub nfree: u64,
    /// Serial number.
    pub serial: u64,
}

impl Extent {
    /// Reads the record at `record`.
    pub fn read(memory: &dyn Memory, layout: &Layout, page_bytes: u64, record: u64) -> Result<Self, Fault> {
        const HEAD_BYTES: usize = 64;
        if let Some(bytes) = memory.slice(record, HEAD_BYTES) {
            return Self::decode(bytes, layout, page_bytes, record).ok_or(Fault { address: record });
        }
        let mut bytes = [0; HEAD_BYTES];
        memory.read(record, &mut bytes)?;
        Self::decode(&bytes, layout, page_bytes, record).ok_or(Fault { address: record })
    }

    fn decode(bytes: &[u8], layout: &Layout, page_bytes: u64, record: u64) -> Option<Self> {
        let field = |offset: u64| u64_at(bytes, usize::try_from(offset).ok()?);
        let word = field(0)?;
        let bits = &layout.bits;
        let serial = match layout.extent_serial {
            Some(offset) => field(offset)?,
            None => bits.serial.of(word),
        };
        Some(Self {
            record,
            address: field(layout.extent_address)?,
            size_bytes: field(layout.extent_size)? & !(page_bytes - 1),
            arena: u32::try_from(bits.arena.of(word)).ok()?,
            slab: bits.slab.of(word) != 0,
            state: bits.state.of(word),
            szind: bits.szind.of(word),
            nfree: bits.nfree.of(word),
            serial,
        })
    }

    /// First page that it speaks of.
    pub const fn first_page(&self, page_bytes: u64) -> u64 {
        self.address & !(page_bytes - 1)
    }

    /// Whether `page` lies in it.
    pub const fn holds(&self, page: u64, page_bytes: u64) -> bool {
        let first = self.first_page(page_bytes);
        page >= first && page - first < self.size_bytes
    }
}

/// A slab's regions, one bit each.
#[derive(Debug, Clone)]
pub struct Bitmap {
    words: [u64; BITMAP_WORDS_MAX],
    len: usize,
}

impl Default for Bitmap {
    fn default() -> Self {
        Self { words: [0; BITMAP_WORDS_MAX], len: 0 }
    }
}

impl Bitmap {
    /// Reads which of `regions` regions are handed out. In jemalloc a set bit is a free region, and what lies
    /// above the last region is not initialised; here a set bit is a region handed out, and the rest is zero.
    pub fn read_used(
        &mut self,
        memory: &dyn Memory,
        layout: &Layout,
        extent: &Extent,
        regions: u32,
    ) -> Result<(), Fault> {
        let address = extent.record.wrapping_add(layout.extent_bitmap);
        self.len = usize::try_from(regions.div_ceil(64)).unwrap_or(0).min(BITMAP_WORDS_MAX);
        let mut bytes = [0_u8; BITMAP_WORDS_MAX * 8];
        let wanted = bytes.get_mut(..self.len * 8).ok_or(Fault { address })?;
        let source = match memory.slice(address, wanted.len()) {
            Some(source) => source,
            None => {
                memory.read(address, wanted)?;
                wanted
            }
        };
        let mut left = regions;
        for (word, raw) in self.words.iter_mut().zip(source.chunks_exact(8)) {
            let raw = raw.try_into().map_or(0, u64::from_le_bytes);
            let mask = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
            *word = !raw & mask;
            left = left.saturating_sub(64);
        }
        Ok(())
    }

    /// The words, lowest region first.
    pub fn words(&self) -> &[u64] {
        self.words.get(..self.len).unwrap_or_default()
    }

    /// The words, to be changed.
    pub fn words_mut(&mut self) -> &mut [u64] {
        self.words.get_mut(..self.len).unwrap_or_default()
    }

    /// All regions free, as many words as `other`.
    pub fn clear_like(&mut self, other: &Self) {
        self.len = other.len;
        self.words_mut().fill(0);
    }

    /// Set bits.
    pub fn count(&self) -> u32 {
        self.words().iter().map(|word| word.count_ones()).sum()
    }

    /// Moves the bit of region `index` out; whether it was set.
    pub fn take(&mut self, index: usize) -> bool {
        let Some(word) = self.words_mut().get_mut(index / 64) else { return false };
        let bit = 1_u64 << (index % 64);
        let was = *word & bit != 0;
        *word &= !bit;
        was
    }

    /// Sets the bit of region `index`.
    pub fn put(&mut self, index: usize) {
        if let Some(word) = self.words_mut().get_mut(index / 64) {
            *word |= 1_u64 << (index % 64);
        }
    }
}
