//! What the hits of one arming were: allocations and frees tell themselves apart by the way the word moves.
//!
//! A stack of cached blocks moves one way with an allocation and the other way with a free. The head of a list only
//! shows which block is first: there the instructions that move it are told apart, once for all, by what only one of
//! the two can do.

use super::store::{STORE_LEN_MAX, Store, store};
use crate::allocator::{CacheHead, HeadForm};
use crate::memory::{Memory, MemoryExt, words};
use heaptap_platform::Hit;
use std::collections::HashMap;

/// Bytes at the top of the stack that belong to the allocator.
const NEAR_STACK_LEN_BYTES: usize = 1024;
/// Most cached blocks of which the addresses are read.
const CACHED_MAX: u64 = 1 << 13;
/// How much more a sign counts that only one of the two can give.
const SURE: u32 = 4;

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

impl PcVotes {
    const fn side(&self) -> Option<Side> {
        if self.frees > 2 * self.allocations {
            Some(Side::Free)
        } else if self.allocations > 2 * self.frees {
            Some(Side::Allocation)
        } else {
            None
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Allocation,
    Free,
    /// Many blocks at once.
    Neither,
}

/// The word before and behind one hit, as far as the code tells.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    before: Option<u64>,
    after: Option<u64>,
    /// The difference, where the instruction itself tells it.
    step: Option<i64>,
}

/// What the word says of one hit.
#[derive(Debug, Clone, Copy, Default)]
struct Move {
    side: Option<Side>,
    /// The block, if it was an allocation.
    block: Option<u64>,
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
        let changes = self.changes(head, hits, memory);
        let moves = match head.form {
            HeadForm::StackPointer(stack) => {
                let count =
                    |word: u64| (stack.start..=stack.end).contains(&word).then(|| (stack.end - word) / 8);
                moves_of_stack(&changes, stack.end, &count, memory)
            }
            HeadForm::StackCount { end, blocks_max } => {
                let count = |word: u64| (word <= blocks_max).then_some(word);
                moves_of_stack(&changes, end, &count, memory)
            }
            HeadForm::List { frees_elsewhere } => moves_of_list(hits, &changes, frees_elsewhere),
        };
        self.vote(hits, &moves);
        if matches!(head.form, HeadForm::List { frees_elsewhere: false }) {
            self.vote_by_pairs(hits, &changes);
        }
        hits.iter().zip(moves).map(|(hit, moved)| self.kind(hit, moved)).collect()
    }

    fn changes(&mut self, head: &CacheHead, hits: &[Hit], memory: &dyn Memory) -> Vec<Change> {
        let mut before = None;
        let mut changes = Vec::with_capacity(hits.len());
        for hit in hits {
            let pc = hit.registers.program_counter;
            let code = self.code.entry(pc).or_insert_with(|| {
                memory.read_vec(pc.wrapping_sub(STORE_LEN_MAX as u64), STORE_LEN_MAX).unwrap_or_default()
            });
            let (after, step) = match store(code, &hit.registers, head.address, head.len_bytes()) {
                Some(Store::Value(word)) => (Some(word), None),
                Some(Store::Step(step)) => {
                    (before.map(|word: u64| word.wrapping_add_signed(step)), Some(step))
                }
                None => (None, None),
            };
            changes.push(Change { before, after, step });
            before = after;
        }
        changes
    }

    fn vote(&mut self, hits: &[Hit], moves: &[Move]) {
        for (hit, moved) in hits.iter().zip(moves) {
            let votes = self.votes_of(hit.registers.program_counter);
            votes.allocations += SURE * u32::from(moved.side == Some(Side::Allocation));
            votes.frees += SURE * u32::from(moved.side == Some(Side::Free));
        }
    }

    /// A free and an allocation behind it leave a list as it was, always; two of one kind never do. That tells of one instruction
    /// what it is where the other is known.
    fn vote_by_pairs(&mut self, hits: &[Hit], changes: &[Change]) {
        let pairs = hits.iter().zip(hits.iter().skip(1)).zip(changes.iter().zip(changes.iter().skip(1)));
        for ((first, second), (one, two)) in pairs {
            let (first, second) = (first.registers.program_counter, second.registers.program_counter);
            let (Some(before), Some(after)) = (one.before, two.after) else { continue };
            // What begins at nothing may be a refill.
            if first == second || before == 0 {
                continue;
            }
            let is_back = before == after;
            match (self.side_of(first), self.side_of(second)) {
                (Some(Side::Free), None) if is_back => self.votes_of(second).allocations += 1,
                (Some(Side::Allocation), None) if is_back => self.votes_of(second).frees += 1,
                (None, Some(Side::Free)) if is_back => self.votes_of(first).allocations += 1,
                (None, Some(Side::Allocation)) if is_back => self.votes_of(first).frees += 1,
                (Some(Side::Free), None) => self.votes_of(second).frees += 1,
                (None, Some(Side::Allocation)) => self.votes_of(first).allocations += 1,
                (None, None) if !is_back => {
                    self.votes_of(first).allocations += 1;
                    self.votes_of(second).frees += 1;
                }
                _ => {}
            }
        }
    }

    fn side_of(&self, pc: u64) -> Option<Side> {
        self.votes.get(&pc).and_then(PcVotes::side)
    }

    fn votes_of(&mut self, pc: u64) -> &mut PcVotes {
        self.votes.entry(pc).or_default()
    }

    fn kind(&mut self, hit: &Hit, moved: Move) -> HitKind {
        let votes = self.votes_of(hit.registers.program_counter);
        match moved.side.or_else(|| votes.side()) {
            Some(Side::Allocation) => {}
            Some(Side::Free) => return HitKind::Free,
            Some(Side::Neither) | None => return HitKind::Unknown,
        }
        let general = hit.registers.general();
        let block = moved.block.filter(|block| *block != 0);
        let found = block.and_then(|block| Some((block, general.iter().position(|value| *value == block)?)));
        if let Some((block, register)) = found {
            if let Some(count) = votes.block_in.get_mut(register) {
                *count += 1;
            }
            return HitKind::Allocation { block };
        }
        // Code that was not optimised keeps it on the stack.
        if let Some(block) = block.filter(|block| is_near(hit, *block)) {
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
}

/// Moves of a stack of cached blocks, of which `count` tells how many are on it.
fn moves_of_stack(
    changes: &[Change],
    end: u64,
    count: &dyn Fn(u64) -> Option<u64>,
    memory: &dyn Memory,
) -> Vec<Move> {
    let deepest = changes.iter().filter_map(|change| count(change.after?)).max();
    // A block that was taken stands where it stood until the next free.
    let slots = deepest.map_or(0, |count| (count + 1).min(CACHED_MAX));
    let stack = memory.read_words(end.wrapping_sub(slots * 8), usize::try_from(slots).unwrap_or(0));
    let stack = stack.unwrap_or_default();
    let taken = |left: u64| {
        let from_end = usize::try_from(left).ok()?.checked_add(1)?;
        stack.len().checked_sub(from_end).and_then(|at| stack.get(at)).copied()
    };
    let side = |change: &Change| {
        let counts = (change.before.and_then(count), change.after.and_then(count));
        let step = match counts {
            (Some(before), Some(after)) => after.wrapping_sub(before).cast_signed(),
            _ => change.step?,
        };
        Some(match step {
            -1 => Side::Allocation,
            1 => Side::Free,
            _ => Side::Neither,
        })
    };
    let moved =
        |change: &Change| Move { side: side(change), block: change.after.and_then(count).and_then(taken) };
    changes.iter().map(moved).collect()
}

/// Moves of the head of a list.
fn moves_of_list(hits: &[Hit], changes: &[Change], frees_elsewhere: bool) -> Vec<Move> {
    let side = |hit: &Hit, change: &Change| match (change.before?, change.after) {
        // Nothing can be taken of an empty list.
        (0, _) => Some(if frees_elsewhere { Side::Neither } else { Side::Free }),
        // Whoever takes a block has it at hand.
        (block, _) if !hit.registers.general().contains(&block) && !is_near(hit, block) => {
            Some(if frees_elsewhere { Side::Neither } else { Side::Free })
        }
        // Nobody gives back nothing.
        (_, Some(0)) => Some(Side::Allocation),
        _ => frees_elsewhere.then_some(Side::Allocation),
    };
    let moved =
        |(hit, change): (&Hit, &Change)| Move { side: side(hit, change), block: change.before };
    hits.iter().zip(changes).map(moved).collect()
}

fn is_near(hit: &Hit, block: u64) -> bool {
    let near = hit.stack.get(..NEAR_STACK_LEN_BYTES).unwrap_or(&hit.stack);
    words(near).any(|value| value == block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Fault;
    use heaptap_platform::Registers;

    const HEAD: u64 = 0x5000;
    const MALLOC: u64 = 0x40_1000;
    const FREE: u64 = 0x40_2000;

    /// Code that stores %rax at (%rbx) before every address that is asked for.
    struct Code;

    impl Memory for Code {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
            if address < 0x40_0000 {
                return Err(Fault { address });
            }
            bytes.fill(0x90);
            let at = bytes.len() - 3;
            bytes[at..].copy_from_slice(&[0x48, 0x89, 0x03]);
            Ok(())
        }
    }

    /// A hit that stored `value` and has `at_hand` in %rcx.
    fn hit(pc: u64, value: u64, at_hand: u64) -> Hit {
        let mut words = [0_u64; 27];
        words[10] = value;
        words[5] = HEAD;
        words[11] = at_hand;
        words[16] = pc;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let registers = Registers::from_x86_64_user_regs(&bytes).unwrap();
        Hit { tid: 1, time_ns: 0, registers, stack: Vec::new() }
    }

    fn list(frees_elsewhere: bool) -> CacheHead {
        CacheHead { tid: 1, address: HEAD, block_bytes: 104, form: HeadForm::List { frees_elsewhere } }
    }

    #[test]
    fn instructions_of_a_list_are_told_apart_by_what_follows_what() {
        let mut table = PcTable::default();
        // A list a, b, c: a is taken, x is given back, x is taken, b is taken.
        let (a, b, c, x) = (0xa0, 0xb0, 0xc0, 0xf0);
        let hits = [
            hit(FREE, a, a),
            hit(MALLOC, b, a),
            hit(FREE, x, b),
            hit(MALLOC, b, x),
            hit(MALLOC, c, b),
        ];
        let kinds = table.classify(&list(false), &hits, &Code);
        assert_eq!(kinds[1], HitKind::Allocation { block: a });
        assert_eq!(kinds[2], HitKind::Free);
        assert_eq!(kinds[3], HitKind::Allocation { block: x });
        assert_eq!(kinds[4], HitKind::Allocation { block: b });
    }

    #[test]
    fn an_end_of_a_list_is_an_allocation_and_a_beginning_is_none() {
        let mut table = PcTable::default();
        let hits = [hit(FREE, 0xa0, 0), hit(MALLOC, 0, 0xa0), hit(FREE, 0xb0, 0)];
        let kinds = table.classify(&list(false), &hits, &Code);
        assert_eq!(kinds[1..], [HitKind::Allocation { block: 0xa0 }, HitKind::Free]);
        // The same instructions are known from now on.
        let kinds = table.classify(&list(false), &[hit(FREE, 0xa0, 0), hit(MALLOC, 0xb0, 0xa0)], &Code);
        assert_eq!(kinds, [HitKind::Free, HitKind::Allocation { block: 0xa0 }]);
    }

    #[test]
    fn refills_of_a_list_that_frees_do_not_move_are_neither() {
        let mut table = PcTable::default();
        let hits = [hit(MALLOC, 0, 0xa0), hit(FREE, 0xb0, 0), hit(MALLOC, 0xc0, 0xb0)];
        let kinds = table.classify(&list(true), &hits, &Code);
        assert_eq!(kinds[1..], [HitKind::Unknown, HitKind::Allocation { block: 0xb0 }]);
    }
}
