//! The status word of `wait4` as Linux encodes it, stops of traced threads included.
//!
//! Encoding: Linux, `include/uapi/linux/wait.h` and ptrace(2). Signals are plain numbers here, as real-time signals have
//! no names.

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

const PTRACE_EVENT_EXEC: i32 = 4;
const PTRACE_EVENT_STOP: i32 = 128;
const SIGTRAP: i32 = 5;

impl WaitStatus {
    /// The meaning of a status word of a thread that was attached to with `PTRACE_SEIZE`.
    pub const fn decode(status: i32) -> Self {
        let low = status & 0x7f;
        if low != 0x7f {
            return Self::Ended;
        }
        if status == 0xffff || status & 0xff != 0x7f {
            return Self::Other;
        }
        let signal = (status >> 8) & 0xff;
        match (status >> 16) & 0xffff {
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
    fn words() {
        assert_eq!(WaitStatus::decode(0x0000), WaitStatus::Ended);
        assert_eq!(WaitStatus::decode(0x0300), WaitStatus::Ended);
        assert_eq!(WaitStatus::decode(9), WaitStatus::Ended);
        assert_eq!(WaitStatus::decode(11 | 0x80), WaitStatus::Ended);
        assert_eq!(WaitStatus::decode(0xffff), WaitStatus::Other);
        assert_eq!(WaitStatus::decode(0x0a7f), WaitStatus::SignalDelivery { signal: 10 });
        assert_eq!(WaitStatus::decode(0x3f7f), WaitStatus::SignalDelivery { signal: 63 });
        assert_eq!(WaitStatus::decode(0x80_057f), WaitStatus::Interrupted);
        assert_eq!(WaitStatus::decode(0x80_137f), WaitStatus::GroupStop { signal: 19 });
        assert_eq!(WaitStatus::decode(0x04_057f), WaitStatus::Executed);
        assert_eq!(WaitStatus::decode(0x03_057f), WaitStatus::Interrupted);
    }
}
