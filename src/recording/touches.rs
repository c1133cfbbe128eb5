//! Who touches pages for the first time: all that tells who made a large block, since allocators take large blocks from fresh
//! pages and nobody watches each of them.
//!
//! The kernel samples the page faults of each thread, with the stack. It costs the target next to nothing: a fault costs more
//! than its sample. A place that is touched again after it was given back causes no fault, so not every block has a witness.

use heaptap_platform::{Aim, Hit, Process, ThreadSampler};
use std::collections::HashMap;

/// Faults of each thread that are sampled a second, about.
const PER_SECOND: u64 = 200;
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

/// The touches of all threads.
#[derive(Debug, Default)]
pub struct Touches {
    samplers: HashMap<i32, ThreadSampler>,
    /// What was seen.
    pub seen: Vec<Touch>,
    /// Threads that are not followed, as there are too many or it was refused.
    pub left_out: usize,
}

impl Touches {
    /// Follows these threads from now on.
    pub fn follow(&mut self, process: &Process, threads: &[i32]) {
        self.samplers.retain(|tid, _| threads.contains(tid));
        self.left_out = 0;
        for &tid in threads {
            if self.samplers.contains_key(&tid) {
                continue;
            }
            match open(process, tid).filter(|_| self.samplers.len() < THREADS_MAX) {
                Some(sampler) => drop(self.samplers.insert(tid, sampler)),
                None => self.left_out += 1,
            }
        }
    }

    /// What has happened since.
    pub fn take(&mut self) -> Vec<Hit> {
        let waiting = self.samplers.values_mut().filter(|sampler| sampler.waiting_len_bytes() > 0);
        waiting.flat_map(ThreadSampler::take).collect()
    }

    /// Keeps one, with the stack that it turned out to have.
    pub fn keep(&mut self, hit: &Hit, site: usize) {
        if self.seen.len() < TOUCHES_MAX {
            self.seen.push(Touch { tid: hit.tid, time_ns: hit.time_ns, address: hit.address, site });
        }
    }
}

/// With what the kernel touches on the thread's behalf where that is permitted: buffers are often filled by `read`.
fn open(process: &Process, tid: i32) -> Option<ThreadSampler> {
    let aim = |with_kernel| Aim::PageFaults { per_second: PER_SECOND, with_kernel };
    let sampler = ThreadSampler::open(process, tid, aim(true), STACK_LEN_BYTES)
        .or_else(|_| ThreadSampler::open(process, tid, aim(false), STACK_LEN_BYTES))
        .ok()?;
    sampler.enable().ok()?;
    Some(sampler)
}
