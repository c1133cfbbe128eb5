//! Proof: the sums of the walk against the library's own counters.

use super::Glibc;
use super::arena::Arena;
use super::mmapped::Proved;
use super::walk::Tally;
use crate::allocator::WalkOutcome;
use crate::memory::Memory;

/// Compares all counters that there are, and adds the figures of `mallinfo2` as the walk found them.
pub fn compare(
    glibc: &Glibc,
    memory: &dyn Memory,
    arenas: &[Arena],
    tally: &Tally,
    outcome: &mut WalkOutcome,
) {
    for arena in arenas {
        let walked = usize::try_from(arena.index).ok().and_then(|index| tally.walked_bytes.get(index));
        let walked = walked.copied().unwrap_or_default();
        let what = format!("bytes of arena {}", arena.index);
        cell(outcome, &what, walked, arena.system_bytes);
    }
    let proved = glibc.proved_mmapped(memory).unwrap_or_default();
    compare_mmapped(glibc, memory, &proved, outcome);
    if tally.marked_live > 0 {
        outcome.notes.push(format!(
            "{} blocks counted as live carry the mark of cached ones: they were cached once, or are in the cache of a \
             thread that was not found",
            tally.marked_live
        ));
    }
    if glibc.layout.tcache.is_some() && glibc.slots.is_none() {
        outcome.notes.push("no thread's data was found: blocks in thread caches count as live".to_owned());
        outcome.caches_unknown = true;
    }
    outcome.own_figures = figures(arenas, tally, &proved);
    outcome.metadata_bytes = Some(arenas.len() as u64 * glibc.layout.arena_bytes());
}

fn cell(outcome: &mut WalkOutcome, what: &str, found: u64, counted: u64) {
    outcome.cells_compared += 1;
    if found != counted {
        outcome.cells_differing += 1;
        outcome.notes.push(format!("{what}: {found} walked, {counted} by the library's own counter"));
    }
}

fn compare_mmapped(glibc: &Glibc, memory: &dyn Memory, proved: &Proved, outcome: &mut WalkOutcome) {
    let Some(parameters) = glibc.parameters(memory) else {
        outcome.notes.push(
            "the allocator's parameters were not found: blocks with a mapping of their own are missing"
                .to_owned(),
        );
        outcome.complete = false;
        return;
    };
    cell(
        outcome,
        "blocks with a mapping of their own",
        proved.chunks.len() as u64,
        u64::from(parameters.n_mmaps),
    );
    outcome.complete &= proved.count_agrees;
    outcome.cells_compared += 1;
    if !proved.bytes_agree {
        outcome.cells_differing += 1;
        outcome
            .notes
            .push("bytes of blocks with a mapping of their own differ from the own counter".to_owned());
    }
}

/// The fields of `mallinfo2`, by the walk.
fn figures(arenas: &[Arena], tally: &Tally, proved: &Proved) -> Vec<(&'static str, u64)> {
    let arena_bytes: u64 = tally.walked_bytes.iter().sum();
    let free_bytes = tally.free.1 + tally.fast.1 + tally.top.0;
    let mmapped_bytes: u64 = proved.chunks.iter().map(|whole| whole.end - whole.start).sum();
    vec![
        ("arena", arena_bytes),
        ("ordblks", tally.free.0 + arenas.len() as u64),
        ("smblks", tally.fast.0),
        ("hblks", proved.chunks.len() as u64),
        ("hblkhd", mmapped_bytes),
        ("fsmblks", tally.fast.1),
        ("uordblks", arena_bytes.saturating_sub(free_bytes)),
        ("fordblks", free_bytes),
        ("keepcost", tally.top.1),
    ]
}
