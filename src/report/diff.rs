//! Growth as text: what became more between two or more moments.

use super::clock::date_and_time;
use super::heading::things;
use super::page::{Page, Tone};
use super::quantity::{bytes, count, delta_bytes, delta_count, millis, rate, size_class, span};
use super::table::{Align, Cell, Table};
use super::{doubt, resident, types};
use crate::growth::schema::Moment;
use crate::growth::{Growth, Row};
use std::io::{self, Write};

/// Moments between the first and the last that are listed one by one.
const BETWEEN_MAX: usize = 4;

/// Writes growth: the moments, its doubts, its rows, its sums.
pub fn write(out: &mut dyn Write, page: &Page, growth: &Growth) -> io::Result<()> {
    moments(page, growth).write(out, page)?;
    doubt::write(out, page, &growth.notes)?;
    doubt::write(out, page, &contradictions(page, growth))?;
    writeln!(out)?;
    class_table(page, &growth.rows).write(out, page)?;
    if !growth.large_blocks.is_empty() {
        writeln!(out)?;
        block_table(page, &growth.large_blocks).write(out, page)?;
    }
    types::write_growth(out, page, &growth.types)?;
    resident::write_deltas(out, page, &growth.resident, growth.resident_delta_bytes)?;
    writeln!(out)?;
    writeln!(
        out,
        "live: {} -> {}: {} in {}",
        bytes(growth.from.live_bytes, page.sizes),
        bytes(growth.to.live_bytes, page.sizes),
        page.paint(
            Tone::of_change(growth.total_delta_bytes),
            &delta_bytes(growth.total_delta_bytes, page.sizes)
        ),
        blocks_changed(growth.total_delta_blocks),
    )
}

fn blocks_changed(delta_blocks: i64) -> String {
    let noun = if delta_blocks.unsigned_abs() == 1 { "block" } else { "blocks" };
    format!("{} {noun}", delta_count(delta_blocks))
}

fn moments(page: &Page, growth: &Growth) -> Table {
    let mut table = Table::new([
        (Align::Left, "moment"),
        (Align::Left, "source"),
        (Align::Right, "pid"),
        (Align::Left, "taken at (UTC)"),
        (Align::Right, "after"),
        (Align::Right, "live"),
        (Align::Right, "pause"),
    ]);
    let line = |name: &'static str, moment: &Moment| -> Vec<Cell> {
        vec![
            name.into(),
            moment.source.as_str().into(),
            moment.pid.to_string().into(),
            date_and_time(moment.taken_at).into(),
            span(moment.taken_at - growth.from.taken_at).into(),
            bytes(moment.live_bytes, page.sizes).into(),
            millis(moment.pause_ms).into(),
        ]
    };
    table.push(line("from", &growth.from));
    if growth.between.len() <= BETWEEN_MAX || page.verbose {
        for moment in &growth.between {
            table.push(line("between", moment));
        }
    } else {
        table.push(vec!["between".into(), things(growth.between.len() as u64, "moment").into()]);
    }
    table.push(line("to", &growth.to));
    table
}

/// Sums that ought to be equal and are not.
fn contradictions(page: &Page, growth: &Growth) -> Vec<String> {
    let rows_bytes: i128 = growth.rows.iter().map(|row| i128::from(row.delta_bytes)).sum();
    let moments_bytes = i128::from(growth.to.live_bytes) - i128::from(growth.from.live_bytes);
    let total_bytes = i128::from(growth.total_delta_bytes);
    if rows_bytes == total_bytes && moments_bytes == total_bytes {
        return Vec::new();
    }
    let shown =
        |value: i128| i64::try_from(value).map_or_else(|_| "?".to_owned(), |v| delta_bytes(v, page.sizes));
    vec![format!(
        "growth does not add up: rows sum to {}, the moments differ by {}, the total is {}",
        shown(rows_bytes),
        shown(moments_bytes),
        shown(total_bytes)
    )]
}

fn changed(row: &Row) -> bool {
    let came_or_went = |blocks: Option<u64>| blocks.is_some_and(|blocks| blocks != 0);
    row.delta_bytes != 0
        || row.delta_blocks != 0
        || came_or_went(row.born_blocks)
        || came_or_went(row.died_blocks)
}

/// Which columns the rows have something for.
struct Columns {
    allocator: bool,
    shard: bool,
    class: bool,
    slope: bool,
    type_name: bool,
}

impl Columns {
    fn of(rows: &[Row]) -> Self {
        let first = rows.first().map(|row| row.allocator.as_str());
        Self {
            allocator: rows.iter().any(|row| Some(row.allocator.as_str()) != first),
            shard: rows.iter().any(|row| row.shard.is_some()),
            class: rows.iter().any(|row| row.size_bytes != 0) || rows.iter().all(|row| row.shard.is_none()),
            slope: rows.iter().any(|row| row.slope_bytes_per_s.is_some()),
            type_name: rows.iter().any(|row| row.type_name.is_some()),
        }
    }

    fn headings(&self) -> Vec<(Align, &'static str)> {
        let mut headings = Vec::new();
        headings.extend(self.allocator.then_some((Align::Left, "allocator")));
        headings.extend(self.shard.then_some((Align::Right, "arena")));
        headings.extend(self.class.then_some((Align::Right, "size class")));
        headings.extend(
            ["delta bytes", "delta blocks", "born", "died", "stayed"].map(|heading| (Align::Right, heading)),
        );
        if self.slope {
            headings.extend([(Align::Right, "slope"), (Align::Left, "trend")]);
        }
        headings.extend(self.type_name.then_some((Align::Left, "type")));
        headings
    }

    fn labels(&self, page: &Page, row: &Row) -> Vec<Cell> {
        let mut labels = Vec::new();
        labels.extend(self.allocator.then(|| row.allocator.as_str().into()));
        labels.extend(self.shard.then(|| row.shard.map_or_else(String::new, |id| id.to_string()).into()));
        labels.extend(self.class.then(|| class_label(page, row).into()));
        labels
    }

    /// A label in the last of the label columns.
    fn label(&self, text: String) -> Vec<Cell> {
        let columns = usize::from(self.allocator) + usize::from(self.shard) + usize::from(self.class);
        let mut labels = vec![Cell::default(); columns.saturating_sub(1)];
        labels.push(text.into());
        labels
    }

    fn trend(&self, page: &Page, row: &Row) -> Vec<Cell> {
        let mut cells = Vec::new();
        if self.slope {
            let slope = row
                .slope_bytes_per_s
                .map_or_else(String::new, |slope| rate(slope, row.slope_error_bytes_per_s, page.sizes));
            cells.extend([slope.into(), trend(row.steady, row.delta_bytes)]);
        }
        cells.extend(self.type_name.then(|| row.type_name.as_deref().unwrap_or_default().into()));
        cells
    }
}

/// Whether a row keeps growing, in one word.
pub fn trend(steady: Option<bool>, delta_bytes: i64) -> Cell {
    match steady {
        Some(true) => Cell::toned(Tone::of_change(delta_bytes), "steady"),
        Some(false) if delta_bytes > 0 => Cell::toned(Tone::Faint, "wobbles"),
        Some(false) | None => Cell::default(),
    }
}

fn class_label(page: &Page, row: &Row) -> String {
    if row.size_bytes == 0 { "no class".to_owned() } else { size_class(row.size_bytes, page.sizes) }
}

fn figures(page: &Page, row: &Row) -> Vec<Cell> {
    vec![
        Cell::toned(Tone::of_change(row.delta_bytes), delta_bytes(row.delta_bytes, page.sizes)),
        delta_count(row.delta_blocks).into(),
        known(row.born_blocks).into(),
        known(row.died_blocks).into(),
        known(row.stayed_blocks).into(),
    ]
}

fn known(blocks: Option<u64>) -> String {
    blocks.map_or_else(|| "-".to_owned(), count)
}

/// The sum of rows, without a slope of its own; a figure that one of them lacks is lacking in the sum.
pub fn sum<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Row {
    let none = Row { born_blocks: Some(0), died_blocks: Some(0), stayed_blocks: Some(0), ..Row::default() };
    let add = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    rows.into_iter().fold(none, |sum, row| Row {
        delta_blocks: sum.delta_blocks.saturating_add(row.delta_blocks),
        delta_bytes: sum.delta_bytes.saturating_add(row.delta_bytes),
        live_blocks: sum.live_blocks.saturating_add(row.live_blocks),
        live_bytes: sum.live_bytes.saturating_add(row.live_bytes),
        born_blocks: add(sum.born_blocks, row.born_blocks),
        died_blocks: add(sum.died_blocks, row.died_blocks),
        stayed_blocks: add(sum.stayed_blocks, row.stayed_blocks),
        ..Row::default()
    })
}

fn class_table(page: &Page, rows: &[Row]) -> Table {
    let columns = Columns::of(rows);
    let mut table = Table::new(columns.headings());
    let mut line = |label: Vec<Cell>, row: &Row| {
        let mut cells = label;
        cells.extend(figures(page, row));
        cells.extend(columns.trend(page, row));
        table.push(cells);
    };
    let (moved, still): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| changed(row));
    let (top, others) = page.split(&moved);
    for row in top {
        line(columns.labels(page, row), row);
    }
    if !others.is_empty() {
        line(columns.label(format!("{} others", count(others.len() as u64))), &sum(others.iter().copied()));
    }
    if !still.is_empty() {
        line(columns.label(format!("{} unchanged", count(still.len() as u64))), &sum(still));
    }
    table.rule();
    let mut cells = columns.label("sum".to_owned());
    cells.extend(figures(page, &sum(rows)));
    table.push(cells);
    table
}

fn block_table(page: &Page, blocks: &[Row]) -> Table {
    let mut table = Table::new([
        (Align::Left, "large block"),
        (Align::Right, "arena"),
        (Align::Right, "size"),
        (Align::Right, "delta bytes"),
        (Align::Left, "what"),
        (Align::Left, "type"),
    ]);
    let (top, others) = page.split(blocks);
    for row in top {
        table.push(vec![
            format!("{:#x}", row.address.unwrap_or(0)).into(),
            row.shard.map_or_else(String::new, |id| id.to_string()).into(),
            bytes(row.size_bytes, page.sizes).into(),
            Cell::toned(Tone::of_change(row.delta_bytes), delta_bytes(row.delta_bytes, page.sizes)),
            fate(row).into(),
            row.type_name.as_deref().unwrap_or_default().into(),
        ]);
    }
    if !others.is_empty() {
        let delta = delta_bytes(sum(others).delta_bytes, page.sizes);
        let label = format!("{} others", count(others.len() as u64));
        table.push(vec![label.into(), Cell::default(), Cell::default(), delta.into()]);
    }
    table
}

const fn fate(row: &Row) -> &'static str {
    match (row.born_blocks, row.died_blocks) {
        (Some(1..), Some(1..)) => "grown in place",
        (Some(1..), _) => "new",
        _ => "",
    }
}
