//! What resident memory is used for, as rows that sum to the kernel's figure.

use super::doubt;
use super::page::{Page, Tone};
use super::quantity::{bytes, delta_bytes, percent, signed_bytes};
use super::table::{Align, Cell, Table};
use crate::growth::schema::ResidentDelta;
use crate::snapshot::schema::Summary;
use std::io::{self, Write};

/// A use of resident memory in words.
pub fn name(kind: &str) -> String {
    match kind {
        "live" => "live blocks".to_owned(),
        "cached" => "thread-cached blocks".to_owned(),
        "free_in_slabs" => "free in slabs".to_owned(),
        "dirty" => "dirty: free, not given back".to_owned(),
        "muzzy" => "muzzy: free, given back lazily".to_owned(),
        "retained" => "retained".to_owned(),
        "metadata" => "allocator metadata".to_owned(),
        "other_anonymous" => "other anonymous memory".to_owned(),
        "undivided" => "of allocators, not told page by page".to_owned(),
        "go_heap" => "Go heap".to_owned(),
        "java_heap" => "Java heap and compiled code".to_owned(),
        "v8_heap" => "V8 heap".to_owned(),
        "php_heap" => "PHP heap".to_owned(),
        "ruby_heap" => "Ruby heap".to_owned(),
        other => other.replace('_', " "),
    }
}

/// Writes the rows, their sum and what the kernel says.
pub fn write(out: &mut dyn Write, page: &Page, summary: &Summary) -> io::Result<()> {
    if summary.resident.is_empty() {
        return match summary.resident_bytes {
            Some(kernel_bytes) => {
                writeln!(out, "resident memory  {}, not broken down", bytes(kernel_bytes, page.sizes))
            }
            None => writeln!(out, "resident memory is not known"),
        };
    }
    let sum = doubt::resident_sum(summary);
    let mut table =
        Table::new([(Align::Left, "resident memory"), (Align::Right, "bytes"), (Align::Right, "share")]);
    for row in &summary.resident {
        table.push(vec![
            name(&row.kind).into(),
            signed_bytes(row.bytes, page.sizes).into(),
            share(row.bytes, sum).into(),
        ]);
    }
    table.rule();
    table.push(vec!["sum".into(), signed_bytes(sum, page.sizes).into()]);
    match summary.resident_bytes {
        Some(kernel_bytes) => {
            let tone = if i64::try_from(kernel_bytes) == Ok(sum) { Tone::Plain } else { Tone::Warning };
            let figure = bytes(kernel_bytes, page.sizes);
            table.push(vec!["the kernel's figure".into(), Cell::toned(tone, figure)]);
        }
        None => table.push(vec!["the kernel's figure".into(), "not known".into()]),
    }
    if let Some(swapped_bytes) = summary.swapped_bytes {
        table.push(vec!["in swap, beside it".into(), bytes(swapped_bytes, page.sizes).into()]);
    }
    table.write(out, page)
}

fn share(part_bytes: i64, whole_bytes: i64) -> String {
    match (u64::try_from(part_bytes), u64::try_from(whole_bytes)) {
        (Ok(part), Ok(whole)) => percent(part, whole),
        _ => String::new(),
    }
}

/// Writes what changed, and the change of the kernel's figure; nothing where none is known.
pub fn write_deltas(
    out: &mut dyn Write,
    page: &Page,
    deltas: &[ResidentDelta],
    kernel_delta_bytes: Option<i64>,
) -> io::Result<()> {
    if deltas.is_empty() && kernel_delta_bytes.is_none() {
        return Ok(());
    }
    let changed =
        |delta_bytes_: i64| Cell::toned(Tone::of_change(delta_bytes_), delta_bytes(delta_bytes_, page.sizes));
    let mut table = Table::new([(Align::Left, "resident memory"), (Align::Right, "delta bytes")]);
    for delta in deltas.iter().filter(|delta| delta.delta_bytes != 0) {
        table.push(vec![name(&delta.kind).into(), changed(delta.delta_bytes)]);
    }
    let sum = deltas.iter().fold(0_i64, |sum, delta| sum.saturating_add(delta.delta_bytes));
    if !deltas.is_empty() {
        table.rule();
        table.push(vec!["sum".into(), changed(sum)]);
    }
    if let Some(kernel_delta_bytes) = kernel_delta_bytes {
        table.push(vec!["the kernel's figure".into(), changed(kernel_delta_bytes)]);
    }
    writeln!(out)?;
    table.write(out, page)
}
