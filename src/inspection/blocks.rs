//! Blocks by address and by class, of all allocators of one moment.

use super::schema::Block;
use crate::allocator::{Claim, ClaimKind};
use crate::census::Walked;
use crate::snapshot::{Liveness, RunView};
use std::collections::BTreeSet;

/// A block and the allocator that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Index of the allocator.
    pub allocator: usize,
    /// The block, without its type.
    pub block: Block,
}

/// All blocks of one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks<'a> {
    pub walked: &'a [Walked],
}

impl<'a> Blocks<'a> {
    /// The block that holds `address`.
    pub fn at(&self, address: u64) -> Option<Found> {
        self.walked.iter().enumerate().find_map(|(allocator, walk)| {
            // What the allocator took for itself is not live by its runs.
            let block = own(walk, address)
                .or_else(|| in_runs(&walk.liveness, address))
                .or_else(|| in_large(&walk.liveness, address))?;
            Some(Found { allocator, block })
        })
    }

    /// The nearest block of one allocator that ends at or before `address`.
    pub fn before(&self, allocator: usize, address: u64) -> Option<Block> {
        let table = &self.walked.get(allocator)?.liveness;
        let run = table.runs.address.partition_point(|start| *start < address).checked_sub(1);
        let in_run = run.and_then(|index| {
            let (view, class) = run_at(table, index)?;
            let after = (address - view.address).div_ceil(class.block_bytes.max(1));
            let last = after.min(u64::from(class.blocks)).checked_sub(1)?;
            let last = if view.address + (last + 1) * class.block_bytes > address {
                last.checked_sub(1)?
            } else {
                last
            };
            Some(of_run(table, &view, u32::try_from(last).ok()?))
        });
        let large = table.large.blocks.partition_point(|block| block.address < address).checked_sub(1);
        let large = large.and_then(|index| table.large.blocks.get(index)).map(of_large);
        let fits = |block: &Block| block.address.saturating_add(block.usable_bytes) <= address;
        [in_run, large].into_iter().flatten().filter(fits).max_by_key(|block| block.address)
    }

    /// The nearest block of one allocator that begins at or behind `address`.
    pub fn after(&self, allocator: usize, address: u64) -> Option<Block> {
        let table = &self.walked.get(allocator)?.liveness;
        let next = table.runs.address.partition_point(|start| *start < address);
        let inside = next.checked_sub(1).and_then(|index| {
            let (view, class) = run_at(table, index)?;
            let number = (address - view.address).div_ceil(class.block_bytes.max(1));
            let number = u32::try_from(number).ok().filter(|number| *number < class.blocks)?;
            Some(of_run(table, &view, number))
        });
        let of_next = run_at(table, next).map(|(view, _)| of_run(table, &view, 0));
        let large = table.large.blocks.partition_point(|block| block.address < address);
        let large = table.large.blocks.get(large).map(of_large);
        [inside, of_next, large].into_iter().flatten().min_by_key(|block| block.address)
    }

    /// The allocator that holds `address`, and what for.
    pub fn claim(&self, address: u64) -> Option<(usize, ClaimKind)> {
        let holds = |claim: &&Claim| claim.range.contains(address);
        self.walked.iter().enumerate().find_map(|(allocator, walk)| {
            walk.outcome.claims.iter().find(holds).map(|claim| (allocator, claim.kind))
        })
    }

    /// Visits every live block of a class: those whose class is `size_bytes`.
    pub fn of_class(&self, size_bytes: u64, shard: Option<u32>, visit: &mut dyn FnMut(usize, u64, u64)) {
        let is_wanted = |found: u32| shard.is_none_or(|wanted| wanted == found);
        for (allocator, walk) in self.walked.iter().enumerate() {
            let table = &walk.liveness;
            for run in table.runs.view(0..table.runs.len()) {
                let class = table.run_classes.get(usize::from(run.class));
                let Some(class) = class.filter(|class| class.block_bytes == size_bytes) else { continue };
                if is_wanted(run.shard) {
                    for (word, bits) in (0_u64..).zip(run.words) {
                        for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
                            let number = word * 64 + bit;
                            visit(allocator, run.address + number * class.block_bytes, class.block_bytes);
                        }
                    }
                }
            }
            for block in table.large.blocks.iter().filter(|block| !block.cached && is_wanted(block.shard)) {
                if block.class_bytes == size_bytes {
                    visit(allocator, block.address, block.usable_bytes);
                }
            }
        }
    }

    /// All size classes that have a run or a block.
    pub fn classes(&self) -> BTreeSet<u64> {
        let tables = || self.walked.iter().map(|walk| &walk.liveness);
        let of_runs = tables().flat_map(|table| {
            let class = |index: &u16| table.run_classes.get(usize::from(*index));
            table.runs.class.iter().collect::<BTreeSet<_>>().into_iter().filter_map(class)
        });
        let large = tables().flat_map(|table| &table.large.blocks).map(|block| block.class_bytes);
        of_runs.map(|class| class.block_bytes).chain(large).filter(|class| *class > 0).collect()
    }
}

/// Whether the place of a block was live in a table.
pub(super) fn was_live(table: &Liveness, address: u64) -> bool {
    let found = in_runs(table, address).or_else(|| in_large(table, address));
    found.is_some_and(|block| block.address == address && block.state == "live")
}

fn run_at(table: &Liveness, index: usize) -> Option<(RunView<'_>, crate::allocator::RunClass)> {
    let view = table.runs.view(index..index + 1).next()?;
    Some((view, *table.run_classes.get(usize::from(view.class))?))
}

fn in_runs(table: &Liveness, address: u64) -> Option<Block> {
    let index = table.runs.address.partition_point(|start| *start <= address).checked_sub(1)?;
    let (view, class) = run_at(table, index)?;
    let number = u32::try_from((address - view.address) / class.block_bytes.max(1)).ok()?;
    (number < class.blocks).then(|| of_run(table, &view, number))
}

fn of_run(table: &Liveness, run: &RunView<'_>, number: u32) -> Block {
    let class = table.run_classes.get(usize::from(run.class));
    let block_bytes = class.map_or(0, |class| class.block_bytes);
    let word = usize::try_from(number / 64).ok().and_then(|word| run.words.get(word));
    let is_live = word.is_some_and(|word| word >> (number % 64) & 1 == 1);
    let is_cached = table.runs.cached.binary_search(&(run.address, number)).is_ok();
    Block {
        address: run.address + u64::from(number) * block_bytes,
        usable_bytes: block_bytes,
        size_bytes: block_bytes,
        shard: run.shard,
        state: match (is_live, is_cached) {
            (true, _) => "live",
            (false, true) => "cached",
            (false, false) => "free",
        }
        .to_owned(),
        run_address: Some(run.address),
        run_index: Some(number),
        run_blocks: class.map(|class| class.blocks),
        run_live_blocks: u32::try_from(run.live_blocks()).ok(),
        ..Block::default()
    }
}

fn in_large(table: &Liveness, address: u64) -> Option<Block> {
    let blocks = &table.large.blocks;
    let index = blocks.partition_point(|block| block.address <= address).checked_sub(1)?;
    let block = blocks.get(index)?;
    (address - block.address < block.usable_bytes.max(1)).then(|| of_large(block))
}

fn of_large(block: &crate::allocator::Block) -> Block {
    Block {
        address: block.address,
        usable_bytes: block.usable_bytes,
        size_bytes: block.class_bytes,
        shard: block.shard,
        state: if block.cached { "cached" } else { "live" }.to_owned(),
        ..Block::default()
    }
}

/// A block that the allocator uses itself.
fn own(walk: &Walked, address: u64) -> Option<Block> {
    let holds = |own: &&crate::allocator::Overhead| {
        address >= own.address && address - own.address < own.usable_bytes.max(1)
    };
    walk.outcome.overhead.iter().find(holds).map(|own| Block {
        address: own.address,
        usable_bytes: own.usable_bytes,
        size_bytes: own.class_bytes,
        shard: own.shard,
        state: "overhead".to_owned(),
        ..Block::default()
    })
}
