//! Why the threads of a process could not all be stopped. In every case those that were are running again.

use std::time::Duration;
use thiserror::Error;

/// What to do where rights are missing.
pub(crate) const RIGHTS_HINT: &str = if cfg!(target_os = "freebsd") {
    "run as root; as an ordinary user this needs a process of one's own, and sysctl security.bsd.unprivileged_proc_debug=1"
} else {
    "run as root, or with the capability CAP_SYS_PTRACE"
};

/// A stop that was given up. No thread is left stopped or attached to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StopError {
    /// The process ended before or while it was being stopped.
    #[error("process {pid} ended while it was being stopped")]
    Gone {
        /// The process.
        pid: i32,
    },
    /// The process executed another program meanwhile, so that nothing learnt before holds.
    #[error("process {pid} executed another program meanwhile")]
    Executed {
        /// The process.
        pid: i32,
    },
    /// The process is about to execute another program, and the kernel lets nobody attach meanwhile.
    #[error("process {pid} has been about to execute a program for {} ms", .waited.as_millis())]
    Executing {
        /// The process.
        pid: i32,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Another tracer has a thread.
    #[error("thread {tid} of process {pid} is traced by process {tracer_pid} ({tracer_name})")]
    AlreadyTraced {
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// The tracer; 0 where it runs outside this container.
        tracer_pid: i32,
        /// The tracer's name.
        tracer_name: String,
    },
    /// The kernel does not permit stopping a thread.
    #[error("not permitted to stop thread {tid} of process {pid}")]
    NotPermitted {
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
    },
    /// A thread did not come to a stop in time.
    #[error("thread {tid} ({name}) of process {pid} did not stop within {} ms: its state is {state}", .waited.as_millis())]
    Unstoppable {
        /// The process.
        pid: i32,
        /// The thread.
        tid: i32,
        /// The thread's name.
        name: String,
        /// The kernel's letter for its state; `D` waits for a device or for a child made by vfork.
        state: char,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Threads came faster than they could be stopped.
    #[error("process {pid} makes threads faster than they can be stopped ({thread_count} within {} ms)", .waited.as_millis())]
    EndlessThreads {
        /// The process.
        pid: i32,
        /// Threads seen.
        thread_count: usize,
        /// How long it was tried.
        waited: Duration,
    },
    /// Another failure of the operating system.
    #[error("cannot stop process {pid} ({call}): {}", std::io::Error::from_raw_os_error(*.os_error))]
    Os {
        /// The process.
        pid: i32,
        /// The system call.
        call: &'static str,
        /// The system's error number.
        os_error: i32,
    },
}

impl StopError {
    /// What to do about it, where anything can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Gone { .. } => Some("look up the process id again: it may have been restarted".to_owned()),
            Self::Executed { .. } | Self::Executing { .. } => Some("try again".to_owned()),
            Self::AlreadyTraced { tracer_pid: 0, .. } => {
                Some("detach the tracer first; it runs outside this container".to_owned())
            }
            Self::AlreadyTraced { tracer_pid, tracer_name, .. } => {
                Some(format!("detach or end {tracer_name} (process {tracer_pid}) first"))
            }
            Self::NotPermitted { .. } => Some(RIGHTS_HINT.to_owned()),
            Self::Unstoppable { state: 'D', .. } => {
                Some("the thread waits in the kernel; try again when it has gone on".to_owned())
            }
            Self::Unstoppable { .. } | Self::EndlessThreads { .. } => {
                Some("try again, with more time to reach the stop".to_owned())
            }
            Self::Os { .. } => None,
        }
    }
}
