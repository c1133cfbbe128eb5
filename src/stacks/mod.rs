//! Stacks of all threads: unwound from a capture, like put with like, named.
//!
//! Knows neither how the capture was taken nor how stacks are printed.

pub mod schema;

use crate::capture::Capture;
use crate::memory::Memory;
use crate::module::Module;
use crate::symbolize::Symbolizer;
use crate::unwind::{End, Frame, Stack, Unwinder};
use heaptap_platform::{AddressRange, StoppedThread};
use schema::{Group, Thread};
use std::collections::BTreeMap;

/// The stack of each thread, in the order of `threads`, through the stack bytes that `memory` has.
pub fn unwind_all<M: Memory + ?Sized>(
    threads: &[StoppedThread],
    memory: &M,
    modules: &[Module],
    executable: &[AddressRange],
) -> Vec<Stack> {
    let Some(first) = threads.first() else { return Vec::new() };
    let mut unwinder = Unwinder::new(first.registers.architecture, modules, executable);
    threads.iter().map(|thread| unwinder.unwind(&thread.registers, memory)).collect()
}

/// The threads of a capture by their frames, most threads first, then by thread id; each group's frames named.
pub fn group(
    capture: &Capture,
    stacks: &[Stack],
    name_of: &dyn Fn(i32) -> Option<String>,
    symbolizer: &Symbolizer<'_>,
) -> Vec<Group> {
    let mut alike: BTreeMap<Vec<(u64, bool)>, Members<'_>> = BTreeMap::new();
    for (thread, stack) in capture.threads.iter().zip(stacks) {
        let key = stack.frames.iter().map(|frame| (frame.program_counter, frame.is_caller)).collect();
        let thread = Thread { tid: thread.tid, name: name_of(thread.tid) };
        alike.entry(key).or_insert_with(|| Members { threads: Vec::new(), stack }).threads.push(thread);
    }
    let mut members: Vec<Members<'_>> = alike.into_values().collect();
    for member in &mut members {
        member.threads.sort_unstable();
    }
    members.sort_by_key(|member| {
        (std::cmp::Reverse(member.threads.len()), member.threads.first().map(|thread| thread.tid))
    });
    members.into_iter().map(|member| member.named(symbolizer)).collect()
}

struct Members<'s> {
    threads: Vec<Thread>,
    stack: &'s Stack,
}

impl Members<'_> {
    fn named(self, symbolizer: &Symbolizer<'_>) -> Group {
        let name = |frame: &Frame| symbolizer.frames(frame);
        Group {
            threads: self.threads,
            frames: self.stack.frames.iter().flat_map(name).collect(),
            ends: (!self.stack.end.is_whole()).then(|| self.stack.end.to_string()),
        }
    }
}

/// Threads whose first function was not reached, and the reason of the first of them.
pub fn cut_short(stacks: &[Stack]) -> Option<(usize, End)> {
    let cut: Vec<End> = stacks.iter().map(|stack| stack.end).filter(|end| !end.is_whole()).collect();
    cut.first().map(|first| (cut.len(), *first))
}
