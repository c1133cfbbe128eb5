//! What a target is: its allocators, how sure their layout is, where its resident memory goes.

use super::doubt;
use super::heading::{self, things};
use super::page::{Page, Tone, harmless};
use super::quantity::{bytes, count};
use super::resident;
use crate::snapshot::schema::{AllocatorSummary, OtherHeap, Summary};
use std::io::{self, Write};

/// Columns of the names at the left.
const NAME_COLUMNS: usize = 12;

/// Writes what is known of a target.
pub fn write(out: &mut dyn Write, page: &Page, summary: &Summary, budget_ms: Option<f64>) -> io::Result<()> {
    heading::write_target(out, page, summary)?;
    fact(out, page, "executable", &harmless(&summary.target.exe))?;
    if let Some(build_id) = &summary.target.build_id {
        fact(out, page, "build id", build_id)?;
    }
    doubt::write(out, page, &doubt::of_summary(summary, page))?;
    for allocator in &summary.allocators {
        writeln!(out)?;
        write_allocator(out, page, allocator)?;
    }
    for heap in &summary.other_heaps {
        writeln!(out)?;
        write_other_heap(out, page, heap)?;
    }
    writeln!(out)?;
    resident::write(out, page, summary)?;
    writeln!(out)?;
    writeln!(out, "{}", heading::pause(summary, budget_ms))
}

fn write_allocator(out: &mut dyn Write, page: &Page, allocator: &AllocatorSummary) -> io::Result<()> {
    fact(out, page, "allocator", &heading::allocator(allocator))?;
    fact(out, page, "found by", heading::provenance(allocator.provenance))?;
    for sentence in &allocator.evidence {
        fact(out, page, "", sentence)?;
    }
    fact(out, page, "sure", &format!("{}: {}", verdict(allocator), heading::checks(allocator)))?;
    let used = allocator.shards.iter().filter(|shard| !shard.classes.is_empty()).count();
    let arenas = format!("{}, {} of them with blocks", allocator.shards.len(), used);
    fact(out, page, "arenas", &arenas)?;
    let blocks =
        |blocks, size_bytes| format!("{} in {}", bytes(size_bytes, page.sizes), things(blocks, "block"));
    fact(out, page, "live", &blocks(allocator.live_blocks, allocator.live_bytes))?;
    let cached = blocks(allocator.cached_blocks, allocator.cached_bytes);
    fact(out, page, "cached", &format!("{cached}, {}", things(allocator.thread_caches, "thread cache")))?;
    let overhead = blocks(allocator.overhead_blocks, allocator.overhead_bytes);
    fact(out, page, "overhead", &format!("{overhead} of the allocator's own"))?;
    fact(out, page, "metadata", &format!("{} read", bytes(allocator.metadata_bytes, page.sizes)))
}

fn write_other_heap(out: &mut dyn Write, page: &Page, heap: &OtherHeap) -> io::Result<()> {
    fact(out, page, "other heap", &format!("{} in {}, not walked", heap.name, harmless(&heap.module)))?;
    fact(out, page, "found by", &heap.evidence)?;
    let size = match heap.bytes {
        0 => "not known".to_owned(),
        address_bytes => format!("{} of address space", bytes(address_bytes, page.sizes)),
    };
    fact(out, page, "size", &size)
}

fn verdict(allocator: &AllocatorSummary) -> String {
    if !allocator.complete {
        "partial".to_owned()
    } else if !allocator.verified {
        "not verified".to_owned()
    } else if allocator.blocks_in_motion_max > 0 {
        format!("exact but for {} blocks in motion", count(allocator.blocks_in_motion_max))
    } else {
        "exact".to_owned()
    }
}

fn fact(out: &mut dyn Write, page: &Page, name: &str, sentence: &str) -> io::Result<()> {
    page.write_sentence(out, Tone::Plain, &format!("{name:<NAME_COLUMNS$}"), sentence)
}
