//! Small size classes: the table `arena_bin_info` that jemalloc makes when it starts.

use super::layout::Layout;
use crate::allocator::{Data, RunClass};
use crate::memory::{u32_at, u64_at};

/// Fewest and most small classes that a table may have.
const BINS_MIN: usize = 20;
const BINS_MAX: usize = 96;

/// One small size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bin {
    /// Bytes that the program may use.
    pub reg_bytes: u64,
    /// Bytes from one region to the next: more than those where guard zones are on.
    pub interval_bytes: u64,
    /// Bytes of a run.
    pub run_bytes: u64,
    /// Regions in a run.
    pub nregs: u32,
    /// The first region in a run.
    pub reg0: u64,
}

/// All small classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bins {
    /// By index.
    pub bins: Vec<Bin>,
    /// Where the table is.
    pub address: u64,
}

impl Bins {
    /// The longest table in `data`.
    pub fn find(data: &Data, layout: &Layout) -> Option<Self> {
        let mut best: Option<Self> = None;
        for (start, bytes) in data.pieces() {
            for offset in (0..bytes.len()).step_by(8) {
                let Some(rest) = bytes.get(offset..).filter(|rest| u64_at(rest, 0) == Some(8)) else {
                    continue;
                };
                let found = Self::parse(start + offset as u64, rest, layout);
                let len = best.as_ref().map_or(0, |best| best.bins.len());
                best = found.filter(|found| found.bins.len() > len).or(best);
            }
        }
        best
    }

    fn parse(address: u64, bytes: &[u8], layout: &Layout) -> Option<Self> {
        let mut bins: Vec<Bin> = Vec::new();
        for element in bytes.chunks_exact(layout.bin_info_bytes).take(BINS_MAX) {
            match Bin::parse(element, layout) {
                Some(bin) if bins.last().is_none_or(|last| last.reg_bytes < bin.reg_bytes) => bins.push(bin),
                _ => break,
            }
        }
        (bins.len() >= BINS_MIN).then_some(Self { bins, address })
    }

    /// A class.
    pub fn get(&self, index: u64) -> Option<&Bin> {
        self.bins.get(usize::try_from(index).ok()?)
    }

    /// The largest small class in bytes.
    pub fn largest_bytes(&self) -> u64 {
        self.bins.last().map_or(0, |bin| bin.reg_bytes)
    }

    /// Whether regions have guard zones around them.
    pub fn has_guards(&self) -> bool {
        self.bins.iter().any(|bin| bin.interval_bytes != bin.reg_bytes)
    }

    /// In neutral words.
    pub fn run_classes(&self) -> Vec<RunClass> {
        let class =
            |bin: &Bin| RunClass { block_bytes: bin.reg_bytes, run_bytes: bin.run_bytes, blocks: bin.nregs };
        self.bins.iter().map(class).collect()
    }
}

impl Bin {
    fn parse(element: &[u8], layout: &Layout) -> Option<Self> {
        let (reg_bytes, guard_bytes) = (u64_at(element, 0)?, u64_at(element, 8)?);
        let bin = Self {
            reg_bytes,
            interval_bytes: u64_at(element, 16)?,
            run_bytes: u64_at(element, 24)?,
            nregs: u32_at(element, 32)?,
            reg0: u64::from(u32_at(element, layout.bin_info_reg0)?),
        };
        let used = bin.reg0.checked_add(u64::from(bin.nregs).checked_mul(bin.interval_bytes)?)?;
        let is_plausible = reg_bytes >= 8
            && reg_bytes.is_multiple_of(8)
            && guard_bytes.checked_mul(2)?.checked_add(reg_bytes)? == bin.interval_bytes
            && bin.run_bytes.is_multiple_of(4096)
            && (4096..1 << 30).contains(&bin.run_bytes)
            && (1..=4096).contains(&bin.nregs)
            // Redzones before the first region and after the last count once each.
            && used <= bin.run_bytes.checked_add(2 * guard_bytes)?
            && u64_at(element, 40)? == u64::from(bin.nregs);
        is_plausible.then_some(bin)
    }
}
