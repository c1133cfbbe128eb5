//! What `waitid` tells of a traced thread on Linux: the cause and the status of its `siginfo_t`.
//!
//! Encoding: Linux, `wait_task_stopped` in `kernel/exit.c`, and ptrace(2). Signals are plain numbers here, as real-time
//! signals have no names.

/// What a waited-for thread did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WaitStatus {
    /// It ended, by itself or killed.
    Ended,
    /// It is about to be handed `signal`, and stopped before that.
    SignalDelivery {
        /// The signal's number.
        signal: i32,
    },
    /// It stopped because it was interrupted, or for the first time after it was seized, or at an event of ptrace that nobody
    /// asked for.
    Interrupted,
    /// It is stopped together with its whole process, by a stop signal.
    GroupStop {
        /// The stop signal's number.
        signal: i32,
    },
    /// It stopped at the first instruction of another program, for a tracer that asked for that.
    Executed,
    /// It was continued, or the word has no known meaning.
    Other,
}

const CLD_EXITED: i32 = 1;
const CLD_KILLED: i32 = 2;
const CLD_DUMPED: i32 = 3;
const CLD_TRAPPED: i32 = 4;
const CLD_STOPPED: i32 = 5;
const PTRACE_EVENT_EXEC: i32 = 4;
const PTRACE_EVENT_STOP: i32 = 128;
const SIGTRAP: i32 = 5;

impl WaitStatus {
    /// The meaning of `si_code` and `si_status` for a thread that was attached to with `PTRACE_SEIZE`.
    pub const fn decode(code: i32, status: i32) -> Self {
        match code {
            CLD_EXITED | CLD_KILLED | CLD_DUMPED => Self::Ended,
            CLD_TRAPPED | CLD_STOPPED => Self::of_stop(status & 0xff, status >> 8),
            _ => Self::Other,
        }
    }

    const fn of_stop(signal: i32, event: i32) -> Self {
        match event {
            0 => Self::SignalDelivery { signal },
            PTRACE_EVENT_STOP if signal != SIGTRAP => Self::GroupStop { signal },
            PTRACE_EVENT_EXEC => Self::Executed,
            _ => Self::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        assert_eq!(WaitStatus::decode(CLD_EXITED, 3), WaitStatus::Ended);
        assert_eq!(WaitStatus::decode(CLD_KILLED, 9), WaitStatus::Ended);
        assert_eq!(WaitStatus::decode(CLD_DUMPED, 11), WaitStatus::Ended);
    }

    #[test]
    fn stops() {
        assert_eq!(WaitStatus::decode(CLD_TRAPPED, 10), WaitStatus::SignalDelivery { signal: 10 });
        assert_eq!(WaitStatus::decode(CLD_TRAPPED, 63), WaitStatus::SignalDelivery { signal: 63 });
        assert_eq!(WaitStatus::decode(CLD_TRAPPED, 0x8005), WaitStatus::Interrupted);
        assert_eq!(WaitStatus::decode(CLD_TRAPPED, 0x8013), WaitStatus::GroupStop { signal: 19 });
        assert_eq!(WaitStatus::decode(CLD_STOPPED, 0x8014), WaitStatus::GroupStop { signal: 20 });
        assert_eq!(WaitStatus::decode(CLD_TRAPPED, 0x0405), WaitStatus::Executed);
        assert_eq!(WaitStatus::decode(CLD_TRAPPED, 0x0305), WaitStatus::Interrupted);
        assert_eq!(WaitStatus::decode(6, 18), WaitStatus::Other);
    }
}
