//! A watched target as text: one block of lines a moment.

use super::clock::date_and_time;
use super::heading::things;
use super::page::{Page, Tone};
use super::quantity::{bytes, count, delta_bytes, delta_count, millis, rate, size_class, span};
use super::sparkline::sparkline;
use super::table::{Align, Cell, Table, write_line};
use super::{diff, doubt};
use crate::growth::{Growth, Row};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Points of a sparkline.
const SPARK_COLUMNS: usize = 12;
/// Lines of a block that are not rows, without doubts.
const FRAME_LINES: usize = 8;

/// What is known of a watched target at one moment.
#[derive(Debug, Clone, Default)]
pub struct Board {
    /// Short name of the executable.
    pub program: String,
    /// Process id.
    pub pid: i32,
    /// Number of this moment, from 1.
    pub moment: u64,
    /// Seconds since 1970.
    pub taken_at: f64,
    /// Live bytes of all allocators.
    pub live_bytes: u64,
    /// The kernel's figure of resident memory.
    pub resident_bytes: Option<u64>,
    /// How long the target was stopped for this moment.
    pub pause_ms: f64,
    /// How long it may be stopped.
    pub budget_ms: f64,
    /// What limits the belief in this moment.
    pub doubts: Vec<String>,
    /// Growth since the first moment, over all moments kept; absent at the first.
    pub since_first: Option<Growth>,
    /// Change of live bytes since the moment before.
    pub since_last_bytes: i64,
    /// What rows of `since_first` have besides.
    pub recent: BTreeMap<Key, Recent>,
}

/// What tells rows of growth apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    allocator: String,
    shard: Option<u32>,
    size_bytes: u64,
}

impl Key {
    /// The key of a row.
    pub fn of(row: &Row) -> Self {
        Self { allocator: row.allocator.clone(), shard: row.shard, size_bytes: row.size_bytes }
    }
}

/// What is known of a row besides its growth since the first moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recent {
    /// Change of live bytes since the moment before.
    pub since_last_bytes: i64,
    /// Live bytes at some moments, oldest first.
    pub series_bytes: Vec<u64>,
}

/// What a watch came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ending {
    /// Why it ended, as a clause.
    pub reason: String,
    /// Moments taken.
    pub moments: u64,
    /// Moments that could not be taken.
    pub skipped: u64,
    /// The longest pause.
    pub pause_ms_max: f64,
}

/// Writes the block of one moment and an empty line.
pub fn write(out: &mut dyn Write, page: &Page, board: &Board) -> io::Result<()> {
    for line in lines(page, board) {
        write_line(out, page, &line)?;
    }
    writeln!(out)
}

/// Writes the final summary: growth from the first to the last moment, and what watching cost.
pub fn write_ending(
    out: &mut dyn Write,
    page: &Page,
    growth: Option<&Growth>,
    ending: &Ending,
) -> io::Result<()> {
    if let Some(growth) = growth {
        diff::write(out, page, growth)?;
    }
    let skipped = match ending.skipped {
        0 => String::new(),
        n => format!(", {} skipped", count(n)),
    };
    writeln!(
        out,
        "{}: {}{skipped}; target stopped for {} at most",
        ending.reason,
        things(ending.moments, "moment"),
        millis(ending.pause_ms_max),
    )
}

/// The lines of one moment, of which only so many that they fit into `height_lines`.
pub fn lines_within(page: &Page, board: &Board, height_lines: usize) -> Vec<Vec<Cell>> {
    let rows_max = height_lines.saturating_sub(FRAME_LINES + board.doubts.len()).clamp(1, page.rows_max);
    let mut lines = lines(&Page { rows_max, ..*page }, board);
    lines.truncate(height_lines);
    lines
}

fn lines(page: &Page, board: &Board) -> Vec<Vec<Cell>> {
    let mut lines = vec![title(board), totals(page, board), costs(board)];
    lines.extend(board.doubts.iter().map(|doubt| vec![Cell::toned(Tone::Warning, format!("! {doubt}"))]));
    match &board.since_first {
        Some(since_first) => lines.extend(table(page, board, since_first).lines(page.width_columns)),
        None => lines.push(vec![Cell::toned(Tone::Faint, "first moment: growth is counted from here")]),
    }
    lines
}

fn title(board: &Board) -> Vec<Cell> {
    let after = board.since_first.as_ref().map_or_else(String::new, |growth| {
        format!("  after {}", span(board.taken_at - growth.from.taken_at))
    });
    vec![
        Cell::toned(Tone::Heading, board.program.as_str()),
        format!(
            "  pid {}  moment {}  {} UTC{after}",
            board.pid,
            count(board.moment),
            date_and_time(board.taken_at),
        )
        .into(),
    ]
}

fn totals(page: &Page, board: &Board) -> Vec<Cell> {
    let change = |delta: i64| Cell::toned(Tone::of_change(delta), delta_bytes(delta, page.sizes));
    let mut cells = vec![format!("live {}", bytes(board.live_bytes, page.sizes)).into()];
    if let Some(since_first) = &board.since_first {
        cells.extend([
            "  since last ".into(),
            change(board.since_last_bytes),
            "  since first ".into(),
            change(since_first.total_delta_bytes),
        ]);
    }
    if let Some(resident_bytes) = board.resident_bytes {
        cells.push(format!("  resident {}", bytes(resident_bytes, page.sizes)).into());
    }
    cells
}

fn costs(board: &Board) -> Vec<Cell> {
    let over = if board.pause_ms > board.budget_ms { ", over budget" } else { "" };
    let sentence =
        format!("target stopped for {} (budget {} ms){over}", millis(board.pause_ms), board.budget_ms);
    vec![Cell::toned(Tone::Faint, sentence)]
}

/// A row since the first moment with what belongs to it.
struct Trend<'a> {
    row: &'a Row,
    since_last_bytes: i64,
    series: &'a [u64],
}

fn trends<'a>(board: &'a Board, since_first: &'a Growth) -> Vec<Trend<'a>> {
    let trend_of = |row: &'a Row| {
        let recent = board.recent.get(&Key::of(row));
        Trend {
            row,
            since_last_bytes: recent.map_or(0, |recent| recent.since_last_bytes),
            series: recent.map_or(&[], |recent| recent.series_bytes.as_slice()),
        }
    };
    since_first.rows.iter().map(trend_of).collect()
}

fn table(page: &Page, board: &Board, since_first: &Growth) -> Table {
    let mut table = Table::new([
        (Align::Right, "row"),
        (Align::Right, "live"),
        (Align::Right, "since last"),
        (Align::Right, "since first"),
        (Align::Right, "blocks"),
        (Align::Right, "slope"),
        (Align::Left, "trend"),
        (Align::Left, ""),
    ]);
    let trends = trends(board, since_first);
    let (moved, still): (Vec<Trend<'_>>, Vec<Trend<'_>>) =
        trends.into_iter().partition(|trend| trend.row.delta_bytes != 0 || trend.since_last_bytes != 0);
    let (top, others) = page.split(&moved);
    for trend in top {
        let label = label(page, since_first, trend.row);
        table.push(cells(page, label, trend.row, trend.since_last_bytes, trend.series));
    }
    for (trends, what) in [(others, "others"), (&still, "unchanged")] {
        if !trends.is_empty() {
            let label = format!("{} {what}", count(trends.len() as u64));
            table.push(sum_cells(page, label, trends));
        }
    }
    table.rule();
    let sums: Vec<Trend<'_>> = moved.into_iter().chain(still).collect();
    table.push(sum_cells(page, "sum".to_owned(), &sums));
    table
}

fn label(page: &Page, growth: &Growth, row: &Row) -> String {
    let mut parts = Vec::new();
    if growth.rows.iter().any(|other| other.allocator != row.allocator) {
        parts.push(row.allocator.clone());
    }
    parts.extend(row.shard.map(|shard| format!("arena {shard}")));
    if row.size_bytes > 0 {
        parts.push(size_class(row.size_bytes, page.sizes));
    } else if row.shard.is_none() {
        parts.push("no class".to_owned());
    }
    parts.join(" ")
}

fn sum_cells(page: &Page, label: String, trends: &[Trend<'_>]) -> Vec<Cell> {
    let row = diff::sum(trends.iter().map(|trend| trend.row));
    let since_last_bytes = trends.iter().fold(0_i64, |sum, trend| sum.saturating_add(trend.since_last_bytes));
    cells(page, label, &row, since_last_bytes, &[])
}

fn cells(page: &Page, label: String, row: &Row, since_last_bytes: i64, series: &[u64]) -> Vec<Cell> {
    let change = |delta: i64| Cell::toned(Tone::of_change(delta), delta_bytes(delta, page.sizes));
    let slope = row
        .slope_bytes_per_s
        .map_or_else(String::new, |slope| rate(slope, row.slope_error_bytes_per_s, page.sizes));
    vec![
        label.into(),
        bytes(row.live_bytes, page.sizes).into(),
        change(since_last_bytes),
        change(row.delta_bytes),
        delta_count(row.delta_blocks).into(),
        slope.into(),
        diff::trend(row.steady, row.delta_bytes),
        sparkline(series, SPARK_COLUMNS).into(),
    ]
}

/// Writes the news that the target became another program.
pub fn write_news(out: &mut dyn Write, page: &Page, news: &str) -> io::Result<()> {
    doubt::write(out, page, &[news.to_owned()])
}
