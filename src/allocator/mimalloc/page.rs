//! Pages: blocks of one size side by side, with lists of those that are free.

use super::layout::{Layout, Places, Start, Width};
use crate::memory::{u16_at, u32_at, u64_at};
use heaptap_platform::AddressRange;

/// Smallest block.
const BLOCK_BYTES_MIN: u64 = 8;
/// Blocks of this size and more are the only ones of their page; records with 32 bits for it say this size for all.
const HUGE_BLOCK_BYTES: u64 = 2 << 30;
/// The same in 1.x.
const OLD_HUGE_BLOCK_BYTES: u64 = 64 << 20;

/// The record of a page in use, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Where the record lies.
    pub record: u64,
    /// The address space that belongs to it.
    pub area: AddressRange,
    /// Its first block.
    pub start: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that lists have been made of.
    pub capacity: u64,
    /// Blocks that it has room for.
    pub reserved: u64,
    /// Blocks handed out; those that other threads freed are among them.
    pub used: u64,
    /// Heads of the lists of free blocks: ready to be handed out, and freed by the owner.
    pub free: [u64; 2],
    /// Head of the list of blocks that other threads freed.
    pub thread_free: u64,
    /// Keys of its lists, where they are encoded.
    pub keys: Option<(u64, u64)>,
    /// The heap that owns it; 0 where the thread has ended.
    pub heap: u64,
}

impl Page {
    /// What the record's `bytes` say of a page in `area`; `None` where it is not in use.
    pub fn parse(layout: &Layout, record: u64, bytes: &[u8], area: AddressRange) -> Option<Self> {
        const FLAGS: u64 = 7;
        let fields = &layout.page;
        let word = |offset: u64| u64_at(bytes, usize::try_from(offset).ok()?);
        let short = |offset: u64| u16_at(bytes, usize::try_from(offset).ok()?).map(u64::from);
        let block_bytes = block_bytes(layout, bytes, area)?;
        if block_bytes < BLOCK_BYTES_MIN {
            return None;
        }
        let used = number(bytes, fields.used)?;
        let start = match fields.start {
            Start::Offset(offset) => area.start.wrapping_add(if block_bytes <= 1024 { offset } else { 0 }),
            Start::Blocks if block_bytes <= 64 => area.start.wrapping_add(3 * block_bytes),
            Start::Blocks if block_bytes <= 512 => area.start.wrapping_add(block_bytes),
            Start::Blocks => area.start,
            // The first byte is the page's number in its segment.
            Start::Aligned if bytes.first() == Some(&0) => aligned(area, block_bytes),
            Start::Aligned => area.start,
            Start::Stored(offset) => word(offset)?,
            Start::StoredWords(offset) => {
                let words = u32_at(bytes, usize::try_from(offset).ok()?)?;
                record.wrapping_add(u64::from(words) * 8)
            }
        };
        Some(Self {
            record,
            area,
            start,
            block_bytes,
            capacity: short(fields.capacity)?,
            reserved: short(fields.reserved)?,
            used,
            free: [word(fields.free)?, word(fields.local_free)?],
            thread_free: word(fields.thread_free)? & !FLAGS,
            keys: if layout.encoded { word(fields.keys).zip(word(fields.keys + 8)) } else { None },
            heap: word(fields.heap)?,
        })
    }

    /// Why this cannot be a page, if it cannot.
    pub fn contradiction(&self) -> Option<&'static str> {
        if self.capacity > self.reserved || self.reserved == 0 {
            return Some("a page has more blocks than room");
        }
        if self.used > self.capacity {
            return Some("a page has more blocks in use than blocks");
        }
        let end = self.reserved.checked_mul(self.block_bytes).and_then(|bytes| bytes.checked_add(self.start));
        if self.start < self.area.start || end.is_none_or(|end| end > self.area.end) {
            return Some("the blocks of a page do not fit into its address space");
        }
        if !self.heap.is_multiple_of(8) || self.heap >> 47 != 0 {
            return Some("the owner of a page is no heap");
        }
        None
    }

    /// The blocks that lists have been made of.
    pub const fn blocks(&self) -> AddressRange {
        AddressRange { start: self.start, end: self.start + self.capacity * self.block_bytes }
    }

    /// Whether any list of it names a block.
    pub const fn has_lists(&self) -> bool {
        self.free[0] != 0 || self.free[1] != 0 || self.thread_free != 0
    }

    /// Which block begins at `address`.
    pub fn index_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.start)?;
        let index = offset / self.block_bytes;
        (offset.is_multiple_of(self.block_bytes) && index < self.reserved).then_some(index)
    }
}

/// Bytes of a block, also where the record has no room for it.
fn block_bytes(layout: &Layout, bytes: &[u8], area: AddressRange) -> Option<u64> {
    let said = number(bytes, layout.page.block_bytes)?;
    let huge_bytes = match layout.places {
        Places::Segments(_) => OLD_HUGE_BLOCK_BYTES,
        _ => HUGE_BLOCK_BYTES,
    };
    let is_more = layout.page.block_bytes.1 == Width::Four && said >= huge_bytes;
    Some(if is_more { area.len_bytes() } else { said })
}

/// The counter at an offset.
fn number(bytes: &[u8], (offset, width): (u64, Width)) -> Option<u64> {
    let offset = usize::try_from(offset).ok()?;
    match width {
        Width::Two => u16_at(bytes, offset).map(u64::from),
        Width::Four => u32_at(bytes, offset).map(u64::from),
        Width::Eight => u64_at(bytes, offset),
    }
}

/// In 1.x the first page of a segment begins at the first multiple of the block size behind the segment's record.
fn aligned(area: AddressRange, block_bytes: u64) -> u64 {
    const SMALL_OBJECT_BYTES_MAX: u64 = 128 << 10;
    if block_bytes > SMALL_OBJECT_BYTES_MAX {
        return area.start;
    }
    // What passes the end of the address space does not fit into the area either.
    area.start.checked_next_multiple_of(block_bytes).unwrap_or(0)
}
