//! A recording from its first moment to its last: counts blocks, aims at what grows, samples, judges.

use super::Budget;
use super::attendant::{Attendant, leading_site};
use super::composition::{ClassComposition, class_at, compositions, is_live};
use super::kept::{Kept, Outcome};
use super::large::{self, LARGE_BYTES_MIN};
use super::places::return_places;
use super::recorder::{Recorder, RecordingError, STACK_LEN_BYTES, Sample};
use crate::allocator::{CacheHead, HeadForm};
use crate::attribution::{Evidence, Grown};
use crate::capture::LiveMemory;
use crate::content::{Shape, Typer};
use crate::growth::{self, Group, Growth, GrowthError, GrowthOptions, Observation};
use crate::module::Module;
use crate::snapshot::{Liveness, Snapshot};
use crate::symbolize::{DebugFiles, Symbolizer};
use crate::target::{Captured, Options, Target, TargetError};
use heaptap_platform::{
    AddressRange, Architecture, HAS_SAMPLER, Process, SamplerError, hit_cost, sampler_clock_ns,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

/// Classes that are watched at a time.
const CLASSES_MAX: usize = 4;
/// Time until the first look at what grows.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// Moments after that, the last one included.
const MOMENTS: u32 = 4;
/// How often a moment is tried.
const TRIES_MAX: u32 = 4;
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
    /// Missing debug files may be fetched over the network.
    pub ask_network: bool,
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
pub fn record(target: &Target, plan: &Plan, attendant: &dyn Attendant) -> Result<Kept, SessionError> {
    if !HAS_SAMPLER {
        // Before the target is stopped for nothing.
        return Err(RecordingError::from(SamplerError::NoSampler).into());
    }
    let captured = capture(target, plan)?;
    let begun = Instant::now();
    let mut moments = vec![moment(&captured)?];
    let process = Process::open(target.pid()).map_err(TargetError::from)?;
    let pages = process.page_table().map_err(TargetError::from)?;
    let live = LiveMemory::new(process.memory(), pages);
    let typer = Typer::new(&captured.modules, &captured.mappings, &live);
    let first_shapes = compositions(&live, liveness(&moments, 0), BLOCKS_READ_FIRST, &|_| true, &typer);
    let cost = hit_cost(Architecture::X86_64, STACK_LEN_BYTES).map_err(RecordingError::from)?;
    let files: Vec<DebugFiles> =
        captured.modules.iter().map(|module| DebugFiles::find(module, &process, plan.ask_network)).collect();
    let symbolizer = Symbolizer::new(&captured.modules, &files);
    let executable: Vec<AddressRange> =
        captured.mappings.iter().filter(|mapping| mapping.executable).map(|mapping| mapping.range).collect();
    let budget = Budget::new(plan.budget, cost);
    let modules = &captured.modules;
    let mut recorder = Recorder::new(&process, &live, modules, &executable, &captured.allocators, budget)?;
    let places = places(&captured, &live);
    refuse_without_places(&process, &captured, &moments, &places)?;
    recorder.survey(places);
    for end in ends(plan.span) {
        recorder.run(begun + end, attendant)?;
        match capture(target, plan).and_then(|captured| moment(&captured)) {
            Ok(moment) => moments.push(moment),
            // Those in between only steer; the last one is judged by.
            Err(TargetError::Capture(_)) if end < plan.span && !attendant.is_ended() => continue,
            Err(error) => return Err(error.into()),
        }
        let heads = moments.last().map(|last| last.heads.clone()).unwrap_or_default();
        let growth = growth_of(&moments)?;
        let part = survey_part(&recorder, &heads, &growth, begun.elapsed());
        recorder.watch(heads, aims(&moments, &growth), part);
        if attendant.is_ended() {
            break;
        }
        if attendant.wants_name() {
            let latest = liveness(&moments, moments.len() - 1);
            let evidence = judge(&mut recorder, &typer, latest, sampler_clock_ns());
            attendant.name(leading_site(&recorder, &symbolizer, &evidence));
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
    let old_before_ns = judged_ns.saturating_sub(old_ns);
    let evidence = judge(&mut recorder, &typer, liveness(&moments, last), old_before_ns);
    let grown: Vec<Grown<Shape>> = growing
        .iter()
        .filter(|class| **class < LARGE_BYTES_MIN)
        .flat_map(|class| grown_shapes(*class, delta_blocks(&growth, *class), &first_shapes, &last_shapes))
        .collect();
    let is_large = |class: &u64| *class >= LARGE_BYTES_MIN;
    let large_bytes: i64 =
        growing.iter().filter(|class| is_large(class)).map(|class| delta_bytes(&growth, *class)).sum();
    let touches = &recorder.touches.seen;
    let (first, latest) = (liveness(&moments, 0), liveness(&moments, last));
    let large = large::shares(touches, first, latest, large_bytes as f64, old_before_ns);
    let outcome = Outcome {
        recorder: &recorder,
        symbolizer: &symbolizer,
        typer: &typer,
        evidence: &evidence,
        grown: &grown,
        large: &large,
        last: moments.last().map(|moment| &moment.snapshot),
    };
    Ok(outcome.keep(growth, begun.elapsed()))
}

fn moment(captured: &Captured) -> Result<Moment, TargetError> {
    let walked = captured.walk()?;
    let heads = walked.iter().flat_map(|walk| walk.cache_heads.iter().copied()).collect();
    Ok(Moment { snapshot: captured.snapshot(walked, None)?, heads })
}

/// Takes a target; one that is too busy is tried anew.
fn capture(target: &Target, plan: &Plan) -> Result<Captured, TargetError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match target.capture(&plan.options) {
            Err(TargetError::Capture(_)) if tries < TRIES_MAX => {}
            other => return other,
        }
    }
}

fn liveness(moments: &[Moment], index: usize) -> &[Liveness] {
    moments.get(index).map(|moment| moment.snapshot.liveness.as_slice()).unwrap_or_default()
}

/// Where the allocation functions of the target's allocators return.
fn places(captured: &Captured, live: &LiveMemory) -> Vec<u64> {
    let mut places = BTreeSet::new();
    for allocator in &captured.allocators {
        let is_its = |module: &&Module| module.path == Path::new(allocator.module());
        // The C library's malloc is called by the C++ library's operators.
        let with_operators = allocator.name() != "glibc";
        for module in captured.modules.iter().filter(is_its) {
            places.extend(return_places(module, with_operators, live));
        }
    }
    places.into_iter().collect()
}

fn refuse_without_places(
    process: &Process,
    captured: &Captured,
    moments: &[Moment],
    places: &[u64],
) -> Result<(), RecordingError> {
    if !places.is_empty() || moments.iter().any(|moment| !moment.heads.is_empty()) {
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

/// Part of the sampling that goes to the places where allocation functions return: what grows and has no thread caches, and
/// a part where allocations may pass thread caches by.
fn survey_part(recorder: &Recorder<'_>, heads: &[CacheHead], growth: &Growth, elapsed: Duration) -> f64 {
    const PASSED_BY: f64 = 0.3;
    const WORTH_IT: f64 = 0.05;
    let watched: BTreeSet<u64> = heads.iter().map(|head| head.block_bytes).collect();
    // What grows faster than its thread caches give blocks out does not come from them.
    let is_cached = |row: &growth::Row| {
        let grown = row.delta_blocks as f64 / elapsed.as_secs_f64().max(1e-3);
        watched.contains(&row.size_bytes)
            && recorder.cached_rate(row.size_bytes).is_none_or(|rate| rate >= grown)
    };
    let grown = growth.rows.iter().filter(|row| row.delta_bytes > 0 && row.size_bytes < LARGE_BYTES_MIN);
    let (with, without) = grown.fold((0.0, 0.0), |(with, without), row| {
        let bytes = row.delta_bytes as f64;
        if is_cached(row) { (with + bytes, without) } else { (with, without + bytes) }
    });
    let part = without / (with + without).max(1.0);
    let may_miss = |head: &CacheHead| matches!(head.form, HeadForm::List { frees_elsewhere: false });
    let least = if heads.iter().any(may_miss) { PASSED_BY } else { 0.0 };
    if heads.is_empty() {
        1.0
    } else if part < WORTH_IT {
        least
    } else {
        part.max(least)
    }
}

/// The classes that have grown most, weighted by how much.
fn aims(moments: &[Moment], growth: &Growth) -> Vec<(u64, f64)> {
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
    rows
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
        // Where no moment in between was had, nothing tells when it grew.
        delta > 0 && (moments.len() < 3 || late as f64 > delta as f64 * LATE_PART)
    };
    let rows = growth.rows.iter().filter(|row| grows(row.size_bytes, row.delta_blocks));
    rows.map(|row| row.size_bytes).collect()
}

fn delta_blocks(growth: &Growth, class: u64) -> i64 {
    growth.rows.iter().filter(|row| row.size_bytes == class).map(|row| row.delta_blocks).sum()
}

fn delta_bytes(growth: &Growth, class: u64) -> i64 {
    growth.rows.iter().filter(|row| row.size_bytes == class).map(|row| row.delta_bytes).sum()
}

/// The shapes whose blocks of a class have become more beyond doubt, scaled to the exact growth of the class where
/// they explain it.
fn grown_shapes(
    class: u64,
    delta: i64,
    first: &BTreeMap<u64, ClassComposition>,
    last: &BTreeMap<u64, ClassComposition>,
) -> Vec<Grown<Shape>> {
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
    recorder: &mut Recorder<'_>,
    typer: &Typer<'_>,
    liveness: &[Liveness],
    old_before_ns: u64,
) -> Vec<(usize, Evidence<Shape>)> {
    for sample in recorder.samples.iter_mut().filter(|sample| sample.block_bytes == 0) {
        let class = liveness.iter().find_map(|table| class_at(table, sample.block));
        sample.block_bytes = class.unwrap_or(0);
    }
    let recorder = &*recorder;
    let mut counts: HashMap<(i32, Met), u64> = HashMap::new();
    for sample in &recorder.samples {
        *counts.entry((sample.tid, Met::of(sample))).or_default() += 1;
    }
    let weight = |sample: &Sample| {
        let tally = match Met::of(sample) {
            Met::At(place) => recorder.place_tallies.get(&(sample.tid, place)),
            Met::In(class) => recorder.tallies.get(&(sample.tid, class)),
        };
        let count = counts.get(&(sample.tid, Met::of(sample))).copied().unwrap_or(1);
        tally.map_or(0.0, super::Tally::rate) / count.max(1) as f64
    };
    let by_place = met_by_place(recorder, &weight);
    let speaks = |sample: &&Sample| {
        sample.block_bytes != 0
            && sample.place.is_some() == by_place.contains(&(sample.tid, sample.block_bytes))
    };
    let evidence = |sample: &Sample| Evidence {
        block_bytes: sample.block_bytes,
        site: sample.site,
        weight: weight(sample),
        is_old: sample.time_ns < old_before_ns,
        stayed: stayed(recorder, typer, liveness, sample),
    };
    let samples = recorder.samples.iter().enumerate().filter(|(_, sample)| speaks(sample));
    samples.map(|(index, sample)| (index, evidence(sample))).collect()
}

/// How a sample was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Met {
    /// Where a function returned.
    At(u64),
    /// In the thread cache of a class.
    In(u64),
}

impl Met {
    fn of(sample: &Sample) -> Self {
        sample.place.map_or(Self::In(sample.block_bytes), Self::At)
    }
}

/// Threads and classes of which the places where functions return show many more allocations than the thread cache does.
fn met_by_place(recorder: &Recorder<'_>, weight: &dyn Fn(&Sample) -> f64) -> BTreeSet<(i32, u64)> {
    const FEWEST: u32 = 3;
    let mut rates: BTreeMap<(i32, u64), (u32, f64)> = BTreeMap::new();
    for sample in recorder.samples.iter().filter(|sample| sample.place.is_some()) {
        let (count, rate) = rates.entry((sample.tid, sample.block_bytes)).or_default();
        *count += 1;
        *rate += weight(sample);
    }
    let passes_by = |(key, (count, rate)): (&(i32, u64), &(u32, f64))| {
        let cached = recorder.tallies.get(key).map_or(0.0, super::Tally::rate);
        (cached == 0.0 || (*count >= FEWEST && *rate > 2.0 * cached)).then_some(*key)
    };
    rates.iter().filter_map(passes_by).collect()
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
    let now = recorder.look(sample.block, then.len_bytes())?;
    now.is_still(then).then(|| typer.shape(&now))
}
