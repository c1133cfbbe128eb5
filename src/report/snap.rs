//! One moment as text: blocks by size class and by arena.

use super::doubt;
use super::heading::{self, things};
use super::page::{Page, Tone};
use super::quantity::{bytes, count, percent, size_class};
use super::rollup::{Grouping, Line, Place, lines};
use super::table::{Align, Cell, Table};
use super::types;
use crate::snapshot::schema::{AllocatorSummary, Summary};
use std::cmp::Reverse;
use std::io::{self, Write};

/// Which line stands on top.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Most live bytes first.
    #[default]
    LiveBytes,
    /// Most live blocks first.
    LiveBlocks,
    /// Largest size class first.
    SizeClass,
}

/// What is shown of a moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct View {
    /// One table with this grouping; without, a table by size class and one by arena.
    pub by: Option<Grouping>,
    /// Which line stands on top.
    pub order: Order,
    /// The pause that was allowed, where this moment was taken live.
    pub budget_ms: Option<f64>,
}

/// Writes the tables of a moment.
pub fn write(out: &mut dyn Write, page: &Page, view: &View, summary: &Summary) -> io::Result<()> {
    heading::write_target(out, page, summary)?;
    doubt::write(out, page, &doubt::of_summary(summary, page))?;
    for allocator in &summary.allocators {
        writeln!(out)?;
        write_allocator(out, page, view, allocator)?;
    }
    types::write(out, page, &summary.types)?;
    writeln!(out)?;
    write_totals(out, page, summary)?;
    writeln!(out, "{}", heading::pause(summary, view.budget_ms))
}

fn write_allocator(
    out: &mut dyn Write,
    page: &Page,
    view: &View,
    allocator: &AllocatorSummary,
) -> io::Result<()> {
    page.write_sentence(out, Tone::Heading, "", &heading::allocator(allocator))?;
    page.write_sentence(out, Tone::Faint, "", &heading::checks(allocator))?;
    if page.verbose {
        for sentence in &allocator.evidence {
            page.write_sentence(out, Tone::Faint, "- ", sentence)?;
        }
    }
    let groupings = match view.by {
        Some(by) => vec![by],
        None if allocator.shards.len() > 1 => vec![Grouping::Class, Grouping::Arena],
        None => vec![Grouping::Class],
    };
    for by in groupings {
        writeln!(out)?;
        table(page, view, allocator, by).write(out, page)?;
    }
    Ok(())
}

fn table(page: &Page, view: &View, allocator: &AllocatorSummary, by: Grouping) -> Table {
    let mut lines = lines(allocator, by);
    match view.order {
        Order::LiveBytes => lines.sort_by_key(|(_, line)| Reverse(line.live_bytes)),
        Order::LiveBlocks => lines.sort_by_key(|(_, line)| Reverse(line.live_blocks)),
        Order::SizeClass => lines.sort_by_key(|(place, _)| (Reverse(place.size_bytes), place.shard)),
    }
    let label = match by {
        Grouping::Class => "size class",
        Grouping::Arena => "arena",
        Grouping::Both => "arena: size class",
    };
    let numbers = ["live blocks", "live bytes", "cached", "slabs", "slab use"];
    let mut table = Table::new([label].into_iter().chain(numbers).map(|heading| (Align::Right, heading)));
    let (top, others) = page.split(&lines);
    for (place, line) in top {
        table.push(cells(page, place_label(page, place), line));
    }
    if !others.is_empty() {
        let sum = Line::sum(others.iter().map(|(_, line)| line));
        table.push(cells(page, format!("{} others", count(others.len() as u64)), &sum));
    }
    let sum = Line::sum(lines.iter().map(|(_, line)| line));
    let outside = outside_of_classes(allocator, &sum);
    if outside != Line::default() {
        table.push(cells(page, "no class".to_owned(), &outside));
    }
    table.rule();
    table.push(cells(page, "sum".to_owned(), &Line::sum([&sum, &outside])));
    table
}

/// Blocks that the allocator counts, but that stand in no size class.
fn outside_of_classes(allocator: &AllocatorSummary, classed: &Line) -> Line {
    Line {
        live_blocks: allocator.live_blocks.saturating_sub(classed.live_blocks),
        live_bytes: allocator.live_bytes.saturating_sub(classed.live_bytes),
        cached_blocks: allocator.cached_blocks.saturating_sub(classed.cached_blocks),
        ..Line::default()
    }
}

fn place_label(page: &Page, place: &Place) -> String {
    let class = place.size_bytes.map(|size_bytes| size_class(size_bytes, page.sizes));
    match (place.shard, class) {
        (Some(shard), Some(class)) => format!("{shard}: {class}"),
        (Some(shard), None) => shard.to_string(),
        (None, class) => class.unwrap_or_default(),
    }
}

fn cells(page: &Page, label: String, line: &Line) -> Vec<Cell> {
    let (slabs, slab_use) = if line.slabs == 0 {
        ("-".to_owned(), "-".to_owned())
    } else {
        (count(line.slabs), percent(line.slab_live_bytes, line.slab_bytes))
    };
    vec![
        label.into(),
        count(line.live_blocks).into(),
        bytes(line.live_bytes, page.sizes).into(),
        count(line.cached_blocks).into(),
        slabs.into(),
        slab_use.into(),
    ]
}

fn write_totals(out: &mut dyn Write, page: &Page, summary: &Summary) -> io::Result<()> {
    for allocator in &summary.allocators {
        writeln!(
            out,
            "{}: {} live in {}, {} thread-cached in {}",
            allocator.name,
            bytes(allocator.live_bytes, page.sizes),
            things(allocator.live_blocks, "block"),
            bytes(allocator.cached_bytes, page.sizes),
            things(allocator.cached_blocks, "block"),
        )?;
    }
    if summary.allocators.len() > 1 {
        let sum = |figure: fn(&AllocatorSummary) -> u64| {
            summary.allocators.iter().map(figure).fold(0, u64::saturating_add)
        };
        writeln!(
            out,
            "together: {} live in {}, {} thread-cached in {}",
            bytes(sum(|allocator| allocator.live_bytes), page.sizes),
            things(sum(|allocator| allocator.live_blocks), "block"),
            bytes(sum(|allocator| allocator.cached_bytes), page.sizes),
            things(sum(|allocator| allocator.cached_blocks), "block"),
        )?;
    }
    match summary.resident_bytes {
        Some(resident_bytes) => writeln!(out, "resident: {}", bytes(resident_bytes, page.sizes)),
        None => Ok(()),
    }
}
