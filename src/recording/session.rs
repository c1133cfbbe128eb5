//! A recording from its first moment to its last: counts blocks, aims at what grows, samples, judges.

use super::Budget;
use super::composition::{ClassComposition, compositions, is_live};
use super::recorder::{Recorder, RecordingError, STACK_LEN_BYTES, Sample};
use super::schema::{Cost, Recording, SCHEMA, Site};
use crate::allocator::CacheHead;
use crate::attribution::{self, Evidence, Grown, Share};
use crate::capture::LiveMemory;
use crate::content::{Shape, Typer};
use crate::growth::{self, Group, Growth, GrowthError, GrowthOptions, Observation};
use crate::snapshot::{Liveness, Snapshot};
use crate::symbolize::{DebugFiles, Symbolizer};
use crate::target::{Captured, Options, Target, TargetError};
use heaptap_platform::{
    AddressRange, Architecture, HAS_SAMPLER, Process, SamplerError, hit_cost, sampler_clock_ns,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Classes that are watched at a time.
const CLASSES_MAX: usize = 4;
/// Time until the first look at what grows.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Moments after that, the last one included.
const MOMENTS: u32 = 4;
/// Blocks of each class that are read, at the first and at the last moment.
const BLOCKS_READ_FIRST: u64 = 10_000;
const BLOCKS_READ_LAST: u64 = 40_000;
/// Part of the recording's length that a sample must be old at its end.
const OLD_PART: f64 = 0.4;
/// Standard errors that growth of a shape must be above.
const SIGNIFICANT: f64 = 2.5;
/// Part of its growth that a class must have made in the second half, where even growth makes a half.
const LATE_PART: f64 = 0.2;

/// What is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// For how long.
    pub span: Duration,
    /// Part of one core of the target that sampling may take.
    pub budget: f64,
    /// How each moment is taken.
    pub options: Options,
}

/// Why there is no recording.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A moment could not be taken.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The moments cannot be compared.
    #[error(transparent)]
    Growth(#[from] GrowthError),
    /// Nothing could be sampled.
    #[error(transparent)]
    Recording(#[from] RecordingError),
}

/// One moment of the target.
struct Moment {
    snapshot: Snapshot,
    heads: Vec<CacheHead>,
}

/// Records.
///
/// # Errors
/// The target cannot be opened, captured or sampled.
pub fn record(target: &Target, plan: &Plan, is_ended: &dyn Fn() -> bool) -> Result<Recording, SessionError> {
    if !HAS_SAMPLER {
        // Before the target is stopped for nothing.
        return Err(RecordingError::from(SamplerError::NoSampler).into());
    }
    let captured = target.capture(&plan.options)?;
    let begun = Instant::now();
    let mut moments = vec![moment(&captured)?];
    let process = Process::open(target.pid()).map_err(TargetError::from)?;
    let pages = process.page_table().map_err(TargetError::from)?;
    let live = LiveMemory::new(process.memory(), pages);
    let typer = Typer::new(&captured.modules, &captured.mappings, &live);
    let first_shapes = compositions(&live, liveness(&moments, 0), BLOCKS_READ_FIRST, &|_| true, &typer);
    let cost = hit_cost(Architecture::X86_64, STACK_LEN_BYTES).map_err(RecordingError::from)?;
    let executable: Vec<AddressRange> =
        captured.mappings.iter().filter(|mapping| mapping.executable).map(|mapping| mapping.range).collect();
    let budget = Budget::new(plan.budget, cost);
    let mut recorder = Recorder::new(&process, &live, &captured.modules, &executable, budget)?;
    refuse_without_heads(&process, &captured, &moments)?;
    for end in ends(plan.span) {
        recorder.run(begun + end, is_ended)?;
        moments.push(moment(&target.capture(&plan.options)?)?);
        recorder.watch(moments.last().map(|last| last.heads.clone()).unwrap_or_default(), aims(&moments)?);
        if is_ended() {
            break;
        }
    }
    let judged_ns = sampler_clock_ns();
    live.forget();
    let growth = growth_of(&moments)?;
    let last = moments.len() - 1;
    let growing: BTreeSet<u64> = steady_classes(&moments, &growth).into_iter().collect();
    let is_growing = |class| growing.contains(&class);
    let last_shapes = compositions(&live, liveness(&moments, last), BLOCKS_READ_LAST, &is_growing, &typer);
    let old_ns = u64::try_from(plan.span.mul_f64(OLD_PART).as_nanos()).unwrap_or(u64::MAX);
    let evidence = judge(&recorder, &typer, liveness(&moments, last), judged_ns.saturating_sub(old_ns));
    let grown: Vec<Grown> = growing
        .iter()
        .flat_map(|class| grown_shapes(*class, delta_blocks(&growth, *class), &first_shapes, &last_shapes))
        .collect();
    let shares = attribution::divide(&evidence, &grown);
    let files: Vec<DebugFiles> =
        captured.modules.iter().map(|module| DebugFiles::find(module, &process, false)).collect();
    let symbolizer = Symbolizer::new(&captured.modules, &files);
    Ok(report(&recorder, &symbolizer, &typer, growth, &shares, begun.elapsed()))
}

fn moment(captured: &Captured) -> Result<Moment, TargetError> {
    let walked = captured.walk()?;
    let heads = walked.iter().flat_map(|walk| walk.cache_heads.iter().copied()).collect();
    Ok(Moment { snapshot: captured.snapshot(walked, None)?, heads })
}

fn liveness(moments: &[Moment], index: usize) -> &[Liveness] {
    moments.get(index).map(|moment| moment.snapshot.liveness.as_slice()).unwrap_or_default()
}

fn refuse_without_heads(
    process: &Process,
    captured: &Captured,
    moments: &[Moment],
) -> Result<(), RecordingError> {
    if moments.iter().any(|moment| !moment.heads.is_empty()) {
        return Ok(());
    }
    let allocators: Vec<String> = captured
        .allocators
        .iter()
        .map(|allocator| format!("{} {}", allocator.name(), allocator.version()))
        .collect();
    Err(RecordingError::NoHeads { pid: process.pid(), allocators: allocators.join(", ") })
}

/// When moments are taken: soon, to see what grows, and then evenly.
fn ends(span: Duration) -> Vec<Duration> {
    let first = FIRST_LOOK.min(span / 4);
    let step = (span - first) / MOMENTS;
    (0..=MOMENTS).map(|index| first + step * index).collect()
}

fn growth_of(moments: &[Moment]) -> Result<Growth, GrowthError> {
    let observations: Vec<Observation<'_>> =
        moments.iter().map(|moment| Observation::of("recording", &moment.snapshot)).collect();
    growth::between(&observations, &GrowthOptions { group: Group::Class, ..GrowthOptions::default() })
}

/// The classes that have grown most, weighted by how much.
fn aims(moments: &[Moment]) -> Result<Vec<(u64, f64)>, GrowthError> {
    let growth = growth_of(moments)?;
    let heads = moments.last().map(|last| last.heads.as_slice()).unwrap_or_default();
    let watched = |class: u64| heads.iter().any(|head| head.block_bytes == class);
    let mut rows: Vec<(u64, f64)> = growth
        .rows
        .iter()
        .filter(|row| row.delta_bytes > 0 && watched(row.size_bytes))
        .map(|row| (row.size_bytes, row.delta_bytes as f64))
        .collect();
    rows.sort_by(|one, other| other.1.total_cmp(&one.1));
    rows.truncate(CLASSES_MAX);
    // A class that grows a tenth of the first is worth a look, but no more than a few.
    let most = rows.first().map_or(0.0, |row| row.1);
    rows.retain(|row| row.1 >= most / 20.0);
    Ok(rows)
}

/// Classes that have grown, in the second half of the recording too: what fills and stops is no leak.
fn steady_classes(moments: &[Moment], growth: &Growth) -> Vec<u64> {
    let live = |moment: Option<&Moment>, class: u64| -> i64 {
        let allocators =
            moment.map(|moment| moment.snapshot.summary.allocators.as_slice()).unwrap_or_default();
        let shards = allocators.iter().flat_map(|allocator| &allocator.shards);
        let rows = shards.flat_map(|shard| &shard.classes).filter(|row| row.size_bytes == class);
        rows.map(|row| row.live_blocks.cast_signed()).sum()
    };
    let middle = moments.get(moments.len() / 2);
    let grows = |class: u64, delta: i64| {
        let late = live(moments.last(), class) - live(middle, class);
        delta > 0 && late as f64 > delta as f64 * LATE_PART
    };
    let rows = growth.rows.iter().filter(|row| grows(row.size_bytes, row.delta_blocks));
    rows.map(|row| row.size_bytes).collect()
}

fn delta_blocks(growth: &Growth, class: u64) -> i64 {
    growth.rows.iter().filter(|row| row.size_bytes == class).map(|row| row.delta_blocks).sum()
}

/// The shapes whose blocks of a class have become more beyond doubt, scaled to the exact growth of the class where
/// they explain it.
fn grown_shapes(
    class: u64,
    delta: i64,
    first: &BTreeMap<u64, ClassComposition>,
    last: &BTreeMap<u64, ClassComposition>,
) -> Vec<Grown> {
    let none = ClassComposition::default();
    let (before, after) = (first.get(&class).unwrap_or(&none), last.get(&class).unwrap_or(&none));
    let delta = delta as f64;
    let mut grown = Vec::new();
    let mut variance = 0.0;
    for &shape in after.shapes.keys() {
        let ((was, was_error), (is, is_error)) = (before.blocks(shape), after.blocks(shape));
        let error = was_error.hypot(is_error);
        if is - was > SIGNIFICANT * error && is - was > delta / 50.0 {
            grown.push(Grown { block_bytes: class, shape, delta_blocks: is - was });
            variance += error * error;
        }
    }
    let sum: f64 = grown.iter().map(|one| one.delta_blocks).sum();
    if sum > delta || (sum - delta).abs() <= 3.0 * variance.sqrt() {
        for one in &mut grown {
            one.delta_blocks *= delta / sum;
        }
    }
    grown
}

/// What became of each sample.
fn judge(
    recorder: &Recorder<'_>,
    typer: &Typer<'_>,
    liveness: &[Liveness],
    old_before_ns: u64,
) -> Vec<Evidence> {
    let mut counts: BTreeMap<(i32, u64), u64> = BTreeMap::new();
    for sample in &recorder.samples {
        *counts.entry((sample.tid, sample.block_bytes)).or_default() += 1;
    }
    let weight = |sample: &Sample| {
        let key = (sample.tid, sample.block_bytes);
        let rate = recorder.tallies.get(&key).map_or(0.0, super::Tally::rate);
        rate / counts.get(&key).copied().unwrap_or(1).max(1) as f64
    };
    let evidence = |sample: &Sample| Evidence {
        block_bytes: sample.block_bytes,
        site: sample.site,
        weight: weight(sample),
        is_old: sample.time_ns < old_before_ns,
        stayed: stayed(recorder, typer, liveness, sample),
    };
    recorder.samples.iter().map(evidence).collect()
}

/// The shape of a sampled block that is still there.
fn stayed(
    recorder: &Recorder<'_>,
    typer: &Typer<'_>,
    liveness: &[Liveness],
    sample: &Sample,
) -> Option<Shape> {
    if sample.freed_at_once || !liveness.iter().any(|table| is_live(table, sample.block)) {
        return None;
    }
    let then = sample.content.as_ref()?;
    let now = recorder.look(sample.block, sample.block_bytes)?;
    now.is_still(then).then(|| typer.shape(&now))
}

fn report(
    recorder: &Recorder<'_>,
    symbolizer: &Symbolizer<'_>,
    typer: &Typer<'_>,
    growth: Growth,
    shares: &[Share],
    elapsed: Duration,
) -> Recording {
    let sites: Vec<Site> = shares
        .iter()
        .zip(1_u32..)
        .map(|(share, rank)| Site {
            type_name: typer.name(share.shape),
            ..site(recorder, symbolizer, share, rank)
        })
        .collect();
    let attributed: i64 = sites.iter().map(|site| site.delta_bytes).sum();
    let grown: i64 = growth.rows.iter().map(|row| row.delta_bytes.max(0)).sum();
    Recording {
        schema: SCHEMA.to_owned(),
        sampler: "data watchpoints on thread caches".to_owned(),
        samples: recorder.samples.len() as u64,
        stacks: recorder.sites.len() as u64,
        seconds: elapsed.as_secs_f64(),
        cost: Cost {
            target_cpu_fraction: recorder.budget().spent().as_secs_f64() / elapsed.as_secs_f64(),
            hits: recorder.budget().hits(),
            hit_cost_us: recorder.budget().hit_cost().as_secs_f64() * 1e6,
            unknown_hits: recorder.unknown_hits,
        },
        unattributed_bytes: grown.saturating_sub(attributed),
        growth,
        sites,
    }
}

fn site(recorder: &Recorder<'_>, symbolizer: &Symbolizer<'_>, share: &Share, rank: u32) -> Site {
    let frames = recorder.sites.get(share.site).map(Vec::as_slice).unwrap_or_default();
    let frames = frames.iter().flat_map(|frame| symbolizer.frames(frame)).collect();
    let threads: BTreeSet<i32> =
        recorder.samples.iter().filter(|sample| sample.site == share.site).map(|sample| sample.tid).collect();
    let mut examples: Vec<u64> = recorder
        .samples
        .iter()
        .filter(|sample| sample.site == share.site)
        .map(|sample| sample.block)
        .collect();
    examples.truncate(3);
    let delta_blocks = share.delta_blocks.round();
    Site {
        rank,
        delta_bytes: (delta_blocks * share.block_bytes as f64) as i64,
        delta_blocks: delta_blocks as i64,
        share: share.share,
        share_low: share.low,
        share_high: share.high,
        size_bytes: share.block_bytes,
        samples: share.samples,
        stay_ratio: share.stay_ratio,
        threads: threads
            .iter()
            .filter_map(|tid| recorder.thread_name(*tid))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        addresses: examples,
        frames,
        ..Site::default()
    }
}
