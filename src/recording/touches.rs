//! Who touches pages for the first time: all that tells who made a large block, since allocators take large blocks from fresh
//! pages and nobody watches each of them.
//!
//! The kernel samples the page faults of each thread, with the stack. It costs the target next to nothing: a fault costs more
//! than its sample. A place that is touched again after it was given back causes no fault, so not every block has a witness.

use heaptap_platform::{Aim, Hit, Process, ThreadSampler};
use std::collections::HashMap;
use std::time::Instant;

/// Faults of each thread that are sampled a second, about, once its rate is known; and one of how many before that.
const PER_SECOND: f64 = 200.0;
const FIRST_PERIOD: u64 = 8;
/// Samples at once that are too many: then eight times fewer are taken.
const AT_ONCE_MAX: usize = 20;
const PERIOD_MAX: u64 = 1 << 20;
/// Most threads that are followed; each has a ring of its own.
const THREADS_MAX: usize = 64;
/// Most touches kept.
const TOUCHES_MAX: usize = 1 << 18;
/// Bytes of a stack that are copied with each.
const STACK_LEN_BYTES: u32 = 8192;

/// A page that was touched for the first time.
#[derive(Debug, Clone, Copy)]
pub struct Touch {
    /// By whom.
    pub tid: i32,
    /// When.
    pub time_ns: u64,
    /// The byte.
    pub address: u64,
    /// Index of the stack in [`super::Recorder::sites`].
    pub site: usize,
}

/// A thread whose faults are sampled.
#[derive(Debug)]
struct Followed {
    sampler: ThreadSampler,
    period: u64,
    since: Instant,
}

impl Followed {
    fn open(process: &Process, tid: i32, period: u64) -> Option<Self> {
        // With what the kernel touches on the thread's behalf where that is permitted: buffers are often filled by `read`.
        let aim = |with_kernel| Aim::PageFaults { period, with_kernel };
        let sampler = ThreadSampler::open(process, tid, aim(true), STACK_LEN_BYTES)
            .or_else(|_| ThreadSampler::open(process, tid, aim(false), STACK_LEN_BYTES))
            .ok()?;
        sampler.enable().ok()?;
        Some(Self { sampler, period, since: Instant::now() })
    }

    /// The period that suits its rate so far.
    fn period_wanted(&self) -> u64 {
        let count = self.sampler.hit_count().unwrap_or(0);
        let rate = count as f64 / self.since.elapsed().as_secs_f64().max(1e-3);
        ((rate / PER_SECOND) as u64).clamp(1, PERIOD_MAX)
    }
}

/// The touches of all threads.
#[derive(Debug, Default)]
pub struct Touches {
    followed: HashMap<i32, Followed>,
    /// What was seen.
    pub seen: Vec<Touch>,
    /// Threads that are not followed, as there are too many or it was refused.
    pub left_out: usize,
}

impl Touches {
    /// Follows these threads from now on, each as closely as its rate allows.
    pub fn follow(&mut self, process: &Process, threads: &[i32]) {
        self.followed.retain(|tid, _| threads.contains(tid));
        self.left_out = 0;
        for &tid in threads {
            let known = self.followed.get(&tid).map(|followed| (followed.period, followed.period_wanted()));
            let period = match known {
                Some((period, wanted)) if wanted >= period / 2 && wanted <= period * 2 => continue,
                Some((_, wanted)) => wanted,
                None => FIRST_PERIOD,
            };
            let has_room = known.is_some() || self.followed.len() < THREADS_MAX;
            match Followed::open(process, tid, period).filter(|_| has_room) {
                Some(followed) => drop(self.followed.insert(tid, followed)),
                None => self.left_out += 1,
            }
        }
    }

    /// What has happened since.
    pub fn take(&mut self, process: &Process) -> Vec<Hit> {
        let mut all = Vec::new();
        for (tid, followed) in &mut self.followed {
            if followed.sampler.waiting_len_bytes() == 0 {
                continue;
            }
            let hits = followed.sampler.take();
            if hits.len() > AT_ONCE_MAX
                && let Some(sparser) = Followed::open(process, *tid, (followed.period * 8).min(PERIOD_MAX))
            {
                *followed = sparser;
            }
            all.extend(hits);
        }
        all
    }

    /// Keeps one, with the stack that it turned out to have.
    pub fn keep(&mut self, hit: &Hit, site: usize) {
        if self.seen.len() < TOUCHES_MAX {
            self.seen.push(Touch { tid: hit.tid, time_ns: hit.time_ns, address: hit.address, site });
        }
    }
}
