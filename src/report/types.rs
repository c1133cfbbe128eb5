//! Types of blocks as tables: of one moment, and of growth.

use super::page::{Page, Tone};
use super::quantity::{count, delta_bytes, delta_count, size_class};
use super::table::{Align, Cell, Table};
use crate::growth::schema::TypeGrowth;
use crate::snapshot::schema::TypeRow;
use std::io::{self, Write};

/// Writes the types of one moment, most bytes first; nothing where there are none.
pub fn write(out: &mut dyn Write, page: &Page, types: &[TypeRow]) -> io::Result<()> {
    if types.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<&TypeRow> = types.iter().collect();
    rows.sort_by(|one, other| bytes(other).total_cmp(&bytes(one)));
    let mut table = Table::new([
        (Align::Right, "size class"),
        (Align::Right, "live blocks"),
        (Align::Right, "read"),
        (Align::Left, "type"),
    ]);
    let (listed, others) = page.split(&rows);
    for row in listed {
        let (blocks, error) = row.estimate();
        table.push(vec![
            size_class(row.size_bytes, page.sizes).into(),
            uncertain(count(blocks.round() as u64), error * 1.96).into(),
            count(row.read_blocks).into(),
            row.type_name.clone().into(),
        ]);
    }
    write_table(out, page, &table, others.len())
}

/// Writes growth by type; rows that chance explains are not listed.
pub fn write_growth(out: &mut dyn Write, page: &Page, types: &[TypeGrowth]) -> io::Result<()> {
    let is_certain = |row: &&TypeGrowth| row.delta_blocks.unsigned_abs() as f64 > row.delta_blocks_error;
    let rows: Vec<&TypeGrowth> = types.iter().filter(is_certain).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut table = Table::new([
        (Align::Right, "size class"),
        (Align::Right, "blocks"),
        (Align::Right, "bytes"),
        (Align::Left, "type"),
    ]);
    let (listed, others) = page.split(&rows);
    for row in listed {
        let tone = Tone::of_change(row.delta_blocks);
        table.push(vec![
            size_class(row.size_bytes, page.sizes).into(),
            Cell::toned(tone, uncertain(delta_count(row.delta_blocks), row.delta_blocks_error)),
            Cell::toned(tone, delta_bytes(row.delta_bytes, page.sizes)),
            row.type_name.clone().into(),
        ]);
    }
    write_table(out, page, &table, others.len())
}

fn write_table(out: &mut dyn Write, page: &Page, table: &Table, others: usize) -> io::Result<()> {
    writeln!(out)?;
    table.write(out, page)?;
    if others > 0 {
        writeln!(out, "{}", page.paint(Tone::Faint, &format!("and {others} further types")))?;
    }
    Ok(())
}

fn bytes(row: &TypeRow) -> f64 {
    row.estimate().0 * row.size_bytes as f64
}

fn uncertain(value: String, error: f64) -> String {
    if error < 0.5 { value } else { format!("{value} ±{}", count(error.ceil() as u64)) }
}
