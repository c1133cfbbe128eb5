//! What unwinding finds: frames, how sure each is, and why there is no further one.

use crate::memory::Fault;

/// How a frame was found, least sure first. No frame is surer than the one below it on the stack, since it was
/// found from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trust {
    /// By what a call leaves behind, in code that says nothing of itself: right if the code is at its first
    /// instruction.
    Convention,
    /// By the chain of frame pointers: right if the code keeps one, but may pass over a caller.
    FramePointer,
    /// By the call frame information of the code, or the kernel's own layout of an interrupted thread.
    CallFrameInformation,
    /// It is where the thread was stopped.
    Registers,
}

impl Trust {
    /// Its name in reports: see docs/report-format.md.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Convention => "convention",
            Self::FramePointer => "frame_pointer",
            Self::CallFrameInformation => "cfi",
            Self::Registers => "registers",
        }
    }
}

/// One frame of a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Where the frame goes on: its next instruction.
    pub program_counter: u64,
    /// Its stack pointer, as it is at that instruction.
    pub stack_pointer: u64,
    /// How it was found.
    pub trust: Trust,
    /// It called the frame before it, so that its next instruction is the one behind the call. False for frames
    /// that were stopped or interrupted in between.
    pub is_caller: bool,
}

impl Frame {
    /// An address in the instruction that is being executed: in the call, for callers. A call may be the last
    /// instruction of a function, so that the address behind it belongs to another one.
    #[inline]
    pub const fn lookup_address(&self) -> u64 {
        if self.is_caller { self.program_counter.wrapping_sub(1) } else { self.program_counter }
    }
}

/// Why a stack has no further frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum End {
    /// The first function of the thread was reached: the stack is whole.
    #[error("the first function of the thread")]
    ThreadStart,
    /// The next frame lies in memory that was not captured or does not exist.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// The code has no call frame information and keeps no frame pointer.
    #[error("nothing tells the caller of the code at {program_counter:#x}")]
    NoRule {
        /// Where.
        program_counter: u64,
    },
    /// Call frame information refers to a register that is not known, or makes no sense.
    #[error("the call frame information for {program_counter:#x} cannot be followed")]
    BadRule {
        /// Where.
        program_counter: u64,
    },
    /// The caller would be at an address without code.
    #[error("the caller of {program_counter:#x} would be at {return_address:#x}, where there is no code")]
    NotCode {
        /// The last frame's place.
        program_counter: u64,
        /// What was taken for the address of its caller.
        return_address: u64,
    },
    /// The stack leads in circles.
    #[error("the stack leads in circles at {program_counter:#x}")]
    Circle {
        /// Where.
        program_counter: u64,
    },
    /// There are more frames than the limit allows.
    #[error("the limit of {limit} frames")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
}

impl End {
    /// Whether all frames of the thread were found.
    pub const fn is_whole(&self) -> bool {
        matches!(self, Self::ThreadStart)
    }
}

/// The frames of one thread, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Its frames; there is always the first.
    pub frames: Vec<Frame>,
    /// Why there are no more.
    pub end: End,
}
