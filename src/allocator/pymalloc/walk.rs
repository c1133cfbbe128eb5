//! The walk: every pool of every arena once, its blocks told free or not by its list.

use super::Pymalloc;
use super::arena::Arena;
use super::layout::POOL_HEADER_BYTES;
use super::pool::{Found, Pool};
use crate::allocator::records::RecordMap;
use crate::allocator::{Anomalies, Claim, ClaimKind, Run, RunClass, Sink, WalkOutcome};
use crate::memory::Memory;
use heaptap_platform::AddressRange;

/// Walks everything that `memory` shows of `pymalloc`.
pub fn walk(pymalloc: &Pymalloc, memory: &dyn Memory, sink: &mut dyn Sink) -> WalkOutcome {
    let mut walk = Walk {
        pymalloc,
        memory,
        sink,
        anomalies: Anomalies::default(),
        outcome: WalkOutcome { complete: true, shards: vec![0], ..WalkOutcome::default() },
        tally: Tally::default(),
    };
    match pymalloc.arenas(memory) {
        Some((arenas, _)) => {
            walk.tally.arenas = arenas.len() as u64;
            arenas.iter().for_each(|arena| walk.arena(arena));
        }
        None => walk.broken(pymalloc.root.start, "the array of arenas cannot be read"),
    }
    walk.finish()
}

/// Where the headers of pools and the links of free blocks lie.
pub fn records(pymalloc: &Pymalloc, memory: &dyn Memory) -> RecordMap {
    let mut records = RecordMap::default();
    let (arenas, _) = pymalloc.arenas(memory).unwrap_or_default();
    for address in arenas.iter().flat_map(|arena| arena.pools(&pymalloc.layout)) {
        for word in (address..address + POOL_HEADER_BYTES).step_by(8) {
            records.mark(word, true);
        }
        if let Found::Used(pool) = Found::read(memory, &pymalloc.layout, address) {
            pool.blocks(memory, &mut |block| records.mark(block, true));
        }
    }
    records
}

/// What is added up in `CPython`'s own terms.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    arenas: u64,
    pools: u64,
    used_blocks: u64,
    used_bytes: u64,
    available_bytes: u64,
    doubtful: u64,
}

struct Walk<'a> {
    pymalloc: &'a Pymalloc,
    memory: &'a dyn Memory,
    sink: &'a mut dyn Sink,
    anomalies: Anomalies,
    outcome: WalkOutcome,
    tally: Tally,
}

impl Walk<'_> {
    fn arena(&mut self, arena: &Arena) {
        let layout = &self.pymalloc.layout;
        let mut free_pools = 0;
        for address in arena.pools(layout) {
            self.outcome.structures_checked += 1;
            let range = AddressRange { start: address, end: address + layout.pool_bytes };
            match Found::read(self.memory, layout, address) {
                Found::Free => {
                    free_pools += 1;
                    self.claim(range, ClaimKind::Dirty);
                }
                Found::Used(pool) if pool.arena == arena.index => {
                    self.claim(pool.range(layout), ClaimKind::InUse);
                    self.pool(&pool);
                }
                Found::Used(_) => self.stray(range, "a pool says that it is in another arena"),
                Found::Broken(why) => self.stray(range, why),
            }
        }
        let pools = arena.cut.len_bytes() / layout.pool_bytes;
        self.count(arena, pools - free_pools);
        self.claim(AddressRange { start: arena.range.start, end: arena.cut.start }, ClaimKind::Dirty);
        self.claim(AddressRange { start: arena.cut.end, end: arena.range.end }, ClaimKind::Dirty);
    }

    /// An arena counts its pools: whether all of them were met.
    fn count(&mut self, arena: &Arena, found: u64) {
        self.outcome.cells_compared += 1;
        if found == arena.used_pools {
            return;
        }
        self.outcome.cells_differing += 1;
        let (start, counted) = (arena.range.start, arena.used_pools);
        self.outcome
            .notes
            .push(format!("arena {start:#x}: {found} pools found, {counted} by its own counter"));
        // The interpreter may have been taking a pool or giving one back.
        if counted > found + 1 {
            self.anomalies.add(start, "an arena has pools that were not found");
            self.outcome.complete = false;
        }
    }

    /// A place where no pool can be made out.
    fn stray(&mut self, range: AddressRange, why: &str) {
        self.claim(range, ClaimKind::InUse);
        if self.memory.is_of_the_moment(range.start) {
            self.broken(range.start, why);
        } else {
            self.tally.doubtful += 1;
        }
    }

    fn pool(&mut self, pool: &Pool) {
        let blocks = pool.blocks(self.memory, &mut |_| {});
        let differing = pool.used.abs_diff(pool.capacity - blocks.free);
        if let Some((address, why)) = blocks.broken {
            if blocks.is_of_the_moment {
                self.broken(address, why);
                return;
            }
            self.tally.doubtful += pool.capacity;
        } else if !blocks.is_certain {
            self.tally.doubtful += differing.max(1);
        }
        self.outcome.cells_compared += 1;
        if differing > 0 && self.memory.is_of_one_moment() {
            self.outcome.cells_differing += 1;
            self.outcome.blocks_in_motion_max += differing;
            self.anomalies
                .add(pool.address, "the list of a pool and its counter were in the middle of a change");
        }
        self.tally.pools += 1;
        self.tally.used_blocks += pool.used;
        self.tally.used_bytes += pool.used * pool.block_bytes;
        self.tally.available_bytes += (pool.room - pool.used) * pool.block_bytes;
        self.deliver(pool, &blocks.live);
    }

    fn deliver(&mut self, pool: &Pool, live: &[u64]) {
        let class = RunClass {
            block_bytes: pool.block_bytes,
            run_bytes: pool.room * pool.block_bytes,
            blocks: u32::try_from(pool.room).unwrap_or(u32::MAX),
        };
        let classes = &mut self.outcome.run_classes;
        let index = classes.iter().position(|known| *known == class).unwrap_or_else(|| {
            classes.push(class);
            classes.len() - 1
        });
        let class = u16::try_from(index).unwrap_or(u16::MAX);
        let cached = vec![0; live.len()];
        self.sink.run(Run { address: pool.start(), class, shard: 0, serial: 0, live, cached: &cached });
    }

    fn broken(&mut self, address: u64, why: &str) {
        self.outcome.structures_broken += 1;
        self.outcome.complete = false;
        self.anomalies.add(address, why);
    }

    fn claim(&mut self, range: AddressRange, kind: ClaimKind) {
        if !range.is_empty() {
            self.outcome.claims.push(Claim { range, kind });
        }
    }

    fn finish(mut self) -> WalkOutcome {
        if self.tally.doubtful > 0 {
            let doubtful = self.tally.doubtful;
            self.outcome
                .notes
                .push(format!("up to {doubtful} blocks were changing and could not be verified"));
            self.outcome.blocks_in_motion_max += doubtful;
        }
        self.outcome.metadata_bytes = Some(self.tally.pools * POOL_HEADER_BYTES);
        self.outcome.own_figures = vec![
            ("arenas", self.tally.arenas),
            ("pools", self.tally.pools),
            ("allocated_blocks", self.tally.used_blocks),
            ("allocated_bytes", self.tally.used_bytes),
            ("available_bytes", self.tally.available_bytes),
        ];
        self.outcome.anomalies = self.anomalies.into_vec();
        self.outcome
    }
}
