//! FreeBSD: sysctl, and ptrace by a guardian process.
//!
//! A process stops and goes on as a whole here, and its memory can be read only while it is traced and stands still. The kernel kills
//! what is traced when its tracer ends. So a [guardian](guardian) process traces, whose only work that is: it lets go
//! when this tool ends, by whatever cause.

mod access;
mod guardian;
mod guardian_process;
mod kernel_code;
mod memory;
mod module_file;
mod page_table;
mod priority;
mod process;
mod process_table;
mod sampler;
mod shared_memory;
mod stop;
mod system_call;
mod threads;
mod tracing;

pub use kernel_code::own_kernel_code;
pub use memory::{BulkRead, ProcessMemory};
pub use module_file::{FoundBy, ModuleFile};
pub use page_table::{PageDetail, PageRuns, PageTable};
pub use priority::{RaisePriority, Raised, ThreadPriority};
pub use process::Process;
pub use sampler::{Aim, ThreadSampler, hit_cost, sampler_clock_ns};
pub use stop::{Pause, StopLimits, Stopped};
pub use tracing::StoppedThread;

/// Whether threads can be sampled here.
pub const HAS_SAMPLER: bool = false;

/// Bytes of one page of memory on this machine.
pub fn page_size_bytes() -> u64 {
    system_call::page_size_bytes()
}
