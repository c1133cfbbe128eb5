//! Size classes: read from the target's own table of bins, continued by rule for large sizes.
//!
//! Small classes depend on how jemalloc was configured and are never assumed. Large ones follow from the
//! largest small one: four to each doubling (sc.h and `size_classes.sh`, all of 5.x).

use super::layout::{BIN_INFO_BYTES_MAX, BIN_INFO_BYTES_MIN};
use crate::allocator::RunClass;
use crate::memory::{u32_at, u64_at};

/// Fewest and most small classes that a table may have.
const BINS_MIN: usize = 20;
const BINS_MAX: usize = 96;

/// One small size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bin {
    /// Bytes of a region.
    pub reg_bytes: u64,
    /// Bytes of a slab.
    pub slab_bytes: u64,
    /// Regions in a slab.
    pub nregs: u32,
    /// Bins that share the class in one arena; 1 where the version has no shards.
    pub n_shards: u32,
}

/// All size classes of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeClasses {
    /// Small classes by index.
    pub bins: Vec<Bin>,
    /// Usable bytes of the large classes, the first after the last small one.
    pub large: Vec<u64>,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes of an element of the table that they were read from; 0 where there was none.
    pub stride_bytes: usize,
}

impl SizeClasses {
    /// The table of bins that starts at `bytes`, if one does.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if u64_at(bytes, 0)? != 8 {
            return None;
        }
        // Builds with large pages keep a tree of bitmaps, which makes the elements longer.
        let strides = (BIN_INFO_BYTES_MIN..=BIN_INFO_BYTES_MAX).step_by(8);
        strides
            .filter_map(|stride| Self::parse_stride(bytes, stride))
            .max_by_key(|classes| classes.bins.len())
    }

    fn parse_stride(bytes: &[u8], stride: usize) -> Option<Self> {
        if u64_at(bytes, stride)? != 16 {
            return None;
        }
        let mut bins: Vec<Bin> = Vec::new();
        for element in bytes.chunks_exact(stride).take(BINS_MAX) {
            match parse_bin(element) {
                Some(bin) if bins.last().is_none_or(|last| last.reg_bytes < bin.reg_bytes) => bins.push(bin),
                _ => break,
            }
        }
        if bins.len() < BINS_MIN {
            return None;
        }
        let page_bytes = bins.iter().map(|bin| bin.slab_bytes).fold(0, greatest_divisor);
        let last = bins.last()?.reg_bytes;
        if !page_bytes.is_power_of_two() || page_bytes < 4096 {
            return None;
        }
        Some(Self { bins, large: large_classes(last), page_bytes, stride_bytes: stride })
    }

    /// Looks for a table of bins in `bytes`; tables are aligned to words.
    pub fn find(bytes: &[u8]) -> Option<(usize, Self)> {
        let mut best: Option<(usize, Self)> = None;
        for offset in (0..bytes.len()).step_by(8) {
            let Some(rest) = bytes.get(offset..) else { break };
            if u64_at(rest, 0) != Some(8) {
                continue;
            }
            if let Some(found) = Self::parse(rest)
                && best.as_ref().is_none_or(|(_, best)| best.bins.len() < found.bins.len())
            {
                best = Some((offset, found));
            }
        }
        best
    }

    /// The classes of a build with a quantum of `quantum_bytes`, for versions whose table is not in writable data
    /// and cannot be had: four to each doubling from four quanta on, slabs the smallest that have no rest
    /// (`size_classes.sh` of 5.0 and 5.1).
    pub fn by_rule(quantum_bytes: u64, page_bytes: u64) -> Self {
        let mut sizes = vec![8];
        sizes.extend((1..=4).map(|quanta| quanta * quantum_bytes).filter(|size| *size > 8));
        sizes.extend(large_classes(4 * quantum_bytes).into_iter().take_while(|size| *size < 4 * page_bytes));
        let bin = |reg_bytes: u64| {
            let slab_bytes = page_bytes / greatest_divisor(page_bytes, reg_bytes) * reg_bytes;
            let nregs = u32::try_from(slab_bytes / reg_bytes).unwrap_or(u32::MAX);
            Bin { reg_bytes, slab_bytes, nregs, n_shards: 1 }
        };
        let last = sizes.last().copied().unwrap_or(8);
        Self {
            bins: sizes.into_iter().map(bin).collect(),
            large: large_classes(last),
            page_bytes,
            stride_bytes: 0,
        }
    }

    /// Number of small classes.
    pub fn nbins(&self) -> u64 {
        self.bins.len() as u64
    }

    /// Number of all classes; as a class it means "none".
    pub fn nsizes(&self) -> u64 {
        self.nbins() + self.large.len() as u64
    }

    /// Logarithm of the page size.
    pub const fn lg_page(&self) -> u32 {
        self.page_bytes.trailing_zeros()
    }

    /// A small class.
    pub fn bin(&self, szind: u64) -> Option<&Bin> {
        self.bins.get(usize::try_from(szind).ok()?)
    }

    /// Usable bytes of a class.
    pub fn size_bytes(&self, szind: u64) -> Option<u64> {
        let index = usize::try_from(szind).ok()?;
        match self.bins.get(index) {
            Some(bin) => Some(bin.reg_bytes),
            None => self.large.get(index.checked_sub(self.bins.len())?).copied(),
        }
    }

    /// Small classes in neutral words.
    pub fn run_classes(&self) -> Vec<RunClass> {
        let class =
            |bin: &Bin| RunClass { block_bytes: bin.reg_bytes, run_bytes: bin.slab_bytes, blocks: bin.nregs };
        self.bins.iter().map(class).collect()
    }
}

fn parse_bin(element: &[u8]) -> Option<Bin> {
    let bin = Bin {
        reg_bytes: u64_at(element, 0)?,
        slab_bytes: u64_at(element, 8)?,
        nregs: u32_at(element, 16)?,
        n_shards: u32_at(element, 20)?,
    };
    let plausible = bin.reg_bytes >= 8
        && bin.reg_bytes.is_multiple_of(8)
        && bin.slab_bytes >= 4096
        && bin.slab_bytes.is_multiple_of(4096)
        && bin.slab_bytes < 1 << 30
        && u64::from(bin.nregs) == bin.slab_bytes / bin.reg_bytes
        && bin.n_shards <= 64;
    plausible.then_some(Bin { n_shards: bin.n_shards.max(1), ..bin })
}

fn greatest_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

/// The classes above `last`, four to each doubling, up to the largest that an address can span.
pub fn large_classes(last: u64) -> Vec<u64> {
    let mut classes = Vec::new();
    let mut size = last;
    loop {
        // The distance between classes is a quarter of the power of two that is not above the smaller one.
        let step = (1_u64 << (63 - size.leading_zeros())) / 4;
        match size.checked_add(step) {
            Some(next) if next <= 0x7000_0000_0000_0000 => {
                classes.push(next);
                size = next;
            }
            _ => return classes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the tables that jemalloc 5.1.0 compiles in (`size_classes.h`, quantum 16 and 8, pages of 4 KiB).
    #[test]
    fn the_rule_gives_the_tables_of_real_builds() {
        let sixteen = SizeClasses::by_rule(16, 4096);
        let sizes: Vec<u64> = sixteen.bins.iter().map(|bin| bin.reg_bytes).collect();
        assert_eq!(sizes[..10], [8, 16, 32, 48, 64, 80, 96, 112, 128, 160]);
        assert_eq!((sizes.len(), sizes[35], sixteen.large[0], sixteen.large.len()), (36, 14336, 16384, 196));
        let of = |bytes: u64| sixteen.bins.iter().find(|bin| bin.reg_bytes == bytes).unwrap();
        assert_eq!((of(48).slab_bytes, of(48).nregs), (12288, 256));
        assert_eq!((of(14336).slab_bytes, of(14336).nregs), (28672, 2));
        let eight = SizeClasses::by_rule(8, 4096);
        assert_eq!((eight.bins.len(), eight.bins[2].reg_bytes, eight.bins[38].reg_bytes), (39, 24, 14336));
    }
}
