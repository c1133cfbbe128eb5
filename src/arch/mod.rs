//! What differs from one CPU to another, as data: one table for each.
//!
//! A port to another CPU begins here: the registers' DWARF numbers, what a call leaves behind, and how the
//! kernel lays out the registers of code that a signal interrupted.

mod aarch64;
mod x86_64;

pub use aarch64::AARCH64;
pub use x86_64::X86_64;

use heaptap_platform::Architecture;

/// Registers that a table can number, from 0 on.
pub const REGISTERS_MAX: usize = 33;

/// What unwinding has to know of a CPU and its calling convention.
#[derive(Debug)]
pub struct Cpu {
    /// The instruction set.
    pub architecture: Architecture,
    /// DWARF number of the stack pointer.
    pub stack_pointer: u8,
    /// DWARF number of the frame pointer, where code keeps one.
    pub frame_pointer: u8,
    /// Number of the program counter among the registers of a thread; no table of call frames may name it.
    pub program_counter: u8,
    /// A bit for each register that a function leaves as it found it.
    pub preserved: u64,
    /// Where a call leaves the address to return to.
    pub link: Link,
    /// Bytes below the stack pointer that a function may use without moving it.
    pub red_zone_bytes: u64,
    /// Bits of an address of code; what stands above them signs it.
    pub code_address_mask: u64,
    /// The code that leaves a signal handler, and what it finds on the stack.
    pub signal_returns: &'static [SignalReturn],
    /// Linkage stubs, which linkers may leave without call frame information.
    pub stub: Stub,
}

/// Where a call leaves the address to return to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// On top of the stack, one word.
    Stack,
    /// In the register of this number.
    Register(u8),
}

/// The registers that the kernel saved when it called a signal handler.
#[derive(Debug)]
pub struct SignalReturn {
    /// The instructions that the handler returns to.
    pub code: &'static [u8],
    /// Register by DWARF number (the program counter too), and its distance from the stack pointer in bytes.
    pub saved: &'static [(u8, i32)],
}

/// The entry of a linkage table that has called a resolver: from `pushed_from` bytes on in an entry of
/// `entry_bytes`, one more word is on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Stub {
    /// Bytes of an entry.
    pub entry_bytes: u64,
    /// Where in the entry the stack has one more word; `entry_bytes` where that never happens.
    pub pushed_from: u64,
}

impl Cpu {
    /// The table of an instruction set.
    pub const fn of(architecture: Architecture) -> &'static Self {
        match architecture {
            Architecture::X86_64 => &X86_64,
            Architecture::Aarch64 => &AARCH64,
        }
    }

    /// Whether functions leave this register as they found it.
    pub const fn is_preserved(&self, register: u8) -> bool {
        register < 64 && self.preserved & (1 << register) != 0
    }
}
