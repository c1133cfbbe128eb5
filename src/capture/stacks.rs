//! The stopped window for stacks: registers, and of each stack what is in use, newest first.
//!
//! Which bytes of a stack its frames need is not known before they are unwound, and that happens after the
//! release; so everything is taken from the stack pointer on, as far as limits allow.

use super::window::{CaptureError, Limits, read, room, stop_limits};
use super::{Capture, CapturedMemory, LiveMemory};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, Mapping, MappingKind, Process, Stopped, StoppedThread, merge_ranges};
use std::time::{Instant, SystemTime};

/// Of each stack, what is copied before anything else.
const TOP_BYTES: u64 = 64 << 10;
/// Of each stack at most.
const STACK_BYTES_MAX: u64 = 16 << 20;
/// Of a stack that its thread is not on at the moment, as a signal handler has one of its own.
const OTHER_STACK_BYTES: u64 = 256 << 10;
/// What lies below a stack pointer by the rules of x86-64.
const RED_ZONE_BYTES: u64 = 128;

/// Stops the target, copies registers and stacks, lets go. The mappings are those from before the stop.
pub fn take_stacks(
    process: &Process,
    live: &LiveMemory,
    mappings: &[Mapping],
    limits: Limits,
) -> Result<Capture, CaptureError> {
    let threads = process.thread_count().unwrap_or(1) as u64;
    let mut memory = CapturedMemory::with_room(room(threads.saturating_mul(TOP_BYTES).min(256 << 20)));
    live.forget();
    let stopped = Stopped::stop(process, &stop_limits(limits))?;
    let until = Instant::now() + limits.pause.saturating_sub(stopped.elapsed());
    let taken_at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let threads = stopped.threads().to_vec();
    let mut lacks = Vec::new();
    let mut cut_short = false;
    let tops = threads.iter().map(|thread| in_use(thread, mappings, TOP_BYTES));
    let rest = threads.iter().map(|thread| in_use(thread, mappings, STACK_BYTES_MAX));
    let others = threads.iter().filter_map(|thread| other_stack(thread, mappings));
    let rounds: [Vec<AddressRange>; 3] = [tops.collect(), others.collect(), rest.collect()];
    for wanted in rounds {
        let missing = wanted.iter().flat_map(|range| memory.gaps(*range)).collect();
        let present = merge_ranges(missing, 0).iter().flat_map(|range| live.present(*range)).collect();
        cut_short = !read(live, &merge_ranges(present, 0), &mut memory, Some(until), &mut lacks);
        if cut_short {
            break;
        }
    }
    let pause = stopped.release();
    if let Some(failure) = live.failure() {
        return Err(failure.into());
    }
    if pause.expired {
        lacks.push("the target ran again before its stacks were copied".to_owned());
    }
    Ok(Capture {
        memory,
        threads,
        pauses: vec![pause],
        taken_at: taken_at.as_secs_f64(),
        cut_short,
        lacks,
        ..Capture::default()
    })
}

fn mapping_at(mappings: &[Mapping], address: u64) -> Option<&Mapping> {
    mappings.iter().find(|mapping| mapping.range.contains(address))
}

/// The stack from its pointer to its end, `bytes_max` at most. The end is that of the mapping; a stack that is
/// newer than the list of mappings gets the bytes that are there.
fn in_use(thread: &StoppedThread, mappings: &[Mapping], bytes_max: u64) -> AddressRange {
    let stack_pointer = thread.registers.stack_pointer;
    let start = stack_pointer.saturating_sub(RED_ZONE_BYTES) & !7;
    let end = start.saturating_add(bytes_max) & !7;
    match mapping_at(mappings, stack_pointer) {
        Some(mapping) => AddressRange { start, end: end.min(mapping.range.end) },
        None => AddressRange { start, end },
    }
}

/// The oldest part of the thread's own stack, if the thread is on another one: of the first thread, the stack that
/// the kernel made; of others, the mapping that holds their local storage, which the C library puts at its end.
fn other_stack(thread: &StoppedThread, mappings: &[Mapping]) -> Option<AddressRange> {
    let (pointer, storage) = (thread.registers.stack_pointer, thread.registers.thread_pointer);
    let current = mapping_at(mappings, pointer)?;
    if matches!(current.kind, MappingKind::Stack) || current.range.contains(storage) {
        return None;
    }
    let is_first = |mapping: &&Mapping| matches!(mapping.kind, MappingKind::Stack);
    let own = mapping_at(mappings, storage).filter(|mapping| mapping.is_private_anonymous());
    let is_thread_stack = own.is_some_and(|own| own.range.end.saturating_sub(storage) < OTHER_STACK_BYTES);
    let stack = if is_thread_stack { own } else { mappings.iter().find(is_first) }?;
    let start = stack.range.end.saturating_sub(OTHER_STACK_BYTES).max(stack.range.start);
    Some(AddressRange { start, end: stack.range.end })
}
