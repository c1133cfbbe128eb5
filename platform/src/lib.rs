//! The operating system as heaptap needs it.
//!
//! This crate finds a process, lists its threads and mappings, tells which of its pages are in memory, reads its
//! bytes and stops all its threads for some milliseconds. It holds the only unsafe code and the only
//! `cfg(target_os)` of heaptap. It knows nothing of allocators, of symbols or of file formats beyond those of the
//! operating system itself, and it has no function that writes into another process.
//!
//! Each operating system has a folder that offers the same public names. What is the same everywhere (address
//! ranges, mappings, registers, error types, the decoding of kernel text and notes, the order of the steps of a
//! stop) lies outside those folders and is compiled on every system.

pub mod attach_protocol;
pub mod format;
mod mapped_file;
mod mapping;
mod private_file;
mod process_error;
mod range;
mod read_error;
mod registers;
mod residency;
mod sampler_error;
mod stop_error;
pub mod stop_protocol;

pub use format::perf_event::Hit;
pub use mapped_file::MappedFile;
pub use mapping::{Mapping, MappingKind};
pub use private_file::create_private;
pub use process_error::{AccessRefusal, FreebsdBarriers, ProcessError};
pub use range::{AddressRange, merge_ranges};
pub use read_error::ReadError;
pub use registers::{Architecture, Registers};
pub use residency::{PageRun, PageState, ResidentBytes};
pub use sampler_error::SamplerError;
pub use stop_error::StopError;

#[cfg(target_os = "freebsd")]
mod freebsd;
#[cfg(target_os = "freebsd")]
pub use freebsd::{
    Aim, BulkRead, FoundBy, HAS_SAMPLER, ModuleFile, PageDetail, PageRuns, PageTable, Pause, Process,
    ProcessMemory, RaisePriority, Raised, StopLimits, Stopped, StoppedThread, ThreadPriority, ThreadSampler,
    hit_cost, own_kernel_code, page_size_bytes, sampler_clock_ns,
};
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{
    Aim, BulkRead, FoundBy, HAS_SAMPLER, ModuleFile, PageDetail, PageRuns, PageTable, Pause, Process,
    ProcessMemory, RaisePriority, Raised, StopLimits, Stopped, StoppedThread, ThreadPriority, ThreadSampler,
    hit_cost, own_kernel_code, page_size_bytes, sampler_clock_ns,
};

/// The operating system that this crate was compiled for, as reports name it.
pub const OPERATING_SYSTEM: &str = std::env::consts::OS;
