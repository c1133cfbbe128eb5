//! Growth between moments that commands have taken, grouped and sorted as was typed.

use super::args::{By, Sort};
use super::failure::Failure;
use crate::growth::{self, Group, Growth, GrowthOptions, Observation, Row, SortBy};
use std::cmp::Reverse;

/// How moments are compared.
#[derive(Debug, Clone, Copy)]
pub struct Comparison {
    /// What tells rows apart.
    pub by: By,
    /// Which rows stand on top.
    pub sort: Sort,
    /// How many large blocks are listed one by one.
    pub large_blocks_max: usize,
    /// Moments of different processes may be compared, by their counts.
    pub allow_different: bool,
}

impl Comparison {
    /// Growth from the first to the last of the moments.
    ///
    /// # Errors
    /// They cannot be compared.
    pub fn growth(&self, moments: &[Observation<'_>]) -> Result<Growth, Failure> {
        let options = GrowthOptions {
            group: match self.by {
                By::Class => Group::Class,
                By::Arena => Group::Shard,
                By::Both => Group::ShardAndClass,
            },
            sort: SortBy::default(),
            large_blocks_max: self.large_blocks_max,
            allow_different: self.allow_different,
        };
        let mut growth = growth::between(moments, &options)?;
        sort_rows(&mut growth.rows, self.sort);
        Ok(growth)
    }
}

/// Puts the rows on top that were asked for.
pub fn sort_rows(rows: &mut [Row], sort: Sort) {
    let by = match sort {
        Sort::Growth => SortBy::Bytes,
        Sort::Blocks => SortBy::Blocks,
        Sort::Slope => SortBy::Slope,
        Sort::Size => SortBy::Size,
        Sort::Born => SortBy::Born,
        Sort::Live => return rows.sort_by_key(|row| Reverse(row.live_bytes)),
    };
    growth::sort_rows(rows, by);
}
