//! Programs that know the truth about their own heap.
//!
//! A test starts one of them, asks it for its table of live blocks and for what its allocator says of itself, and compares
//! both with what heaptap finds from outside. The programs share no code with heaptap. `ledger/README.md` describes
//! what they can be asked.

mod jemalloc;
mod rust_leak_server;

pub use jemalloc::{
    JemallocProgram, Language, ProgramsError, jemalloc_programs, jemalloc_programs_with_assertions,
    jemalloc_programs_with_chunks, leak_server_beside,
};

pub use rust_leak_server::{RustLeakServerError, rust_leak_server};

/// One thread at rest in each shape of stack that C++ compilers make; prints `ready`.
pub const SHAPES: &str = env!("SHAPES");

/// Stacks of C, with `.eh_frame` and its table for searching; prints `ready`.
pub const CALLS: &str = env!("CALLS");

/// The same without that table.
pub const CALLS_WITHOUT_HDR: &str = env!("CALLS_WITHOUT_HDR");

/// The same with `.debug_frame` alone.
pub const CALLS_DEBUG_FRAME: &str = env!("CALLS_DEBUG_FRAME");

/// The same with nothing but frame pointers.
pub const CALLS_FRAME_POINTER: &str = env!("CALLS_FRAME_POINTER");

/// C++ objects of known classes in known numbers; stripped.
pub const TYPES: &str = env!("TYPES");

/// The same with symbols.
pub const TYPES_NAMED: &str = env!("TYPES_NAMED");

/// The same at fixed addresses.
pub const TYPES_FIXED: &str = env!("TYPES_FIXED");

/// The same without any shared library.
pub const TYPES_STATIC: &str = env!("TYPES_STATIC");

/// The same without type information.
pub const TYPES_WITHOUT_RTTI: &str = env!("TYPES_WITHOUT_RTTI");

/// Rust values behind trait objects, with symbols.
pub const TRAITS: &str = env!("TRAITS");

/// The C ledger on whatever malloc it meets: the C library's, or a preloaded one.
pub const LEDGER: &str = env!("LEDGER");

/// The same without any shared library, stripped: the C library's malloc is inside.
pub const LEDGER_PLAIN_STATIC: &str = env!("LEDGER_PLAIN_STATIC");

/// The C ledger with jemalloc 5.3.0 inside as its malloc, with statistics; absent where jemalloc is the C library's own.
pub const LEDGER_JEMALLOC: Option<&str> = option_env!("LEDGER_JEMALLOC");

/// The same without any shared library: no dynamic section, no loader.
pub const LEDGER_STATIC: Option<&str> = option_env!("LEDGER_STATIC");

/// The C ledger with gperftools tcmalloc inside as its malloc; absent where its archive is not installed.
pub const LEDGER_TCMALLOC: Option<&str> = option_env!("LEDGER_TCMALLOC");

/// The same without any shared library, stripped.
pub const LEDGER_TCMALLOC_STATIC: Option<&str> = option_env!("LEDGER_TCMALLOC_STATIC");

/// The C++ leak server on whatever malloc it meets. `leak-server/README.md` describes it.
pub const LEAK_SERVER: &str = env!("LEAK_SERVER");

/// The same with jemalloc 5.3.0 inside as its malloc; absent where jemalloc is the C library's own.
pub const LEAK_SERVER_JEMALLOC: Option<&str> = option_env!("LEAK_SERVER_JEMALLOC");

/// Allocates on many stacks, rests, and has jemalloc write its own profile. `sampled/README.md` describes it.
pub const SAMPLED: &str = env!("SAMPLED");

/// Stops a process, reads ranges of its memory, lets go: the least that a snapshot can cost. Absent but on Linux.
pub const BULK_READ: Option<&str> = option_env!("BULK_READ");

/// Runs a command and writes down its time and its peak memory. Absent but on Linux.
pub const SPENT: Option<&str> = option_env!("SPENT");

/// A library that, preloaded, gives any program a heartbeat. Absent but on Linux.
pub const HEARTBEAT: Option<&str> = option_env!("HEARTBEAT");

/// A library that, preloaded, has any program write down its C library's `mallinfo2` at a signal. Absent but on Linux.
pub const MALLINFO: Option<&str> = option_env!("MALLINFO");
