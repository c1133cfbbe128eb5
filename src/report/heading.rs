//! The lines above and below the tables: whose moment it is, how sure it is, what it cost the target.

use super::clock::date_and_time;
use super::page::{Page, Tone, harmless};
use super::quantity::{count, millis};
use crate::allocator::Provenance;
use crate::snapshot::schema::{AllocatorSummary, Summary, Target};
use std::io::{self, Write};

/// The short name of the executable.
pub fn executable(target: &Target) -> String {
    harmless(target.exe.rsplit('/').find(|part| !part.is_empty()).unwrap_or("?"))
}

/// The process's own name; that of its executable too where it has another, and alone where it is only longer.
pub fn program(target: &Target) -> String {
    let file = executable(target);
    harmless(&if file.starts_with(&target.name) { file } else { format!("{} ({file})", target.name) })
}

/// `redis-server  pid 4121  linux x86_64  8 threads  2026-11-23 09:14:05 UTC`.
pub fn write_target(out: &mut dyn Write, page: &Page, summary: &Summary) -> io::Result<()> {
    write_moment(out, page, &summary.target, summary.taken_at)
}

/// The same of a moment that has no summary.
pub fn write_moment(out: &mut dyn Write, page: &Page, target: &Target, taken_at: f64) -> io::Result<()> {
    writeln!(
        out,
        "{}  pid {}  {} {}  {}  {} UTC",
        page.paint(Tone::Heading, &program(target)),
        target.pid,
        harmless(&target.os),
        harmless(&target.arch),
        things(u64::from(target.threads), "thread"),
        date_and_time(taken_at),
    )
}

/// `jemalloc 5.3.0 in /usr/lib/libjemalloc.so.2`.
pub fn allocator(allocator: &AllocatorSummary) -> String {
    let place = if allocator.module.is_empty() { String::new() } else { format!(" in {}", allocator.module) };
    harmless(&format!("{} {}{place}", allocator.name, allocator.version))
}

/// How the layout of an allocator's structures was learnt, in words.
pub const fn provenance(provenance: Provenance) -> &'static str {
    match provenance {
        Provenance::Dwarf => "debug information of the target",
        Provenance::Symbols => "symbols of the target and the layout of its version",
        Provenance::Probed => "probing: no symbols were needed",
    }
}

/// What was checked, as one clause: `412,873 structures checked, 1,204 cells equal to its own counters`.
pub fn checks(allocator: &AllocatorSummary) -> String {
    let structures = format!("{} checked", things(allocator.structures_checked, "structure"));
    let compared = allocator.cells_compared;
    let cells = if compared == 0 {
        "no counters to compare with".to_owned()
    } else if allocator.cells_differing == 0 {
        format!("{} equal to its own counters", things(compared, "cell"))
    } else {
        format!("{} of {} differ", count(allocator.cells_differing), things(compared, "cell"))
    };
    format!("{structures}, {cells}")
}

/// What taking this moment cost the target.
pub fn pause(summary: &Summary, budget_ms: Option<f64>) -> String {
    if summary.target.kind == "core" {
        return "read from a core file: nothing was stopped".to_owned();
    }
    let stops = if summary.stops > 1 { format!(" at most, {} times", summary.stops) } else { String::new() };
    let budget = budget_ms.map_or_else(String::new, |budget_ms| format!(" (budget {budget_ms} ms)"));
    let over = match budget_ms {
        Some(budget_ms) if summary.pause_ms > budget_ms => ", over budget",
        _ => "",
    };
    format!("target stopped for {}{stops}{budget}{over}", millis(summary.pause_ms))
}

/// A number of things in words: `1 thread`, `8 threads`.
pub fn things(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{} {thing}s", count(number)) }
}
