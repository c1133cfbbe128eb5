//! Runs: what the map in a chunk's header says of its pages.
//!
//! The map has a word for each page behind the header, and behind all of them a record for each, in which a small run keeps
//! its bitmap (`arena.h`). Every page is accounted for, so a wrong layout cannot tile a chunk.

use super::bins::{Bin, Bins};
use super::layout::Layout;
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;

/// Bytes of a page; other sizes were not seen with this version.
pub const PAGE_BYTES: u64 = 4096;
const MAP_WORD_BYTES: u64 = 8;
const ALLOCATED: u64 = 1;
const LARGE: u64 = 2;
const DIRTY: u64 = 0x10;
const BIN_SHIFT: u32 = 5;
/// The class of a run that has none.
const BIN_NONE: u64 = 0xff;
/// `arena_run_t`: class, free regions, bitmap.
const RUN_NFREE: usize = 4;
const RUN_BITMAP: usize = 8;

/// How chunks of one build are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkForm {
    /// Bytes of a chunk.
    pub chunk_bytes: u64,
    /// Pages of its header.
    pub header_pages: u64,
    /// Where the records of its pages begin.
    misc: u64,
}

impl ChunkForm {
    /// As `arena_boot` computes it, in three steps.
    pub fn new(layout: &Layout, chunk_bytes: u64) -> Self {
        let pages = chunk_bytes / PAGE_BYTES;
        let mut header_pages = 0_u64;
        for _ in 0..3 {
            let mapped = pages.saturating_sub(header_pages);
            let bytes = layout.map_bits + (MAP_WORD_BYTES + layout.misc_bytes) * mapped;
            header_pages = bytes.div_ceil(PAGE_BYTES);
        }
        let misc = layout.map_bits + MAP_WORD_BYTES * pages.saturating_sub(header_pages);
        Self { chunk_bytes, header_pages, misc }
    }

    /// The header of the chunk at `start`.
    pub const fn header(&self, start: u64) -> AddressRange {
        AddressRange { start, end: start.saturating_add(self.header_pages * PAGE_BYTES) }
    }

    /// The largest run.
    pub const fn run_bytes_max(&self) -> u64 {
        self.chunk_bytes.saturating_sub(self.header_pages * PAGE_BYTES)
    }

    /// Whether `address` is that of a run's record in the chunk that holds it.
    pub fn is_run_record(&self, layout: &Layout, address: u64) -> bool {
        let offset = address % self.chunk_bytes;
        let inside = offset.checked_sub(self.misc + layout.misc_run);
        inside.is_some_and(|inside| {
            inside.is_multiple_of(layout.misc_bytes)
                && inside / layout.misc_bytes < self.chunk_bytes / PAGE_BYTES
        })
    }
}

/// A run or what is free between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Free; its pages may still be backed by memory.
    Free {
        /// They were used and not given back.
        is_dirty: bool,
    },
    /// A run of small regions.
    Small {
        /// Their class.
        bin: u64,
        /// Free regions, by the run's own count.
        nfree: u64,
        /// Where its bitmap stands in the header: a set bit is a free region.
        bitmap: usize,
    },
    /// One block.
    Large {
        /// The class of a small block that the profiler has sampled.
        sampled_bin: Option<u64>,
    },
}

/// A chunk's header, copied.
#[derive(Debug)]
pub struct Header {
    start: u64,
    bytes: Vec<u8>,
}

impl Header {
    /// Reads that of the chunk at `start`; pages of it that were never touched are zeros.
    pub fn read(memory: &dyn Memory, form: &ChunkForm, start: u64) -> Self {
        let len_bytes = usize::try_from(form.header(start).len_bytes()).unwrap_or(0);
        Self { start, bytes: memory.read_vec_sparse(start, len_bytes) }
    }

    /// Visits everything behind the header in address order; ends at the first contradiction and tells it.
    pub fn visit(
        &self,
        layout: &Layout,
        form: &ChunkForm,
        bins: &Bins,
        visit: &mut dyn FnMut(AddressRange, Pages),
    ) -> Result<(), &'static str> {
        let pages = form.chunk_bytes / PAGE_BYTES;
        let mut page = form.header_pages;
        while page < pages {
            let (run_bytes, what) = self.run(layout, form, bins, page)?;
            let end = page + run_bytes / PAGE_BYTES;
            if run_bytes == 0 || !run_bytes.is_multiple_of(PAGE_BYTES) || end > pages {
                return Err("a run does not fit into its chunk");
            }
            let start = self.start.checked_add(page * PAGE_BYTES);
            let range = start.and_then(|start| AddressRange::with_len(start, run_bytes));
            visit(range.ok_or("a chunk passes the end of the address space")?, what);
            page = end;
        }
        Ok(())
    }

    /// The run that begins with `page`, and its length in bytes.
    fn run(
        &self,
        layout: &Layout,
        form: &ChunkForm,
        bins: &Bins,
        page: u64,
    ) -> Result<(u64, Pages), &'static str> {
        const CUT: &str = "a chunk's map is cut off";
        let bits = self.map_word(layout, form, page).ok_or(CUT)?;
        let (class, size_bytes) = (bits >> BIN_SHIFT & BIN_NONE, (bits & !0x1fff) >> 1);
        match (bits & ALLOCATED, bits & LARGE) {
            (0, _) => {
                let last = self.map_word(layout, form, (page + size_bytes / PAGE_BYTES).saturating_sub(1));
                if last.is_none_or(|last| last & ALLOCATED != 0 || (last & !0x1fff) >> 1 != size_bytes) {
                    return Err("a free run's last page does not agree with its first");
                }
                Ok((size_bytes, Pages::Free { is_dirty: bits & DIRTY != 0 }))
            }
            (_, 0) => {
                let bin = bins.get(class).ok_or("a small run has no class")?;
                self.small_pages(layout, form, bin, class, page)?;
                let misc = form.misc + layout.misc_bytes * (page - form.header_pages) + layout.misc_run;
                let record = usize::try_from(misc).map_err(|_| CUT)?;
                let field = |offset: usize| u32_at(&self.bytes, record + offset).map(u64::from).ok_or(CUT);
                if field(0)? != class {
                    return Err("a run's record and the chunk's map name two classes");
                }
                let (nfree, bitmap) = (field(RUN_NFREE)?, record + RUN_BITMAP);
                if self.free_regions(bitmap, bin.nregs) != Some(nfree) {
                    return Err("a run's free regions are not as many as its bitmap has bits");
                }
                Ok((bin.run_bytes, Pages::Small { bin: class, nfree, bitmap }))
            }
            _ => {
                let sampled_bin = (class != BIN_NONE).then_some(class);
                if sampled_bin.is_some_and(|bin| bins.get(bin).is_none()) {
                    return Err("a large run has a class that does not exist");
                }
                Ok((size_bytes, Pages::Large { sampled_bin }))
            }
        }
    }

    /// Each page of a small run bears its class and its place in it.
    fn small_pages(
        &self,
        layout: &Layout,
        form: &ChunkForm,
        bin: &Bin,
        class: u64,
        page: u64,
    ) -> Result<(), &'static str> {
        for index in 0..bin.run_bytes / PAGE_BYTES {
            let bits = self.map_word(layout, form, page + index).ok_or("a small run leaves its chunk")?;
            let is_its = bits & (ALLOCATED | LARGE) == ALLOCATED
                && bits >> BIN_SHIFT & BIN_NONE == class
                && bits >> 13 == index;
            if !is_its {
                return Err("a page of a small run says otherwise");
            }
        }
        Ok(())
    }

    fn map_word(&self, layout: &Layout, form: &ChunkForm, page: u64) -> Option<u64> {
        let index = page.checked_sub(form.header_pages)?;
        let within = index < form.chunk_bytes / PAGE_BYTES - form.header_pages;
        let offset = usize::try_from(layout.map_bits + MAP_WORD_BYTES * index).ok()?;
        u64_at(&self.bytes, offset).filter(|_| within)
    }

    fn free_regions(&self, bitmap: usize, nregs: u32) -> Option<u64> {
        let mut words = Vec::new();
        self.free_bits(bitmap, nregs, &mut words)?;
        Some(words.iter().map(|word| u64::from(word.count_ones())).sum())
    }

    /// One bit a region, set where it is free; replaces what `words` held.
    pub fn free_bits(&self, bitmap: usize, nregs: u32, words: &mut Vec<u64>) -> Option<()> {
        words.clear();
        for index in 0..nregs.div_ceil(64) {
            let word = u64_at(&self.bytes, bitmap.checked_add(usize::try_from(index).ok()? * 8)?)?;
            let rest = nregs - index * 64;
            words.push(if rest < 64 { word & ((1 << rest) - 1) } else { word });
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_long_as_real_ones() {
        // `map_bias` of a library built from 4.5.0, as gdb printed it.
        let layout = Layout::candidates(None)[0];
        let form = ChunkForm::new(&layout, 2 << 20);
        assert_eq!((form.header_pages, form.misc), (13, 120 + 8 * 499));
    }
}
