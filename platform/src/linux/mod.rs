//! Linux: `/proc`, `process_vm_readv` and ptrace.

mod access;
mod kernel_code;
mod memory;
mod module_file;
mod page_table;
mod priority;
mod proc_file;
mod process;
mod root_path;
mod sampler;
mod stop;
mod system_call;
mod threads;
mod tracer;
mod tracer_thread;
mod undisturbed;

pub use kernel_code::own_kernel_code;
pub use memory::{BulkRead, ProcessMemory};
pub use module_file::{FoundBy, ModuleFile};
pub use page_table::{PageDetail, PageRuns, PageTable};
pub use priority::{RaisePriority, Raised, ThreadPriority};
pub use process::Process;
pub use sampler::{Aim, ThreadSampler, hit_cost, sampler_clock_ns};
pub use stop::{Pause, StopLimits, Stopped};
pub use tracer_thread::StoppedThread;

/// Whether threads can be sampled here.
pub const HAS_SAMPLER: bool = true;

/// Bytes of one page of memory on this machine.
pub fn page_size_bytes() -> u64 {
    procfs::page_size()
}
