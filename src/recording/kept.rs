//! What is kept of a recording: the exact growth, every sample with its stack and what became of it. From that it is
//! attributed, at once or later, as often as wanted.

use super::recorder::{Recorder, Sample};
use super::schema::Cost;
use crate::attribution::{Evidence, Grown, Share};
use crate::content::{Shape, Typer};
use crate::growth::Growth;
use crate::snapshot::Snapshot;
use crate::snapshot::schema::Target;
use crate::stacks::schema::Frame;
use crate::symbolize::Symbolizer;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

/// The value of [`Kept::schema`].
pub const SCHEMA: &str = "heaptap/samples/1";

/// All of a recording.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Whose heap it is.
    pub target: Target,
    /// When it began, seconds since 1970.
    pub taken_at: f64,
    /// How allocations were sampled.
    pub sampler: String,
    /// Its length.
    pub seconds: f64,
    /// What it cost the target.
    pub cost: Cost,
    /// Exact growth by size class, between the first and the last count, with the counts between.
    pub growth: Growth,
    /// What blocks may look like; samples and growth name them by their index.
    pub types: Vec<String>,
    /// Growth of classes by what their blocks look like, as far as it was told apart.
    pub grown: Vec<KeptGrown>,
    /// Who made large blocks, which are known one by one.
    pub large: Vec<KeptLarge>,
    /// Stacks, each once, the newest frame first.
    pub stacks: Vec<Vec<Frame>>,
    /// Names of the threads that allocated.
    pub threads: BTreeMap<i32, String>,
    /// What was sampled, in order of time.
    pub samples: Vec<KeptSample>,
}

/// Growth of the blocks of one class and look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptGrown {
    /// Usable bytes of a block.
    pub size_bytes: u64,
    /// Index in [`Kept::types`].
    #[serde(rename = "type")]
    pub type_index: usize,
    /// Blocks.
    pub delta_blocks: f64,
}

/// Growth of large blocks, made by one stack: already divided, since each block is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptLarge {
    /// Usable bytes of a block, on the average.
    pub size_bytes: u64,
    /// Index in [`Kept::stacks`].
    pub stack: usize,
    /// Blocks.
    pub delta_blocks: f64,
    /// Part of the growth of all large blocks, with its 95 % interval.
    pub share: f64,
    /// Lower end.
    pub share_low: f64,
    /// Upper end.
    pub share_high: f64,
    /// Pages that it was seen to touch first.
    pub samples: u32,
    /// The part of those that belong to blocks that stayed.
    pub stay_ratio: f64,
    /// The threads.
    pub tids: Vec<i32>,
}

/// One sampled allocation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeptSample {
    /// The thread.
    pub tid: i32,
    /// When, since the recording's first sample.
    pub at_us: u64,
    /// The block.
    pub address: u64,
    /// Its usable bytes.
    pub size_bytes: u64,
    /// Index in [`Kept::stacks`].
    pub stack: usize,
    /// Allocations a second that it stands for.
    pub weight: f64,
    /// It was allocated long enough before the end to be judged.
    pub is_old: bool,
    /// It was given back while it was still watched.
    pub freed_at_once: bool,
    /// What it looks like, as an index in [`Kept::types`], if it was still the same block at the end.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_index: Option<usize>,
    /// The allocator that holds it, if it stayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocator: Option<String>,
    /// The arena that holds it, if it stayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
}

impl Kept {
    /// Joins stacks that differ in nothing but the copy of a line that they passed: compilers repeat the body of a loop, and
    /// each copy calls from another address. Places without a name are told apart by their addresses.
    pub fn join_alike(&mut self) {
        let mut known: HashMap<Vec<Call>, usize> = HashMap::new();
        let mut joined = Vec::new();
        let mut new_index = Vec::new();
        for stack in std::mem::take(&mut self.stacks) {
            let index = *known.entry(stack.iter().map(Call::of).collect()).or_insert(joined.len());
            if index == joined.len() {
                joined.push(stack);
            }
            new_index.push(index);
        }
        let renamed = |old: usize| new_index.get(old).copied().unwrap_or(old);
        self.samples.iter_mut().for_each(|sample| sample.stack = renamed(sample.stack));
        self.large.iter_mut().for_each(|large| large.stack = renamed(large.stack));
        self.stacks = joined;
    }
}

/// What tells one call from another in the source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Call {
    /// A line of a function.
    Line { function: String, file: String, line: u32 },
    /// A place in a module, or in the process.
    Place { module: Option<String>, offset: Option<u64>, address: Option<u64> },
}

impl Call {
    fn of(frame: &Frame) -> Self {
        match (&frame.function, &frame.file, frame.line) {
            (Some(function), Some(file), Some(line)) => {
                Self::Line { function: function.clone(), file: file.clone(), line }
            }
            _ => Self::Place { module: frame.module.clone(), offset: frame.offset, address: frame.address },
        }
    }
}

/// What a recording has come to, in the process's own terms.
pub(super) struct Outcome<'a> {
    pub recorder: &'a Recorder<'a>,
    pub symbolizer: &'a Symbolizer<'a>,
    pub typer: &'a Typer<'a>,
    /// What became of samples, by their index; those that say nothing are not there.
    pub evidence: &'a [(usize, Evidence<Shape>)],
    pub grown: &'a [Grown<Shape>],
    /// Who made large blocks.
    pub large: &'a [Share<Shape>],
    /// The last moment.
    pub last: Option<&'a Snapshot>,
}

impl Outcome<'_> {
    /// Names and numbers all of it.
    pub fn keep(&self, growth: Growth, elapsed: Duration) -> Kept {
        let (types, index_of) = self.types();
        let samples = &self.recorder.samples;
        let begun_ns = samples.iter().map(|sample| sample.time_ns).min().unwrap_or(0);
        let judged = self.evidence.iter().filter_map(|(index, one)| Some((samples.get(*index)?, one)));
        let mut judged: Vec<KeptSample> = judged
            .map(|(sample, evidence)| KeptSample {
                at_us: (sample.time_ns - begun_ns) / 1000,
                type_index: evidence.stayed.and_then(|shape| index_of.get(&shape).copied()),
                ..self.sample(sample, evidence)
            })
            .collect();
        judged.sort_by_key(|sample| sample.at_us);
        let touches = &self.recorder.touches.seen;
        let touching = touches.iter().map(|touch| touch.tid);
        let tids: BTreeSet<i32> = samples.iter().map(|sample| sample.tid).chain(touching).collect();
        let budget = self.recorder.budget();
        let name = |frames: &Vec<crate::unwind::Frame>| {
            frames.iter().flat_map(|frame| self.symbolizer.frames(frame)).collect()
        };
        let mut kept = Kept {
            schema: SCHEMA.to_owned(),
            target: self.last.map(|last| last.summary.target.clone()).unwrap_or_default(),
            taken_at: seconds_since_1970() - elapsed.as_secs_f64(),
            sampler: sampler_name(self.recorder),
            seconds: elapsed.as_secs_f64(),
            cost: Cost {
                target_cpu_fraction: budget.spent().as_secs_f64() / elapsed.as_secs_f64(),
                hits: budget.hits(),
                hit_cost_us: budget.hit_cost().as_secs_f64() * 1e6,
                unknown_hits: self.recorder.unknown_hits,
            },
            growth,
            grown: self
                .grown
                .iter()
                .filter_map(|grown| {
                    Some(KeptGrown {
                        size_bytes: grown.block_bytes,
                        type_index: *index_of.get(&grown.shape)?,
                        delta_blocks: grown.delta_blocks,
                    })
                })
                .collect(),
            types,
            large: self.large.iter().map(|share| self.large(share)).collect(),
            stacks: self.recorder.sites.iter().map(name).collect(),
            threads: tids
                .into_iter()
                .filter_map(|tid| Some((tid, self.recorder.thread_name(tid)?)))
                .collect(),
            samples: judged,
        };
        kept.join_alike();
        kept
    }

    /// Every shape by its name, and its index.
    fn types(&self) -> (Vec<String>, BTreeMap<Shape, usize>) {
        let stayed = self.evidence.iter().filter_map(|(_, evidence)| evidence.stayed);
        let shapes: BTreeSet<Shape> = stayed.chain(self.grown.iter().map(|grown| grown.shape)).collect();
        let names = shapes.iter().map(|shape| self.typer.name(*shape)).collect();
        (names, shapes.into_iter().zip(0..).collect())
    }

    fn large(&self, share: &Share<Shape>) -> KeptLarge {
        let touches = self.recorder.touches.seen.iter().filter(|touch| touch.site == share.site);
        let tids: BTreeSet<i32> = touches.map(|touch| touch.tid).collect();
        KeptLarge {
            size_bytes: share.block_bytes,
            stack: share.site,
            delta_blocks: share.delta_blocks,
            share: share.share,
            share_low: share.low,
            share_high: share.high,
            samples: share.samples,
            stay_ratio: share.stay_ratio,
            tids: tids.into_iter().collect(),
        }
    }

    fn sample(&self, sample: &Sample, evidence: &Evidence<Shape>) -> KeptSample {
        let holder = evidence.stayed.and_then(|_| self.holder(sample.block));
        let (allocator, shard) = holder.unzip();
        KeptSample {
            tid: sample.tid,
            address: sample.block,
            size_bytes: sample.block_bytes,
            stack: sample.site,
            weight: evidence.weight,
            is_old: evidence.is_old,
            freed_at_once: sample.freed_at_once,
            allocator,
            shard,
            ..KeptSample::default()
        }
    }

    /// The allocator and the arena that hold a block at the last moment.
    fn holder(&self, block: u64) -> Option<(String, u32)> {
        let last = self.last?;
        let allocators = last.summary.allocators.iter().zip(&last.liveness);
        allocators.into_iter().find_map(|(allocator, liveness)| {
            let runs = &liveness.runs;
            let index = runs.address.partition_point(|start| *start <= block).checked_sub(1)?;
            let run = runs.view(index..index + 1).next()?;
            let class = liveness.run_classes.get(usize::from(run.class))?;
            let run_bytes = run.words.len() as u64 * 64 * class.block_bytes;
            (block - run.address < run_bytes).then(|| (allocator.name.clone(), run.shard))
        })
    }
}

/// What was watched.
fn sampler_name(recorder: &Recorder<'_>) -> String {
    let mut parts = Vec::new();
    if !recorder.tallies.is_empty() {
        parts.push("data watchpoints on thread caches");
    }
    if !recorder.place_tallies.is_empty() {
        parts.push("breakpoints where allocation functions return");
    }
    if !recorder.touches.seen.is_empty() {
        parts.push("first touches of pages");
    }
    parts.join(", ")
}

fn seconds_since_1970() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
