//! From moments to rows.

use super::counts::counts;
use super::error::GrowthError;
use super::observation::{Kinship, Observation};
use super::places::{self, Count, GrownBlock, Tally};
use super::schema::{Growth, ResidentDelta, Row, SCHEMA};
use super::track::{Track, tracks};
use super::trend::{MOMENTS_MIN, trend};
use super::{Group, GrowthOptions, notes};
use crate::snapshot::schema::{AllocatorSummary, Summary};
use crate::snapshot::{self, Cell, CellTotal, Liveness, Totals};
use std::collections::BTreeMap;

/// What changed between the first and the last of `observations`, in the order given.
///
/// Every count is exact, and the rows add up to the difference of the summaries' live blocks and bytes.
///
/// # Errors
/// Fewer than two moments, moments of different processes (unless `options` allow them), a snapshot that
/// contradicts itself.
pub fn between(observations: &[Observation<'_>], options: &GrowthOptions) -> Result<Growth, GrowthError> {
    let [first, middle @ .., last] = observations else {
        return Err(GrowthError::TooFewMoments { moments: observations.len() });
    };
    let sight = Sight::of(observations, options)?;
    let (first_totals, last_totals) = rayon::join(|| prove(first), || prove(last));
    let comparison = Comparison {
        observations,
        first,
        last,
        sight,
        first_totals: first_totals?,
        last_totals: last_totals?,
    };
    let allocators: Vec<&[AllocatorSummary]> =
        observations.iter().map(|moment| moment.summary.allocators.as_slice()).collect();
    let tracks = tracks(&allocators);
    let (resident_first, resident_last) = (first.summary.resident_bytes, last.summary.resident_bytes);
    let mut growth = Growth {
        schema: SCHEMA.to_owned(),
        from: first.moment(),
        to: last.moment(),
        between: middle.iter().map(Observation::moment).collect(),
        rows: tracks.iter().flat_map(|track| comparison.rows(track, options.group)).collect(),
        resident: resident(first.summary, last.summary),
        resident_delta_bytes: resident_first.zip(resident_last).map(|(first, last)| difference(last, first)),
        types: super::types::types(first.summary, last.summary, &tracks),
        notes: notes::notes(observations, &comparison.sight, &tracks),
        ..Growth::default()
    };
    comparison.add_large_blocks(&mut growth, &tracks, options.large_blocks_max);
    add_totals(&mut growth)?;
    growth.sort(options.sort);
    Ok(growth)
}

/// How much of two moments can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// Block by block.
    Places,
    /// Block by block, and none of the first is in the last: the process executed another program.
    Executed,
    /// Only totals, since the moments are of two processes, or blocks of one of them are unknown.
    Counts {
        /// What tells the processes apart, if they are two.
        processes: Option<String>,
    },
}

impl Sight {
    fn of(observations: &[Observation<'_>], options: &GrowthOptions) -> Result<Self, GrowthError> {
        let mut sight = Self::Places;
        for (from, to) in observations.iter().zip(observations.iter().skip(1)) {
            match Kinship::of(&from.summary.target, &to.summary.target) {
                Kinship::OneProgram => {}
                Kinship::Executed => sight = Self::Executed,
                Kinship::TwoProcesses(difference) if !options.allow_different => {
                    let (from, to) = (from.source.to_owned(), to.source.to_owned());
                    return Err(GrowthError::DifferentProcesses { from, to, difference });
                }
                Kinship::TwoProcesses(difference) => {
                    return Ok(Self::Counts { processes: Some(difference) });
                }
            }
        }
        let known = [observations.first(), observations.last()];
        let known = known.iter().flatten().all(|moment| moment.liveness.is_some());
        Ok(if known { sight } else { Self::Counts { processes: None } })
    }
}

/// Proves what the comparison relies on, tables that are sound and add up to the summary, and returns their
/// totals; none where the blocks are not known.
fn prove(moment: &Observation<'_>) -> Result<Vec<Totals>, GrowthError> {
    let Some(liveness) = moment.liveness else { return Ok(Vec::new()) };
    snapshot::prove(moment.summary, liveness)
        .map_err(|fault| GrowthError::Inconsistent { moment: moment.source.to_owned(), fault })
}

/// A row in the making.
#[derive(Debug, Clone, Default)]
struct RowSum {
    tally: Tally,
    /// Live bytes at each moment; empty where there are too few for a trend.
    series: Vec<f64>,
}

/// The moments and how they can be compared.
#[derive(Debug)]
struct Comparison<'a> {
    observations: &'a [Observation<'a>],
    first: &'a Observation<'a>,
    last: &'a Observation<'a>,
    sight: Sight,
    /// Sums over the blocks of each allocator, where those are known.
    first_totals: Vec<Totals>,
    last_totals: Vec<Totals>,
}

impl Comparison<'_> {
    /// The rows of one allocator that have blocks in any moment.
    fn rows(&self, track: &Track, group: Group) -> Vec<Row> {
        let mut sums: BTreeMap<(Option<u32>, u64), RowSum> = BTreeMap::new();
        let key = |cell: &Cell| match group {
            Group::ShardAndClass => (Some(cell.shard), cell.size_bytes),
            Group::Class => (None, cell.size_bytes),
            Group::Shard => (Some(cell.shard), 0),
        };
        for (cell, tally) in self.tallies(track) {
            sums.entry(key(&cell)).or_default().tally.add(&tally);
        }
        let moments = self.observations.len();
        for moment in (0..moments).filter(|_| moments >= MOMENTS_MIN) {
            for (cell, count) in self.allocator(track, moment).map(counts).unwrap_or_default() {
                let series = &mut sums.entry(key(&cell)).or_default().series;
                series.resize(moments, 0.0);
                if let Some(value) = series.get_mut(moment) {
                    *value += count.bytes as f64;
                }
            }
        }
        sums.retain(|_, sum| {
            let blocks = sum.tally.first.blocks.max(sum.tally.last.blocks);
            blocks > 0 || sum.series.iter().any(|&bytes| bytes > 0.0)
        });
        let rows =
            sums.iter().map(|(&(shard, size_bytes), sum)| self.row(&track.label, shard, size_bytes, sum));
        rows.collect()
    }

    fn row(&self, allocator: &str, shard: Option<u32>, size_bytes: u64, sum: &RowSum) -> Row {
        let Tally { first, last, stayed_blocks } = sum.tally;
        let places = !matches!(self.sight, Sight::Counts { .. });
        let since = |moment: &Observation<'_>| moment.summary.taken_at - self.first.summary.taken_at;
        let times_s: Vec<f64> = self.observations.iter().map(since).collect();
        let trend = trend(&times_s, &sum.series);
        Row {
            allocator: allocator.to_owned(),
            shard,
            size_bytes,
            delta_blocks: difference(last.blocks, first.blocks),
            delta_bytes: difference(last.bytes, first.bytes),
            live_blocks: last.blocks,
            live_bytes: last.bytes,
            born_blocks: places.then(|| last.blocks.saturating_sub(stayed_blocks)),
            died_blocks: places.then(|| first.blocks.saturating_sub(stayed_blocks)),
            stayed_blocks: places.then_some(stayed_blocks),
            slope_bytes_per_s: trend.map(|trend| trend.slope_per_s),
            slope_error_bytes_per_s: trend.and_then(|trend| trend.error_per_s),
            steady: trend.map(|trend| trend.steady),
            ..Row::default()
        }
    }

    /// What the first and the last moment say of each cell.
    fn tallies(&self, track: &Track) -> BTreeMap<Cell, Tally> {
        let mut cells: BTreeMap<Cell, Tally> = BTreeMap::new();
        for (cell, count) in self.counts(track, 0, &self.first_totals) {
            cells.entry(cell).or_default().first = count;
        }
        for (cell, count) in self.counts(track, self.observations.len() - 1, &self.last_totals) {
            cells.entry(cell).or_default().last = count;
        }
        if self.sight == Sight::Places
            && let (Some(first), Some(last)) = (self.first_liveness(track), self.last_liveness(track))
        {
            for (cell, blocks) in places::stayed(first, last) {
                cells.entry(cell).or_default().stayed_blocks = blocks;
            }
        }
        cells
    }

    /// The live blocks of one allocator at one moment: by its blocks, or else by its summary.
    fn counts(&self, track: &Track, moment: usize, totals: &[Totals]) -> BTreeMap<Cell, Count> {
        let index = track.index.get(moment).copied().flatten();
        match index.and_then(|index| totals.get(index)) {
            Some(totals) => {
                let count = |total: &CellTotal| Count { blocks: total.live_blocks, bytes: total.live_bytes };
                totals.cells.iter().map(|(cell, total)| (*cell, count(total))).collect()
            }
            None => self.allocator(track, moment).map(counts).unwrap_or_default(),
        }
    }

    /// Lists the large blocks that are new or have grown, most growth first, `max` of them.
    fn add_large_blocks(&self, growth: &mut Growth, tracks: &[Track], max: usize) {
        if self.sight != Sight::Places {
            return;
        }
        let mut grown: Vec<(&Track, GrownBlock)> = Vec::new();
        let none = Liveness::default();
        for track in tracks {
            let first = self.first_liveness(track).unwrap_or(&none);
            let last = self.last_liveness(track).unwrap_or(&none);
            grown.extend(places::grown_blocks(first, last).into_iter().map(|block| (track, block)));
        }
        grown.sort_by_key(|(_, grown)| (std::cmp::Reverse(grown.delta_bytes), grown.block.address));
        let rest = grown.split_off(max.min(grown.len()));
        if !rest.is_empty() && max > 0 {
            let bytes: u64 = rest.iter().map(|(_, grown)| grown.delta_bytes).fold(0, u64::saturating_add);
            growth.notes.push(notes::more_large_blocks(rest.len(), bytes));
        }
        growth.large_blocks = grown.iter().map(|(track, grown)| large_row(&track.label, grown)).collect();
    }

    fn allocator(&self, track: &Track, moment: usize) -> Option<&AllocatorSummary> {
        let index = (*track.index.get(moment)?)?;
        self.observations.get(moment)?.summary.allocators.get(index)
    }

    fn first_liveness(&self, track: &Track) -> Option<&Liveness> {
        self.first.liveness?.get((*track.index.first()?)?)
    }

    fn last_liveness(&self, track: &Track) -> Option<&Liveness> {
        self.last.liveness?.get((*track.index.last()?)?)
    }
}

fn large_row(allocator: &str, grown: &GrownBlock) -> Row {
    Row {
        allocator: allocator.to_owned(),
        shard: Some(grown.block.shard),
        size_bytes: grown.block.usable_bytes,
        address: Some(grown.block.address),
        delta_blocks: i64::from(!grown.in_place),
        delta_bytes: difference(grown.delta_bytes, 0),
        live_blocks: 1,
        live_bytes: grown.block.usable_bytes,
        born_blocks: Some(1),
        died_blocks: Some(u64::from(grown.in_place)),
        stayed_blocks: Some(0),
        ..Row::default()
    }
}

/// Change of each use of resident memory that either moment tells.
fn resident(first: &Summary, last: &Summary) -> Vec<ResidentDelta> {
    let mut deltas: Vec<ResidentDelta> = Vec::new();
    let rows = last.resident.iter().map(|row| (row, 1)).chain(first.resident.iter().map(|row| (row, -1)));
    for (row, sign) in rows {
        let bytes = row.bytes.saturating_mul(sign);
        match deltas.iter_mut().find(|delta| delta.kind == row.kind) {
            Some(delta) => delta.delta_bytes = delta.delta_bytes.saturating_add(bytes),
            None => deltas.push(ResidentDelta { kind: row.kind.clone(), delta_bytes: bytes }),
        }
    }
    deltas
}

/// Adds up all rows, and proves that the sums are what the two moments say.
fn add_totals(growth: &mut Growth) -> Result<(), GrowthError> {
    let sum = |value: fn(&Row) -> i64| growth.rows.iter().map(|row| i128::from(value(row))).sum::<i128>();
    let (rows_bytes, rows_blocks) = (sum(|row| row.delta_bytes), sum(|row| row.delta_blocks));
    let bytes = i128::from(growth.to.live_bytes) - i128::from(growth.from.live_bytes);
    let blocks = i128::from(growth.to.live_blocks) - i128::from(growth.from.live_blocks);
    if rows_bytes != bytes {
        return Err(GrowthError::Unreconciled { figure: "live bytes", summaries: bytes, rows: rows_bytes });
    }
    if rows_blocks != blocks {
        return Err(GrowthError::Unreconciled {
            figure: "live blocks",
            summaries: blocks,
            rows: rows_blocks,
        });
    }
    growth.total_delta_bytes = difference(growth.to.live_bytes, growth.from.live_bytes);
    growth.total_delta_blocks = difference(growth.to.live_blocks, growth.from.live_blocks);
    Ok(())
}

/// `last - first`, which differs from it only for figures that no address space can hold.
fn difference(last: u64, first: u64) -> i64 {
    let difference = i128::from(last) - i128::from(first);
    i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX })
}
