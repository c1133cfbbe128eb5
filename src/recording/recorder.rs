//! Watches the thread caches of a running process, a short while at a time.

use super::arm::{Before, HitKind, PcTable};
use super::budget::Budget;
use crate::allocator::CacheHead;
use crate::capture::LiveMemory;
use crate::content::{Content, LOOK_BYTES_MAX};
use crate::memory::{Fault, Memory, MemoryExt};
use crate::module::Module;
use crate::unwind::{Frame, Unwinder};
use heaptap_platform::{
    AddressRange, Aim, Architecture, Hit, Process, SamplerError, ThreadPriority, ThreadSampler,
    sampler_clock_ns,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Bytes of a stack that are copied with each hit.
pub const STACK_LEN_BYTES: u32 = 8192;
/// Bytes of records of so many hits end an arming.
const HITS_WANTED: u64 = 5;
/// Bytes that one record has besides the stack.
const RECORD_LEN_BYTES: u64 = STACK_LEN_BYTES as u64 + 200;
/// Longest time to stay armed after the first hit.
const TRAIL: Duration = Duration::from_millis(4);
/// Time between two looks for further hits once they have proved rare.
const NAP: Duration = Duration::from_micros(30);
/// Longest time to spin for the first hit, and then to sleep for it.
const SPIN: Duration = Duration::from_micros(150);
const SLEEP: Duration = Duration::from_millis(3);
/// Mean of the random time between two armings.
const GAP_MEAN: Duration = Duration::from_micros(1500);
/// Most samplers open at a time; each has a ring of its own.
const SAMPLERS_MAX: usize = 64;
/// Most samples kept.
const SAMPLES_MAX: usize = 1 << 18;

/// Why nothing could be sampled.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// No breakpoint could be had.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The allocator has no words that could be watched.
    #[error("process {pid}: its allocator ({allocators}) has no thread caches whose calls can be watched")]
    NoHeads {
        /// The process.
        pid: i32,
        /// What was found in it.
        allocators: String,
    },
    /// The instruction set is none whose stores are understood.
    #[error("process {pid}: recording is supported on x86-64 only so far")]
    Architecture {
        /// The process.
        pid: i32,
    },
}

/// One sampled allocation.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The thread.
    pub tid: i32,
    /// When, on the clock of [`sampler_clock_ns`].
    pub time_ns: u64,
    /// The block.
    pub block: u64,
    /// Its usable bytes.
    pub block_bytes: u64,
    /// Index of its stack in [`Recorder::sites`].
    pub site: usize,
    /// It was given back by the same thread while the word was still watched.
    pub freed_at_once: bool,
    /// What it held some microseconds later.
    pub content: Option<Content>,
}

/// How often a thread uses a class.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Allocations seen.
    pub allocations: u64,
    /// Time watched, without what the hits took.
    pub watched: Duration,
    /// Armings.
    pub arms: u64,
}

impl Tally {
    /// Allocations a second.
    pub fn rate(&self) -> f64 {
        self.allocations as f64 / self.watched.as_secs_f64().max(1e-6)
    }
}

/// Samples allocations of a running process.
#[derive(Debug)]
pub struct Recorder<'a> {
    process: &'a Process,
    live: &'a LiveMemory,
    unwinder: Unwinder<'a>,
    heads: Vec<CacheHead>,
    /// Size classes to watch, with their weights.
    classes: Vec<(u64, f64)>,
    samplers: HashMap<i32, (ThreadSampler, u64)>,
    pcs: PcTable,
    budget: Budget,
    begun: Instant,
    random: u64,
    site_index: HashMap<Vec<u64>, usize>,
    /// Stacks, each once: frames from the caller of the sampled instruction on.
    pub sites: Vec<Vec<Frame>>,
    /// What was sampled.
    pub samples: Vec<Sample>,
    /// By thread and class.
    pub tallies: HashMap<(i32, u64), Tally>,
    /// Hits that were neither an allocation nor a free, or could not be told.
    pub unknown_hits: u64,
}

impl<'a> Recorder<'a> {
    /// A recorder that watches nothing yet.
    pub fn new(
        process: &'a Process,
        live: &'a LiveMemory,
        modules: &'a [Module],
        executable: &[AddressRange],
        budget: Budget,
    ) -> Result<Self, RecordingError> {
        let architecture = process.architecture().filter(|known| *known == Architecture::X86_64);
        let architecture = architecture.ok_or(RecordingError::Architecture { pid: process.pid() })?;
        Ok(Self {
            process,
            live,
            unwinder: Unwinder::new(architecture, modules, executable),
            heads: Vec::new(),
            classes: Vec::new(),
            samplers: HashMap::new(),
            pcs: PcTable::default(),
            budget,
            begun: Instant::now(),
            random: sampler_clock_ns() | 1,
            site_index: HashMap::new(),
            sites: Vec::new(),
            samples: Vec::new(),
            tallies: HashMap::new(),
            unknown_hits: 0,
        })
    }

    /// Watches these words from now on, as far as they are of these classes (with their weights).
    pub fn watch(&mut self, heads: Vec<CacheHead>, classes: Vec<(u64, f64)>) {
        self.samplers.retain(|tid, _| heads.iter().any(|head| head.tid == *tid));
        self.heads = heads;
        self.classes = classes;
    }

    /// The name of a thread, unless it has ended.
    pub fn thread_name(&self, tid: i32) -> Option<String> {
        self.process.thread_name(tid)
    }

    /// What sampling has cost.
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Samples until the time comes or `is_ended` says so.
    ///
    /// # Errors
    /// Breakpoints cannot be had.
    pub fn run(&mut self, until: Instant, is_ended: &dyn Fn() -> bool) -> Result<(), RecordingError> {
        while Instant::now() < until && !is_ended() {
            let gap = GAP_MEAN.mul_f64(-self.uniform().max(1e-9).ln());
            let wait = self.budget.wait(self.begun.elapsed()).max(gap);
            std::thread::sleep(wait.min(until.saturating_duration_since(Instant::now())));
            let Some(head) = self.choose() else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            match self.arm(&head) {
                // A thread may end at any time.
                Ok(()) | Err(SamplerError::Gone { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A random number from 0 to 1 (xorshift64*).
    fn uniform(&mut self) -> f64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A class by its weight, then a thread by how often it uses the class.
    fn choose(&mut self) -> Option<CacheHead> {
        let (class_at, head_at) = (self.uniform(), self.uniform());
        let weights = self.classes.iter().map(|(_, weight)| *weight);
        let &(class, _) = pick(&self.classes, weights, class_at)?;
        let heads: Vec<CacheHead> =
            self.heads.iter().filter(|head| head.block_bytes == class).copied().collect();
        let rates: Vec<f64> = heads
            .iter()
            .map(|head| self.tallies.get(&(head.tid, class)))
            .map(|tally| tally.filter(|tally| tally.arms >= 5).map_or(f64::NAN, Tally::rate))
            .collect();
        let known: Vec<f64> = rates.iter().copied().filter(|rate| !rate.is_nan()).collect();
        let mean = if known.is_empty() { 1.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        let least = mean / 10.0 + 1e-9;
        let weights = rates.iter().map(|rate| if rate.is_nan() { mean + least } else { rate + least });
        pick(&heads, weights, head_at).copied()
    }

    /// Watches one word for a short while.
    fn arm(&mut self, head: &CacheHead) -> Result<(), SamplerError> {
        let mut sampler = self.sampler(head)?;
        let hits_before = sampler.hit_count()?;
        // Whoever is put aside while the breakpoint is enabled lets the target run into it again and again.
        let raised = ThreadPriority::raise();
        let before = Before::read(head, &Unasked(self.live));
        let begun = Instant::now();
        sampler.enable()?;
        let seen = wait_for_hits(&sampler, begun);
        sampler.disable()?;
        let armed = begun.elapsed();
        drop(raised);
        let hits = sampler.take();
        let count = sampler.hit_count()?.saturating_sub(hits_before);
        self.samplers.insert(head.tid, (sampler, head.address));
        self.budget.spend(count);
        let cost = self.budget.hit_cost().saturating_mul(u32::try_from(count).unwrap_or(0));
        let tally = self.tallies.entry((head.tid, head.block_bytes)).or_default();
        tally.arms += 1;
        tally.watched += armed.saturating_sub(cost).max(Duration::from_micros(2));
        if seen {
            self.keep(head, &before, &hits);
        }
        Ok(())
    }

    fn sampler(&mut self, head: &CacheHead) -> Result<ThreadSampler, SamplerError> {
        let aim = Aim::Writes { address: head.address, len_bytes: head.len_bytes() };
        match self.samplers.remove(&head.tid) {
            Some((sampler, address)) if address == head.address => Ok(sampler),
            Some((mut sampler, _)) => sampler.aim(aim).map(|()| sampler),
            None => {
                if self.samplers.len() >= SAMPLERS_MAX
                    && let Some(&tid) = self.samplers.keys().next()
                {
                    self.samplers.remove(&tid);
                }
                ThreadSampler::open(self.process, head.tid, aim, STACK_LEN_BYTES)
            }
        }
    }

    fn keep(&mut self, head: &CacheHead, before: &Before, hits: &[Hit]) {
        let kinds = self.pcs.classify(head, before, hits, &Unasked(self.live));
        for (index, (hit, kind)) in hits.iter().zip(&kinds).enumerate() {
            let HitKind::Allocation { block } = *kind else {
                self.unknown_hits += u64::from(*kind == HitKind::Unknown);
                continue;
            };
            if let Some(tally) = self.tallies.get_mut(&(head.tid, head.block_bytes)) {
                tally.allocations += 1;
            }
            // The first hit after an arbitrary moment follows a pause more often than others do.
            if index == 0 || self.samples.len() >= SAMPLES_MAX {
                continue;
            }
            let later = hits.iter().zip(&kinds).skip(index + 1);
            let freed_at_once = later
                .filter(|(_, kind)| **kind == HitKind::Free)
                .any(|(hit, _)| hit.registers.general().contains(&block));
            let site = self.site(hit);
            self.samples.push(Sample {
                tid: hit.tid,
                time_ns: hit.time_ns,
                block,
                block_bytes: head.block_bytes,
                site,
                freed_at_once,
                content: self.look(block, head.block_bytes),
            });
        }
    }

    /// What a block holds now.
    pub fn look(&self, block: u64, block_bytes: u64) -> Option<Content> {
        let len_bytes = usize::try_from(block_bytes.min(LOOK_BYTES_MAX)).ok()?;
        Unasked(self.live).read_vec(block, len_bytes).ok().map(Content::new)
    }

    fn site(&mut self, hit: &Hit) -> usize {
        let stack = CopiedStack { start: hit.registers.stack_pointer, bytes: &hit.stack };
        let mut frames = self.unwinder.unwind(&hit.registers, &stack).frames;
        // Where in the allocator it was hit differs from call to call and tells nothing.
        if frames.len() > 1 {
            frames.remove(0);
        }
        let key: Vec<u64> = frames.iter().map(|frame| frame.program_counter).collect();
        let next = self.sites.len();
        let site = *self.site_index.entry(key).or_insert(next);
        if site == next {
            self.sites.push(frames);
        }
        site
    }
}

/// Stays until there are enough hits, or none come: whether there was one.
fn wait_for_hits(sampler: &ThreadSampler, begun: Instant) -> bool {
    while sampler.waiting_len_bytes() == 0 {
        if begun.elapsed() > SPIN {
            if !sampler.wait(SLEEP) {
                return false;
            }
            break;
        }
        std::hint::spin_loop();
    }
    // What follows tells allocations from frees, and which of them were given back at once.
    let first = Instant::now();
    while sampler.waiting_len_bytes() < HITS_WANTED * RECORD_LEN_BYTES && first.elapsed() < TRAIL {
        if first.elapsed() < SPIN {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(NAP);
        }
    }
    true
}

/// One of `things` by its weight, where `at` goes from 0 to 1.
fn pick<T>(things: &[T], weights: impl Iterator<Item = f64> + Clone, at: f64) -> Option<&T> {
    let mut left = at * weights.clone().sum::<f64>();
    for (thing, weight) in things.iter().zip(weights) {
        left -= weight;
        if left <= 0.0 {
            return Some(thing);
        }
    }
    things.last()
}

/// Memory that the target has just used, which therefore is present: not asked for first.
struct Unasked<'a>(&'a LiveMemory);

impl Memory for Unasked<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.0.process().read(address, bytes).map_err(|_| Fault { address })
    }
}

/// The part of a stack that was copied with a hit.
struct CopiedStack<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl Memory for CopiedStack<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let fault = Fault { address };
        let offset = address.checked_sub(self.start).and_then(|offset| usize::try_from(offset).ok());
        let offset = offset.ok_or(fault)?;
        let end = offset.checked_add(bytes.len()).ok_or(fault)?;
        bytes.copy_from_slice(self.bytes.get(offset..end).ok_or(fault)?);
        Ok(())
    }
}
