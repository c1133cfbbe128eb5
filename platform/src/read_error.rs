//! Why bytes of another process could not be read.

use crate::StopError;
use thiserror::Error;

/// A failed read of a process's memory. A [`ReadError::Fault`] concerns one address; the others, every address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// Nothing readable lies at this address: not mapped, no right to read, or past the end of a mapped file.
    #[error("no readable memory at {address:#x}")]
    Fault {
        /// The first byte that could not be read.
        address: u64,
    },
    /// The process has ended, or has executed another program.
    #[error("process {pid} is gone")]
    Gone {
        /// The process.
        pid: i32,
    },
    /// The kernel does not let this process read the other's memory.
    #[error("not permitted to read memory of process {pid}")]
    NotPermitted {
        /// The process.
        pid: i32,
    },
    /// Where a process can be read only while it stands still: it could not be stopped.
    #[error("memory of process {pid} can be read only while it stands still: {reason}")]
    NotStopped {
        /// The process.
        pid: i32,
        /// Why not.
        reason: Box<StopError>,
    },
    /// The destination is not as long as the ranges to be read.
    #[error("the ranges have {wanted_bytes} bytes and the destination has {destination_bytes}")]
    LengthMismatch {
        /// Bytes in all ranges.
        wanted_bytes: u64,
        /// Bytes in the destination.
        destination_bytes: u64,
    },
    /// Another failure of the operating system.
    #[error("cannot read memory of process {pid} at {address:#x} ({call}): {}", std::io::Error::from_raw_os_error(*.os_error))]
    Os {
        /// The process.
        pid: i32,
        /// Where the read began.
        address: u64,
        /// The system call.
        call: &'static str,
        /// The system's error number.
        os_error: i32,
    },
}

impl ReadError {
    /// What to do about it, where anything can be done.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotPermitted { .. } => Some(crate::stop_error::RIGHTS_HINT),
            Self::NotStopped { .. } => Some("try again; see whether a debugger is attached to it"),
            Self::Gone { .. } => Some("look up the process id again: it may have been restarted"),
            Self::Fault { .. } | Self::LengthMismatch { .. } | Self::Os { .. } => None,
        }
    }
}
