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
    /// By DWARF number: how often the register held the block that was taken or given back.
    block_in: [u32; 17],
}

impl PcVotes {
    /// The register that holds the block, as far as is known.
    fn usual_register(&self) -> Option<usize> {
        let most = self.block_in.iter().enumerate().max_by_key(|(_, count)| **count)?;
        (*most.1 > 0).then_some(most.0)
    }

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
    /// The block, if a register holds it.
    block: Option<u64>,
    /// The one that it is even if no register holds it.
    sure: Option<u64>,
}

/// A stack of cached blocks just before a word was watched.
#[derive(Debug, Clone, Default)]
pub struct Before {
    word: Option<u64>,
    /// The last one is the first that was ever put on it.
    blocks: Vec<u64>,
}

impl Before {
    /// Reads what an allocation may take before its registers show it.
    pub fn read(head: &CacheHead, memory: &dyn Memory) -> Self {
        let HeadForm::StackCount { end, blocks_max } = head.form else { return Self::default() };
        let word = memory.read_u32(head.address).ok().map(u64::from).filter(|count| *count <= blocks_max);
        let blocks = word.and_then(|count| read_stack(end, count, memory));
        Self { word, blocks: blocks.unwrap_or_default() }
    }
}

/// What has been learnt of the instructions that move the words.
#[derive(Debug, Default)]
pub struct PcTable {
    votes: HashMap<u64, PcVotes>,
    code: HashMap<u64, Vec<u8>>,
}

impl PcTable {
    /// Tells what each hit on `head` was. `memory` is the running target's.
    pub fn classify(
        &mut self,
        head: &CacheHead,
        before: &Before,
        hits: &[Hit],
        memory: &dyn Memory,
    ) -> Vec<HitKind> {
        let changes = self.changes(head, before.word, hits, memory);
        let mut moves = match head.form {
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
        self.follow_stack(hits, &changes, before, &mut moves);
        self.vote(hits, &moves);
        if matches!(head.form, HeadForm::List { frees_elsewhere: false }) {
            self.vote_by_pairs(hits, &changes);
        }
        hits.iter().zip(moves).map(|(hit, moved)| self.kind(hit, moved)).collect()
    }

    fn changes(
        &mut self,
        head: &CacheHead,
        mut before: Option<u64>,
        hits: &[Hit],
        memory: &dyn Memory,
    ) -> Vec<Change> {
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
        let side = moved.side.or_else(|| votes.side());
        let general = hit.registers.general();
        let candidate = moved.block.filter(|block| *block != 0);
        let found =
            candidate.and_then(|block| Some((block, general.iter().position(|value| *value == block)?)));
        if let Some(count) = found.and_then(|(_, register)| votes.block_in.get_mut(register)) {
            *count += 1;
        }
        match side {
            Some(Side::Allocation) => {}
            Some(Side::Free) => return HitKind::Free,
            Some(Side::Neither) | None => return HitKind::Unknown,
        }
        let usual = || votes.usual_register().and_then(|register| general.get(register).copied());
        let block = found
            .map(|(block, _)| block)
            // Code that was not optimised keeps it on the stack.
            .or_else(|| candidate.filter(|block| is_near(hit, *block)))
            .or(moved.sure)
            .or_else(usual);
        block.map_or(HitKind::Unknown, |block| HitKind::Allocation { block })
    }

    /// Where the code moves the count before it reads the block, the block is what lay on the stack before, or was put there
    /// since.
    fn follow_stack(&self, hits: &[Hit], changes: &[Change], before: &Before, moves: &mut [Move]) {
        let mut stack = before.clone();
        for ((hit, change), moved) in hits.iter().zip(changes).zip(moves) {
            let is_gapless = stack.word.is_some() && stack.word == change.before;
            match moved.side {
                Some(Side::Allocation) if is_gapless && !stack.blocks.is_empty() => {
                    moved.sure = Some(stack.blocks.remove(0)).filter(|block| *block != 0);
                }
                Some(Side::Free) if is_gapless => {
                    let votes = self.votes.get(&hit.registers.program_counter);
                    let register = votes.and_then(PcVotes::usual_register);
                    let block = register.and_then(|register| hit.registers.general().get(register));
                    stack.blocks.insert(0, block.copied().unwrap_or(0));
                }
                _ => stack.blocks.clear(),
            }
            stack.word = change.after;
        }
    }
}

/// The `count` blocks of a stack that grows down from `end`, the one that is taken next first.
fn read_stack(end: u64, count: u64, memory: &dyn Memory) -> Option<Vec<u64>> {
    let count = count.min(CACHED_MAX);
    memory.read_words(end.wrapping_sub(count * 8), usize::try_from(count).ok()?).ok()
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
    let stack = deepest.and_then(|count| read_stack(end, count + 1, memory)).unwrap_or_default();
    let at_depth = |depth: u64| {
        let from_end = usize::try_from(depth).ok()?;
        stack.len().checked_sub(from_end).and_then(|at| stack.get(at)).copied()
    };
    let moved = |change: &Change| {
        let (before, after) = (change.before.and_then(count), change.after.and_then(count));
        let step = match (before, after) {
            (Some(before), Some(after)) => Some(after.wrapping_sub(before).cast_signed()),
            _ => change.step,
        };
        let side = step.map(|step| match step {
            -1 => Side::Allocation,
            1 => Side::Free,
            _ => Side::Neither,
        });
        let above = after.and_then(|after| at_depth(after + 1));
        let top = after.and_then(at_depth);
        // Of a free it is the one on top, of an allocation the one above.
        let block = if side == Some(Side::Free) { top } else { above };
        Move { side, block, sure: None }
    };
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
        |(hit, change): (&Hit, &Change)| Move { side: side(hit, change), block: change.before, sure: None };
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
        Hit { tid: 1, time_ns: 0, address: HEAD, registers, stack: Vec::new() }
    }

    fn list(frees_elsewhere: bool) -> CacheHead {
        CacheHead { tid: 1, address: HEAD, block_bytes: 104, form: HeadForm::List { frees_elsewhere } }
    }

    #[test]
    fn instructions_of_a_list_are_told_apart_by_what_follows_what() {
        let mut table = PcTable::default();
        // A list a, b, c: a is taken, x is given back, x is taken, b is taken.
        let (a, b, c, x) = (0xa0, 0xb0, 0xc0, 0xf0);
        let hits =
            [hit(FREE, a, a), hit(MALLOC, b, a), hit(FREE, x, b), hit(MALLOC, b, x), hit(MALLOC, c, b)];
        let kinds = table.classify(&list(false), &Before::default(), &hits, &Code);
        assert_eq!(kinds[1], HitKind::Allocation { block: a });
        assert_eq!(kinds[2], HitKind::Free);
        assert_eq!(kinds[3], HitKind::Allocation { block: x });
        assert_eq!(kinds[4], HitKind::Allocation { block: b });
    }

    #[test]
    fn an_end_of_a_list_is_an_allocation_and_a_beginning_is_none() {
        let mut table = PcTable::default();
        let hits = [hit(FREE, 0xa0, 0), hit(MALLOC, 0, 0xa0), hit(FREE, 0xb0, 0)];
        let kinds = table.classify(&list(false), &Before::default(), &hits, &Code);
        assert_eq!(kinds[1..], [HitKind::Allocation { block: 0xa0 }, HitKind::Free]);
        // The same instructions are known from now on.
        let kinds = table.classify(
            &list(false),
            &Before::default(),
            &[hit(FREE, 0xa0, 0), hit(MALLOC, 0xb0, 0xa0)],
            &Code,
        );
        assert_eq!(kinds, [HitKind::Free, HitKind::Allocation { block: 0xa0 }]);
    }

    #[test]
    fn refills_of_a_list_that_frees_do_not_move_are_neither() {
        let mut table = PcTable::default();
        let hits = [hit(MALLOC, 0, 0xa0), hit(FREE, 0xb0, 0), hit(MALLOC, 0xc0, 0xb0)];
        let kinds = table.classify(&list(true), &Before::default(), &hits, &Code);
        assert_eq!(kinds[1..], [HitKind::Unknown, HitKind::Allocation { block: 0xb0 }]);
    }
}
