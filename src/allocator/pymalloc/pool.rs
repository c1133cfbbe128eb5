//! Pools: blocks of one size behind a header, with one list of those that are free.

use super::layout::{Layout, POOL_HEADER_BYTES};
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;

/// A pool with at least one block in use, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Where it begins.
    pub address: u64,
    /// Blocks in use by its own count.
    pub used: u64,
    /// Head of the list of free blocks.
    pub free: u64,
    /// The arena that it says it is in.
    pub arena: u32,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that were ever handed out or are in the list.
    pub capacity: u64,
    /// Blocks that it has room for.
    pub room: u64,
}

/// What lies at a multiple of a pool's size in an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A pool in use.
    Used(Pool),
    /// A pool without a block in use.
    Free,
    /// Nothing that makes sense.
    Broken(&'static str),
}

impl Found {
    /// Reads the header at `address`.
    pub fn read(memory: &dyn Memory, layout: &Layout, address: u64) -> Self {
        let Ok(header) = memory.read_vec(address, usize::try_from(POOL_HEADER_BYTES).unwrap_or(48)) else {
            return Self::Broken("the header of a pool is not in the captured memory");
        };
        let short = |offset| u32_at(&header, offset).unwrap_or(0);
        let used = u64::from(short(0));
        if used == 0 {
            return Self::Free;
        }
        let (next_offset, last_offset) = (u64::from(short(40)), u64::from(short(44)));
        let Some(block_bytes) = layout.block_bytes(short(36)) else {
            return Self::Broken("a pool is of no size class");
        };
        let room = (layout.pool_bytes - POOL_HEADER_BYTES) / block_bytes;
        let Some(cut) = next_offset.checked_sub(POOL_HEADER_BYTES) else {
            return Self::Broken("the blocks of a pool begin in its header");
        };
        let capacity = cut / block_bytes;
        if !cut.is_multiple_of(block_bytes)
            || capacity > room
            || last_offset + block_bytes != layout.pool_bytes
        {
            return Self::Broken("the header of a pool contradicts its size class");
        }
        if used > capacity {
            return Self::Broken("a pool has more blocks in use than blocks");
        }
        let free = u64_at(&header, 8).unwrap_or(0);
        Self::Used(Pool { address, used, free, arena: short(32), block_bytes, capacity, room })
    }
}

impl Pool {
    /// Its first block.
    pub const fn start(&self) -> u64 {
        self.address + POOL_HEADER_BYTES
    }

    /// All of it.
    pub const fn range(&self, layout: &Layout) -> AddressRange {
        AddressRange { start: self.address, end: self.address + layout.pool_bytes }
    }

    fn index_of(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.start())?;
        let index = offset / self.block_bytes;
        (offset.is_multiple_of(self.block_bytes) && index < self.room).then_some(index)
    }

    /// Follows its list; blocks in it go to `visit`.
    pub fn blocks(&self, memory: &dyn Memory, visit: &mut dyn FnMut(u64)) -> Blocks {
        let count = usize::try_from(self.capacity).unwrap_or(0);
        let words = usize::try_from(self.room.div_ceil(64)).unwrap_or(0);
        let mut blocks = Blocks { live: vec![0; words], ..Blocks::default() };
        for index in 0..count {
            if let Some(word) = blocks.live.get_mut(index / 64) {
                *word |= 1 << (index % 64);
            }
        }
        blocks.is_of_the_moment = memory.is_of_the_moment(self.address);
        blocks.is_certain = memory.is_certain(self.address);
        let (mut at, mut block) = (self.address, self.free);
        while block != 0 {
            let taken = self.index_of(block).is_some_and(|index| blocks.take(index));
            if !taken {
                blocks.broken = Some((at, "the list of a pool leads out of its free blocks"));
                break;
            }
            visit(block);
            blocks.is_of_the_moment &= memory.is_of_the_moment(block);
            blocks.is_certain &= memory.is_certain(block);
            let Ok(next) = memory.read_u64(block) else {
                blocks.broken = Some((block, "a free block is not in the captured memory"));
                break;
            };
            (at, block) = (block, next);
        }
        blocks
    }
}

/// Which blocks of a pool are live.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks {
    /// One bit a block.
    pub live: Vec<u64>,
    /// Blocks in the list.
    pub free: u64,
    /// The block whose link leads astray (the pool where it is the head), and why.
    pub broken: Option<(u64, &'static str)>,
    /// All bytes that were read are of the moment that is asked about.
    pub is_of_the_moment: bool,
    /// All of them are as they were in that moment.
    pub is_certain: bool,
}

impl Blocks {
    /// Takes a block out of the live ones; false where it was taken before.
    fn take(&mut self, index: u64) -> bool {
        let bit = 1 << (index % 64);
        let word = usize::try_from(index / 64).ok().and_then(|word| self.live.get_mut(word));
        let Some(word) = word.filter(|word| **word & bit != 0) else { return false };
        *word &= !bit;
        self.free += 1;
        true
    }
}
