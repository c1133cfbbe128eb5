//! Why calls of a thread could not be sampled.

use thiserror::Error;

/// A breakpoint that could not be had or used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SamplerError {
    /// The thread has ended.
    #[error("thread {tid} has ended")]
    Gone {
        /// The thread.
        tid: i32,
    },
    /// The kernel does not permit it.
    #[error("not permitted to watch thread {tid} with a hardware breakpoint")]
    NotPermitted {
        /// The thread.
        tid: i32,
    },
    /// All debug registers are in use.
    #[error("thread {tid} has no debug register left")]
    NoRegister {
        /// The thread.
        tid: i32,
    },
    /// The kernel or the machine has no hardware breakpoints for this.
    #[error("no hardware breakpoint can be set for {len_bytes} bytes at {address:#x}")]
    Unsupported {
        /// What was to be watched.
        address: u64,
        /// Its length.
        len_bytes: u64,
    },
    /// This operating system has no sampler that does no harm.
    #[error("calls cannot be sampled on this operating system without tracing the process all the while")]
    NoSampler,
    /// Any other error of the system.
    #[error("thread {tid}: {call}: {}", std::io::Error::from_raw_os_error(*.os_error))]
    Os {
        /// The thread.
        tid: i32,
        /// The system call.
        call: &'static str,
        /// Its error number.
        os_error: i32,
    },
}

impl SamplerError {
    /// The next thing to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotPermitted { .. } => Some(
                "run heaptap as root or with CAP_PERFMON, or lower kernel.perf_event_paranoid to 2 and run it as the \
                 target's user",
            ),
            Self::NoRegister { .. } => Some("detach debuggers and other samplers from the target first"),
            Self::Unsupported { .. } => {
                Some("in a virtual machine, ask for debug registers to be passed to guests")
            }
            Self::NoSampler => Some(
                "find what grows with `heaptap watch PID` and where threads are with `heaptap stacks PID`",
            ),
            Self::Gone { .. } | Self::Os { .. } => None,
        }
    }
}
