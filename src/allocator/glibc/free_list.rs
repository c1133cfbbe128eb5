//! Free lists: the bins of each arena, with the chunks that the walk must find free, and its fastbins.

use super::arena::Arena;
use super::layout::{BIN_WORDS, Layout};
use crate::allocator::Anomalies;
use crate::memory::{Memory, MemoryExt, u64_at};
use std::collections::HashMap;

/// Most chunks of one list that are followed.
const LIST_MAX: u64 = 1 << 28;

/// From a chunk to its link forwards and its link backwards.
const FORWARD: u64 = 16;

/// A link as it is stored at `field`, made plain.
pub const fn reveal(safe_linking: bool, field: u64, stored: u64) -> u64 {
    if safe_linking { (field >> 12) ^ stored } else { stored }
}

/// What the lists of all arenas hold, by chunk.
#[derive(Debug, Default)]
pub struct FreeLists {
    /// Chunks in bins: the arena, and whether the walk has met it free.
    pub binned: HashMap<u64, (u32, bool)>,
    /// Chunks in fastbins: the arena.
    pub fast: HashMap<u64, u32>,
    /// Lists that broke off.
    pub broken: u64,
    /// Lists that broke off where the capture is of two moments.
    pub doubtful: u64,
}

impl FreeLists {
    /// Follows all lists of all arenas.
    pub fn gather(memory: &dyn Memory, layout: &Layout, arenas: &[Arena], anomalies: &mut Anomalies) -> Self {
        let mut lists = Self::default();
        for arena in arenas {
            for bin in 1..=BIN_WORDS / 2 {
                lists.bin(memory, layout, arena, bin, anomalies);
            }
            for head in &arena.fastbins {
                lists.fastbin(memory, layout, arena.index, *head, anomalies);
            }
        }
        lists
    }

    /// A circle of chunks through the arena's own record; followed from both ends where it is broken.
    fn bin(
        &mut self,
        memory: &dyn Memory,
        layout: &Layout,
        arena: &Arena,
        bin: u64,
        anomalies: &mut Anomalies,
    ) {
        let head = arena.bin_head(layout, bin);
        let word = |index: u64| arena.bins.get(usize::try_from(index).ok()?).copied();
        let (Some(first), Some(last)) = (word((bin - 1) * 2), word((bin - 1) * 2 + 1)) else { return };
        let Err(broken) = self.chain(memory, arena.index, head, first, 0) else { return };
        if self.is_told(memory, broken) {
            anomalies.add(
                broken.chunk,
                &format!(
                    "the list of bin {bin} of arena {} breaks here; the last good chunk is {:#x}: what lies \
                 before {:#x} was probably written past its end, or used after it was freed",
                    arena.index, broken.last_good, broken.chunk
                ),
            );
        }
        // The other direction gives what lies behind the break.
        let _ = self.chain(memory, arena.index, head, last, 1);
    }

    /// Counts a break; whether it is one in the target, and not between two moments of the capture.
    fn is_told(&mut self, memory: &dyn Memory, broken: Broken) -> bool {
        let places = [broken.chunk, broken.last_good];
        let is_told = places.iter().all(|chunk| memory.is_of_the_moment(chunk.saturating_add(FORWARD)));
        *if is_told { &mut self.broken } else { &mut self.doubtful } += 1;
        is_told
    }

    /// Follows links forwards (0) or backwards (1) until `head`.
    fn chain(
        &mut self,
        memory: &dyn Memory,
        arena: u32,
        head: u64,
        first: u64,
        direction: usize,
    ) -> Result<(), Broken> {
        let (mut last_good, mut chunk) = (head, first);
        for _ in 0..LIST_MAX {
            if chunk == head {
                return Ok(());
            }
            let broken = Broken { chunk, last_good };
            let links = if chunk % 16 == 0 { links(memory, chunk) } else { None };
            let links = links.ok_or(broken)?;
            if links.get(1 - direction) != Some(&last_good) {
                return Err(broken);
            }
            let known = self.binned.insert(chunk, (arena, false)).is_some();
            if known && direction == 0 {
                return Err(broken);
            }
            last_good = chunk;
            chunk = links.get(direction).copied().unwrap_or_default();
        }
        Err(Broken { chunk, last_good })
    }

    fn fastbin(
        &mut self,
        memory: &dyn Memory,
        layout: &Layout,
        arena: u32,
        head: u64,
        anomalies: &mut Anomalies,
    ) {
        let (mut chunk, mut last_good) = (head, 0);
        for _ in 0..LIST_MAX {
            if chunk == 0 {
                return;
            }
            let field = chunk.wrapping_add(FORWARD);
            let stored = if chunk % 16 == 0 { memory.read_u64(field).ok() } else { None };
            let Some(stored) = stored.filter(|_| !self.fast.contains_key(&chunk)) else {
                if self.is_told(memory, Broken { chunk, last_good }) {
                    anomalies.add(
                    chunk,
                    &format!(
                        "a fastbin of arena {arena} breaks here; the last good chunk is {last_good:#x}: its \
                         user probably wrote to it after it was freed"
                    ),
                );
                }
                return;
            };
            self.fast.insert(chunk, arena);
            last_good = chunk;
            chunk = reveal(layout.safe_linking, field, stored);
        }
    }
}

/// Where a list broke off.
#[derive(Debug, Clone, Copy)]
struct Broken {
    chunk: u64,
    last_good: u64,
}

/// Both links of a chunk.
fn links(memory: &dyn Memory, chunk: u64) -> Option<[u64; 2]> {
    let at = chunk.checked_add(FORWARD)?;
    let bytes = memory.read_vec(at, 16).ok()?;
    Some([u64_at(&bytes, 0)?, u64_at(&bytes, 8)?])
}
