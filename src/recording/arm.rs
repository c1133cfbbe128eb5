//! What the hits of one arming were: allocations and frees tell themselves apart by the way the word moves.

use super::store::{STORE_LEN_MAX, stored_register};
use crate::allocator::CacheHead;
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::Hit;
use std::collections::HashMap;

/// Bytes at the top of the stack that belong to the allocator.
const NEAR_STACK_LEN_BYTES: usize = 1024;

/// What one hit was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HitKind {
    /// A block was taken.
    Allocation {
        /// The block.
        block: u64,
    },
    /// A block was given back.
    Free,
    /// The cache was filled or emptied, or nothing tells what it was.
    Unknown,
}

/// What is known of one instruction that moves the word.
#[derive(Debug, Clone, Copy, Default)]
struct PcVotes {
    allocations: u32,
    frees: u32,
    /// By DWARF number: how often the register held the block that was allocated.
    block_in: [u32; 17],
}

/// What has been learnt of the instructions that move the words.
#[derive(Debug, Default)]
pub struct PcTable {
    votes: HashMap<u64, PcVotes>,
    code: HashMap<u64, Vec<u8>>,
}

impl PcTable {
    /// Tells what each hit on `head` was. `memory` is the running target's.
    pub fn classify(&mut self, head: &CacheHead, hits: &[Hit], memory: &dyn Memory) -> Vec<HitKind> {
        let stored: Vec<Option<u64>> = hits.iter().map(|hit| self.stored(head, hit, memory)).collect();
        let stack_words = usize::try_from(head.stack.len_bytes() / 8).unwrap_or(0);
        let stack = memory.read_words(head.stack.start, stack_words).unwrap_or_default();
        let previous = std::iter::once(None).chain(stored.iter().copied());
        let steps: Vec<Option<i64>> = stored
            .iter()
            .zip(previous)
            .map(|(now, before)| Some(now.as_ref()?.wrapping_sub(before?).cast_signed()))
            .collect();
        for (hit, step) in hits.iter().zip(&steps) {
            let votes = self.votes.entry(hit.registers.program_counter).or_default();
            votes.allocations += u32::from(*step == Some(8));
            votes.frees += u32::from(*step == Some(-8));
        }
        let facts = hits.iter().zip(stored).zip(steps);
        facts.map(|((hit, word), step)| self.kind(head, hit, word, step, &stack)).collect()
    }

    fn kind(
        &mut self,
        head: &CacheHead,
        hit: &Hit,
        word: Option<u64>,
        step: Option<i64>,
        stack: &[u64],
    ) -> HitKind {
        let votes = self.votes.entry(hit.registers.program_counter).or_default();
        let is_allocation = match step {
            Some(8) => true,
            Some(-8) => return HitKind::Free,
            Some(_) => return HitKind::Unknown,
            None if votes.frees > 2 * votes.allocations => return HitKind::Free,
            None => votes.allocations > 2 * votes.frees,
        };
        if !is_allocation {
            return HitKind::Unknown;
        }
        // The block stood where the word pointed before; it stands there until the next free.
        let slot = word.and_then(|word| word.checked_sub(head.stack.start + 8)).map(|offset| offset / 8);
        let popped =
            slot.and_then(|slot| stack.get(usize::try_from(slot).ok()?)).copied().filter(|b| *b != 0);
        let general = hit.registers.general();
        let found = popped.and_then(|block| Some((block, general.iter().position(|value| *value == block)?)));
        if let Some((block, register)) = found {
            if let Some(count) = votes.block_in.get_mut(register) {
                *count += 1;
            }
            return HitKind::Allocation { block };
        }
        // Code that was not optimised keeps it on the stack.
        let near = hit.stack.get(..NEAR_STACK_LEN_BYTES).unwrap_or(&hit.stack);
        if let Some(block) = popped.filter(|block| words(near).any(|value| value == *block)) {
            return HitKind::Allocation { block };
        }
        let usual = votes.block_in.iter().enumerate().max_by_key(|(_, count)| **count);
        match usual {
            Some((register, 1..)) => {
                general.get(register).map_or(HitKind::Unknown, |block| HitKind::Allocation { block: *block })
            }
            _ => HitKind::Unknown,
        }
    }

    /// The value that the word was given.
    fn stored(&mut self, head: &CacheHead, hit: &Hit, memory: &dyn Memory) -> Option<u64> {
        let pc = hit.registers.program_counter;
        let code = self.code.entry(pc).or_insert_with(|| {
            memory.read_vec(pc.wrapping_sub(STORE_LEN_MAX as u64), STORE_LEN_MAX).unwrap_or_default()
        });
        let register = stored_register(code, &hit.registers, head.address)?;
        let value = hit.registers.get(register)?;
        (head.stack.start..=head.stack.end).contains(&value).then_some(value)
    }
}
