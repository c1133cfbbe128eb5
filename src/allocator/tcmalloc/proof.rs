//! Proof: the sums of the walk against the allocator's own counters.

use super::Tcmalloc;
use super::central::CentralList;
use super::counters::Counters;
use super::walk::Tally;
use crate::allocator::WalkOutcome;
use crate::memory::Memory;

/// Compares all counters that there are, and adds the figures of `MallocExtension` as the walk found them.
pub fn compare(
    tcmalloc: &Tcmalloc,
    memory: &dyn Memory,
    central: &[CentralList],
    tally: &Tally,
    outcome: &mut WalkOutcome,
) {
    for list in central {
        let found = |counts: &[u64]| {
            usize::try_from(list.class).ok().and_then(|class| counts.get(class)).copied().unwrap_or(0)
        };
        let size_bytes = tcmalloc.sizes.class(list.class).map_or(0, |class| class.size_bytes);
        cell(outcome, &format!("spans of objects of {size_bytes} bytes"), found(&tally.spans), list.spans);
        cell(outcome, &format!("free objects of {size_bytes} bytes"), found(&tally.central), list.free);
    }
    match Counters::read(memory, &tcmalloc.page_map) {
        Some(counters) => {
            cell(outcome, "bytes from the system", tally.system_bytes, counters.system_bytes);
            cell(outcome, "bytes of free spans", tally.normal_bytes, counters.free_bytes);
            cell(outcome, "bytes of free spans given back", tally.returned_bytes, counters.unmapped_bytes);
        }
        None => {
            outcome
                .notes
                .push("the page heap's own counters were not found: nothing checks its spans".to_owned());
            outcome.complete = false;
        }
    }
    outcome.own_figures = figures(tcmalloc, tally);
}

fn cell(outcome: &mut WalkOutcome, what: &str, found: u64, counted: u64) {
    outcome.cells_compared += 1;
    if found != counted {
        outcome.cells_differing += 1;
        outcome.notes.push(format!("{what}: {found} walked, {counted} by the allocator's own counter"));
    }
}

/// The properties of `MallocExtension`, by the walk.
fn figures(tcmalloc: &Tcmalloc, tally: &Tally) -> Vec<(&'static str, u64)> {
    let page_shift = tcmalloc.page_map.geometry.page_shift;
    let (mut central_bytes, mut transfer_bytes) = (0, 0);
    let counts = tally.spans.iter().zip(&tally.central).zip(&tally.transfer);
    for (class, ((spans, central), transfer)) in tcmalloc.sizes.classes.iter().zip(counts).skip(1) {
        // What is left at the end of a span counts as the central list's.
        let rest = (class.pages << page_shift).checked_rem(class.size_bytes).unwrap_or(0);
        central_bytes += central * class.size_bytes + spans * rest;
        transfer_bytes += transfer * class.size_bytes;
    }
    let kept = tally.normal_bytes + tally.returned_bytes;
    let not_in_use = kept + central_bytes + transfer_bytes + tally.thread_bytes;
    vec![
        ("generic.current_allocated_bytes", tally.system_bytes.saturating_sub(not_in_use)),
        ("generic.heap_size", tally.system_bytes),
        ("tcmalloc.central_cache_free_bytes", central_bytes),
        ("tcmalloc.transfer_cache_free_bytes", transfer_bytes),
        ("tcmalloc.thread_cache_free_bytes", tally.thread_bytes),
        ("tcmalloc.current_total_thread_cache_bytes", tally.thread_bytes),
        ("tcmalloc.pageheap_free_bytes", tally.normal_bytes),
        ("tcmalloc.pageheap_unmapped_bytes", tally.returned_bytes),
        ("tcmalloc.pageheap_committed_bytes", tally.system_bytes.saturating_sub(tally.returned_bytes)),
        ("tcmalloc.slack_bytes", kept),
    ]
}
