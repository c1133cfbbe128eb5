//! Exit codes; `docs/report-format.md` documents them for scripts.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and the answer is whole.
    Done = 0,
    /// The answer is no, or partial; which, was said.
    Partial = 1,
    /// The command line makes no sense.
    WrongUse = 2,
    /// The target was not found, or has gone.
    Gone = 3,
    /// Not permitted, or already traced by another.
    NotPermitted = 4,
    /// Nothing supported was found in the target.
    Unsupported = 5,
    /// Unreadable or corrupt input.
    BadInput = 6,
    /// The pause budget was too small.
    OverBudget = 7,
}

impl Exit {
    /// All of them with their meaning in a few words, for manuals.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Done, "done"),
        (Self::Partial, "the answer is no or partial, and what is missing was said"),
        (Self::WrongUse, "wrong use"),
        (Self::Gone, "target not found or gone"),
        (Self::NotPermitted, "not permitted, or already traced"),
        (Self::Unsupported, "nothing supported found in the target"),
        (Self::BadInput, "unreadable or corrupt input"),
        (Self::OverBudget, "over the pause budget"),
    ];

    /// The number that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The ending with this number; numbers that have none are taken as [`Exit::Partial`].
    pub fn from_code(code: u8) -> Self {
        Self::ALL.iter().map(|(exit, _)| *exit).find(|exit| exit.code() == code).unwrap_or(Self::Partial)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
