//! What stands between a figure and its being believed, as sentences.
//!
//! Every report prints them before its tables, and a snapshot that is not whole makes the exit code 1.

use super::page::{Page, Tone};
use super::quantity::{bytes, count, signed_bytes};
use crate::snapshot::schema::{AllocatorSummary, LiveBound, Summary};
use std::io::{self, Write};

/// Kinds of anomalies told of each allocator, unless everything is asked for.
const ANOMALIES_MAX: usize = 5;

/// Whether something that belongs into the summary is not in it, or contradicts it.
pub fn is_partial(summary: &Summary) -> bool {
    !summary.missing.is_empty()
        || !resident_adds_up(summary)
        || summary.allocators.iter().any(|allocator| !allocator.complete || !allocator.verified)
}

/// Whether the uses of resident memory sum to the kernel's figure, where there is one.
pub fn resident_adds_up(summary: &Summary) -> bool {
    let is_sum = |kernel_bytes: u64| i64::try_from(kernel_bytes) == Ok(resident_sum(summary));
    summary.resident.is_empty() || summary.resident_bytes.is_none_or(is_sum)
}

/// The sum of all uses of resident memory.
pub fn resident_sum(summary: &Summary) -> i64 {
    summary.resident.iter().fold(0, |sum, row| sum.saturating_add(row.bytes))
}

/// All doubts about one moment.
pub fn of_summary(summary: &Summary, page: &Page) -> Vec<String> {
    let mut doubts = Vec::new();
    if summary.allocators.is_empty() {
        doubts.push("no supported allocator was found: blocks could not be counted".to_owned());
    }
    for allocator in &summary.allocators {
        doubts.extend(of_counts(allocator));
        doubts.extend(of_anomalies(allocator, page));
    }
    if !resident_adds_up(summary) {
        let kernel_bytes = summary.resident_bytes.unwrap_or(0);
        doubts.push(format!(
            "resident memory does not add up: the parts sum to {}, the kernel says {}",
            signed_bytes(resident_sum(summary), page.sizes),
            bytes(kernel_bytes, page.sizes)
        ));
    }
    doubts.extend(summary.missing.iter().cloned());
    doubts
}

fn of_counts(allocator: &AllocatorSummary) -> Vec<String> {
    let name = &allocator.name;
    let mut doubts = Vec::new();
    if !allocator.complete {
        doubts.push(format!("{name}: partial: {}", LiveBound::describe(allocator.live_bound)));
    }
    if allocator.cells_differing > 0 {
        doubts.push(format!(
            "{name}: {} of {} cells differ from its own counters",
            count(allocator.cells_differing),
            count(allocator.cells_compared)
        ));
    } else if allocator.complete
        && !allocator.verified
        && allocator.anomalies.is_empty()
        && allocator.blocks_in_motion_max == 0
    {
        doubts.push(format!("{name}: its counts could not be verified"));
    }
    if allocator.blocks_in_motion_max > 0 {
        doubts.push(format!(
            "{name}: up to {} blocks were in motion at the stop, its counts may be off by so many",
            count(allocator.blocks_in_motion_max)
        ));
    }
    doubts
}

fn of_anomalies(allocator: &AllocatorSummary, page: &Page) -> Vec<String> {
    let told_max = if page.verbose { usize::MAX } else { ANOMALIES_MAX };
    let mut doubts: Vec<String> = allocator
        .anomalies
        .iter()
        .take(told_max)
        .map(|anomaly| {
            let times = match anomaly.count {
                0 | 1 => String::new(),
                n => format!(" (the first of {})", count(n)),
            };
            format!("{}: anomaly at {:#x}: {}{times}", allocator.name, anomaly.address, anomaly.what)
        })
        .collect();
    let untold = allocator.anomalies.len().saturating_sub(told_max);
    if untold > 0 {
        doubts.push(format!(
            "{}: {} more kinds of anomaly, listed with --verbose",
            allocator.name,
            count(untold as u64)
        ));
    }
    doubts
}

/// Writes doubts, one a line, each marked.
pub fn write(out: &mut dyn Write, page: &Page, doubts: &[String]) -> io::Result<()> {
    for doubt in doubts {
        page.write_sentence(out, Tone::Warning, "! ", doubt)?;
    }
    Ok(())
}
