//! Watches the thread caches of a running process, a short while at a time.

use super::arm::{Before, HitKind, PcTable};
use super::attendant::Attendant;
use super::budget::Budget;
use super::touches::Touches;
use super::watch::{is_like, pick, trail, wait_for_hits, weights};
use crate::allocator::{Allocator, CacheHead};
use crate::capture::LiveMemory;
use crate::content::{Content, LOOK_BYTES_MAX};
use crate::memory::{Fault, Memory, MemoryExt};
use crate::module::Module;
use crate::unwind::{Frame, Unwinder};
use heaptap_platform::{
    AddressRange, Aim, Architecture, Hit, Process, Registers, SamplerError, ThreadPriority, ThreadSampler,
    sampler_clock_ns,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Bytes of a stack that are copied with each hit.
pub const STACK_LEN_BYTES: u32 = 8192;
/// Longest time to sleep between two looks at what was touched.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// Mean of the random time between two armings.
const GAP_MEAN: Duration = Duration::from_micros(1500);
/// Most samplers open at a time; each has a ring of its own.
const SAMPLERS_MAX: usize = 64;
/// Bytes of a block that are looked at as long as its size is not known.
const LOOK_BYTES_UNKNOWN: u64 = 32;
/// Most samples kept.
const SAMPLES_MAX: usize = 1 << 18;

/// What was read just before a breakpoint was enabled, the hits with what was seen of each, and the time without what that took.
type Watched<T, L> = (T, Vec<(Hit, L)>, Duration);

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
    /// Its size class; 0 where that was not known yet.
    pub block_bytes: u64,
    /// Where its function returned, for those that were met there.
    pub place: Option<u64>,
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
    allocators: &'a [Box<dyn Allocator>],
    /// Where allocation functions return.
    places: Vec<u64>,
    threads: Vec<i32>,
    /// Part of the armings that go to those places.
    survey_part: f64,
    samplers: HashMap<i32, (ThreadSampler, Aim)>,
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
    /// By thread and place.
    pub place_tallies: HashMap<(i32, u64), Tally>,
    /// The same over all threads, and over all places.
    place_sums: HashMap<u64, Tally>,
    thread_sums: HashMap<i32, Tally>,
    /// Pages touched for the first time.
    pub touches: Touches,
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
        allocators: &'a [Box<dyn Allocator>],
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
            allocators,
            places: Vec::new(),
            threads: Vec::new(),
            survey_part: 0.0,
            samplers: HashMap::new(),
            pcs: PcTable::default(),
            budget,
            begun: Instant::now(),
            random: sampler_clock_ns() | 1,
            site_index: HashMap::new(),
            sites: Vec::new(),
            samples: Vec::new(),
            tallies: HashMap::new(),
            place_tallies: HashMap::new(),
            place_sums: HashMap::new(),
            thread_sums: HashMap::new(),
            touches: Touches::default(),
            unknown_hits: 0,
        })
    }

    /// Watches these words from now on, as far as they are of these classes (with their weights), and for this part of the time
    /// the places where allocation functions return.
    pub fn watch(&mut self, heads: Vec<CacheHead>, classes: Vec<(u64, f64)>, survey_part: f64) {
        self.threads = self.process.thread_ids().unwrap_or_default();
        self.samplers.retain(|tid, _| self.threads.contains(tid));
        self.touches.follow(self.process, &self.threads);
        self.heads = heads;
        self.classes = classes;
        self.survey_part = if self.places.is_empty() { 0.0 } else { survey_part };
    }

    /// Allocations of a class that its thread caches show, a second; `None` as long as that is not known.
    pub fn cached_rate(&self, class: u64) -> Option<f64> {
        const ARMS_MIN: u64 = 20;
        let tallies = self.tallies.iter().filter(|((_, of), _)| *of == class).map(|(_, tally)| tally);
        let (arms, rate) =
            tallies.fold((0, 0.0), |(arms, rate), tally| (arms + tally.arms, rate + tally.rate()));
        (arms >= ARMS_MIN).then_some(rate)
    }

    /// Where allocation functions return.
    pub fn survey(&mut self, places: Vec<u64>) {
        self.places = places;
    }

    /// The name of a thread, unless it has ended.
    pub fn thread_name(&self, tid: i32) -> Option<String> {
        self.process.thread_name(tid)
    }

    /// What sampling has cost.
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Samples until the time comes or the attendant says so.
    ///
    /// # Errors
    /// Breakpoints cannot be had.
    pub fn run(&mut self, until: Instant, attendant: &dyn Attendant) -> Result<(), RecordingError> {
        while Instant::now() < until && !attendant.is_ended() {
            attendant.tell(self.samples.len() as u64, self.budget.spent(), self.begun.elapsed());
            self.take_touches();
            let gap = GAP_MEAN.mul_f64(-self.uniform().max(1e-9).ln());
            let wait = self.budget.wait(self.begun.elapsed()).max(gap);
            let wait = wait.min(until.saturating_duration_since(Instant::now()));
            if wait > PAUSE_MAX {
                std::thread::sleep(PAUSE_MAX);
                continue;
            }
            std::thread::sleep(wait);
            let armed = if self.uniform() < self.survey_part {
                self.choose_place().map(|(tid, place)| self.arm_place(tid, place))
            } else {
                self.choose().map(|head| self.arm(&head))
            };
            match armed {
                None => std::thread::sleep(Duration::from_millis(10)),
                // A thread may end at any time.
                Some(Ok(()) | Err(SamplerError::Gone { .. })) => {}
                Some(Err(error)) => return Err(error.into()),
            }
        }
        self.take_touches();
        Ok(())
    }

    fn take_touches(&mut self) {
        for hit in self.touches.take(self.process) {
            let site = self.site(&hit, false);
            self.touches.keep(&hit, site);
        }
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
        let by_class = self.classes.iter().map(|(_, weight)| *weight);
        let &(class, _) = pick(&self.classes, by_class, class_at)?;
        let heads: Vec<CacheHead> =
            self.heads.iter().filter(|head| head.block_bytes == class).copied().collect();
        let tallies = heads.iter().map(|head| self.tallies.get(&(head.tid, class)));
        let by_rate = weights(tallies, 10.0);
        pick(&heads, by_rate.iter().copied(), head_at).copied()
    }

    /// A thread and a place, each by how often allocations were met there.
    fn choose_place(&mut self) -> Option<(i32, u64)> {
        let (thread_at, place_at) = (self.uniform(), self.uniform());
        let by_thread = weights(self.threads.iter().map(|tid| self.thread_sums.get(tid)), 10.0);
        let by_place = weights(self.places.iter().map(|place| self.place_sums.get(place)), 50.0);
        let tid = pick(&self.threads, by_thread.iter().copied(), thread_at)?;
        let place = pick(&self.places, by_place.iter().copied(), place_at)?;
        Some((*tid, *place))
    }

    /// Watches one word for a short while.
    fn arm(&mut self, head: &CacheHead) -> Result<(), SamplerError> {
        let aim = Aim::Writes { address: head.address, len_bytes: head.len_bytes() };
        let known = self.tallies.get(&(head.tid, head.block_bytes)).copied().unwrap_or_default();
        let live = self.live;
        let before = || Before::read(head, &Unasked(live));
        let (before, hits, watched) = self.watch_shortly(head.tid, aim, trail(&known), before, &|_| ())?;
        let hits: Vec<Hit> = hits.into_iter().map(|(hit, ())| hit).collect();
        let tally = self.tallies.entry((head.tid, head.block_bytes)).or_default();
        tally.arms += 1;
        tally.watched += watched;
        self.keep(head, &before, &hits);
        Ok(())
    }

    /// Watches one place for a short while.
    fn arm_place(&mut self, tid: i32, place: u64) -> Result<(), SamplerError> {
        let known = self.place_tallies.get(&(tid, place)).copied().unwrap_or_default();
        let (live, allocators) = (self.live, self.allocators);
        let look = |hit: &Hit| Looked::at(hit, live, allocators);
        let aim = Aim::Execution { address: place };
        let (_, hits, watched) = self.watch_shortly(tid, aim, trail(&known), || (), &look)?;
        for tally in [
            self.place_tallies.entry((tid, place)).or_default(),
            self.place_sums.entry(place).or_default(),
            self.thread_sums.entry(tid).or_default(),
        ] {
            tally.arms += 1;
            tally.watched += watched;
            tally.allocations += hits.len() as u64;
        }
        // As with words, the first one is not kept.
        for (index, (hit, looked)) in hits.iter().enumerate().skip(1) {
            let Some(looked) = looked.as_ref().filter(|_| self.samples.len() < SAMPLES_MAX) else { continue };
            let later = hits.iter().skip(index + 1).filter_map(|(_, later)| later.as_ref());
            // What is handed out again was given back in between.
            let freed_at_once = later.into_iter().any(|later| later.block == looked.block);
            let site = self.site_of_caller(hit);
            self.samples.push(Sample {
                tid,
                time_ns: hit.time_ns,
                block: looked.block,
                block_bytes: looked.block_bytes,
                place: Some(place),
                site,
                freed_at_once,
                content: looked.content.clone(),
            });
        }
        Ok(())
    }

    /// Enables a breakpoint until there are enough hits or it has been long enough; what `prepare` read just before, the hits with
    /// what `look` saw as soon as each was known, and the time without what they took.
    fn watch_shortly<T, L>(
        &mut self,
        tid: i32,
        aim: Aim,
        trail: Duration,
        prepare: impl FnOnce() -> T,
        look: &dyn Fn(&Hit) -> L,
    ) -> Result<Watched<T, L>, SamplerError> {
        let mut sampler = self.sampler(tid, aim)?;
        let hits_before = sampler.hit_count()?;
        // Whoever is put aside while the breakpoint is enabled lets the target run into it again and again.
        let raised = ThreadPriority::raise();
        let prepared = prepare();
        let begun = Instant::now();
        sampler.enable()?;
        let seen = wait_for_hits(&mut sampler, begun, trail, look);
        sampler.disable()?;
        let armed = begun.elapsed();
        drop(raised);
        let hits = seen.finish(sampler.take(), look);
        let count = sampler.hit_count()?.saturating_sub(hits_before);
        self.samplers.insert(tid, (sampler, aim));
        self.budget.spend(count);
        let cost = self.budget.hit_cost().saturating_mul(u32::try_from(count).unwrap_or(0));
        Ok((prepared, hits, armed.saturating_sub(cost).max(Duration::from_micros(2))))
    }

    fn sampler(&mut self, tid: i32, aim: Aim) -> Result<ThreadSampler, SamplerError> {
        match self.samplers.remove(&tid) {
            Some((sampler, aimed)) if aimed == aim => Ok(sampler),
            // The kernel lets a breakpoint be moved, but not become one of another kind.
            Some((mut sampler, aimed)) if is_like(aimed, aim) => sampler.aim(aim).map(|()| sampler),
            _ => {
                if self.samplers.len() >= SAMPLERS_MAX
                    && let Some(&tid) = self.samplers.keys().next()
                {
                    self.samplers.remove(&tid);
                }
                ThreadSampler::open(self.process, tid, aim, STACK_LEN_BYTES)
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
            let site = self.site(hit, true);
            self.samples.push(Sample {
                tid: hit.tid,
                time_ns: hit.time_ns,
                block,
                block_bytes: head.block_bytes,
                place: None,
                site,
                freed_at_once,
                content: self.look(block, head.block_bytes),
            });
        }
    }

    /// What a block holds now.
    pub fn look(&self, block: u64, block_bytes: u64) -> Option<Content> {
        let len_bytes = usize::try_from(block_bytes.min(LOOK_BYTES_MAX)).ok()?;
        Asked(self.live).read_vec(block, len_bytes).ok().map(Content::new)
    }

    /// The stack of a hit, without its newest frame if that one is the allocator's own.
    fn site(&mut self, hit: &Hit, in_allocator: bool) -> usize {
        let stack = CopiedStack { start: hit.registers.stack_pointer, bytes: &hit.stack };
        let mut frames = self.unwinder.unwind(&hit.registers, &stack).frames;
        // Where in the allocator it was hit differs from call to call and tells nothing.
        if in_allocator && frames.len() > 1 {
            frames.remove(0);
        }
        // Whoever touches memory does so at many places of one function.
        let told_apart = if in_allocator { frames.as_slice() } else { frames.get(1..).unwrap_or_default() };
        let key = told_apart.iter().map(|frame| frame.program_counter).collect();
        self.site_by(key, frames)
    }

    /// The stack behind a hit on a return instruction. What its function had saved is below the stack by then and was not copied,
    /// but it is back in the registers: so the return is made first.
    fn site_of_caller(&mut self, hit: &Hit) -> usize {
        let Some(registers) = returned(hit) else { return self.site(hit, true) };
        let bytes = hit.stack.get(8..).unwrap_or_default();
        let stack = CopiedStack { start: registers.stack_pointer, bytes };
        let mut frames = self.unwinder.unwind(&registers, &stack).frames;
        if let Some(first) = frames.first_mut() {
            first.is_caller = true;
        }
        let key = frames.iter().map(|frame| frame.program_counter).collect();
        self.site_by(key, frames)
    }

    fn site_by(&mut self, key: Vec<u64>, frames: Vec<Frame>) -> usize {
        let next = self.sites.len();
        let site = *self.site_index.entry(key).or_insert(next);
        if site == next {
            self.sites.push(frames);
        }
        site
    }
}

/// The registers once the return instruction that was hit has been executed.
fn returned(hit: &Hit) -> Option<Registers> {
    const PROGRAM_COUNTER_AT: usize = 16 * 8;
    const STACK_POINTER_AT: usize = 19 * 8;
    let mut raw = hit.registers.raw().to_vec();
    let caller = hit.stack.get(..8)?;
    raw.get_mut(PROGRAM_COUNTER_AT..PROGRAM_COUNTER_AT + 8)?.copy_from_slice(caller);
    let stack_pointer = hit.registers.stack_pointer.checked_add(8)?.to_le_bytes();
    raw.get_mut(STACK_POINTER_AT..STACK_POINTER_AT + 8)?.copy_from_slice(&stack_pointer);
    Registers::from_x86_64_user_regs(&raw)
}

/// A block that was just returned: what it is and holds has to be read before it is used for something else.
#[derive(Debug)]
struct Looked {
    block: u64,
    /// 0 where it is not known.
    block_bytes: u64,
    content: Option<Content>,
}

impl Looked {
    fn at(hit: &Hit, live: &LiveMemory, allocators: &[Box<dyn Allocator>]) -> Option<Self> {
        let memory = Asked(live);
        let block = hit.registers.get(0).filter(|block| *block != 0 && block % 8 == 0)?;
        let class = allocators.iter().find_map(|allocator| allocator.class_of(&memory, block));
        let len_bytes = class.unwrap_or(LOOK_BYTES_UNKNOWN).min(LOOK_BYTES_MAX);
        let content = memory.read_vec(block, usize::try_from(len_bytes).ok()?).ok().map(Content::new);
        Some(Self { block, block_bytes: class.unwrap_or(0), content })
    }
}

/// Memory that the target has just used, which therefore is present: not asked for first.
struct Unasked<'a>(&'a LiveMemory);

impl Memory for Unasked<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        self.0.process().read(address, bytes).map_err(|_| Fault { address })
    }
}

/// Memory that the target may not have touched yet, or has given back: what is not in memory at this moment is not read, since
/// that would bring it there. What was known of it a moment ago does not count.
struct Asked<'a>(&'a LiveMemory);

impl Memory for Asked<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let fault = Fault { address };
        let range = AddressRange::with_len(address, bytes.len() as u64).ok_or(fault)?;
        let present_bytes: u64 = self.0.present(range).iter().map(AddressRange::len_bytes).sum();
        if present_bytes < range.len_bytes() {
            return Err(fault);
        }
        self.0.process().read(address, bytes).map_err(|_| fault)
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
