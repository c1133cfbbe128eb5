//! The order of rows.

use super::schema::{Growth, Row};
use std::cmp::{Ordering, Reverse};

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortBy {
    /// Most growth in bytes.
    #[default]
    Bytes,
    /// Most growth in blocks.
    Blocks,
    /// Steepest slope; rows without one last.
    Slope,
    /// Largest size class.
    Size,
    /// Most blocks born.
    Born,
}

impl Growth {
    /// Orders rows and large blocks; rows that are equal in it stand by allocator, shard, size and address.
    pub fn sort(&mut self, by: SortBy) {
        sort_rows(&mut self.rows, by);
        sort_rows(&mut self.large_blocks, by);
    }
}

/// Orders `rows` as [`Growth::sort`] does.
pub fn sort_rows(rows: &mut [Row], by: SortBy) {
    rows.sort_by(|one, other| compare(one, other, by).then_with(|| place(one).cmp(&place(other))));
}

fn compare(one: &Row, other: &Row, by: SortBy) -> Ordering {
    match by {
        SortBy::Bytes => other.delta_bytes.cmp(&one.delta_bytes),
        SortBy::Blocks => other.delta_blocks.cmp(&one.delta_blocks),
        SortBy::Slope => slope(other).total_cmp(&slope(one)),
        SortBy::Size => other.size_bytes.cmp(&one.size_bytes),
        SortBy::Born => other.born_blocks.cmp(&one.born_blocks),
    }
}

fn slope(row: &Row) -> f64 {
    row.slope_bytes_per_s.unwrap_or(f64::NEG_INFINITY)
}

fn place(row: &Row) -> (Reverse<i64>, &str, Option<u32>, u64, Option<u64>) {
    (Reverse(row.delta_bytes), &row.allocator, row.shard, row.size_bytes, row.address)
}
