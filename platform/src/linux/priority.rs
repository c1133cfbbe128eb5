//! The calling thread's own priority while others wait for it.

use super::system_call;
use nix::libc;

/// Whether and when the calling thread's priority is raised for a stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaisePriority {
    /// Not at all.
    Never,
    /// Before the first thread is interrupted.
    #[default]
    BeforeStop,
    /// When all threads have stopped.
    AfterStop,
}

/// What was reached by [`ThreadPriority::raise`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Raised {
    /// Nothing: the rights are missing.
    #[default]
    Nothing,
    /// The nice value is -20.
    Nice,
    /// The thread is scheduled by `SCHED_FIFO`, before all ordinary threads.
    RealTime,
}

/// Raises the calling thread's priority as far as it is permitted to, and restores it when dropped.
#[derive(Debug)]
pub struct ThreadPriority {
    raised: Raised,
    policy: i32,
    real_time_priority: i32,
    nice: i32,
    /// Priorities belong to a thread, so the guard must stay with it.
    _of_this_thread: std::marker::PhantomData<*mut ()>,
}

impl ThreadPriority {
    /// `SCHED_FIFO` with the lowest real-time priority, else a nice value of -20, else nothing.
    pub fn raise() -> Self {
        let policy = system_call::scheduling_policy().unwrap_or(libc::SCHED_OTHER);
        let mut guard = Self {
            raised: Raised::Nothing,
            policy,
            real_time_priority: system_call::real_time_priority().unwrap_or(0),
            nice: system_call::nice_value().unwrap_or(0),
            _of_this_thread: std::marker::PhantomData,
        };
        // A thread that is scheduled by real time or deadline already has what it needs.
        if matches!(policy, libc::SCHED_OTHER | libc::SCHED_BATCH | libc::SCHED_IDLE) {
            if system_call::set_scheduling(libc::SCHED_FIFO, 1).is_ok() {
                guard.raised = Raised::RealTime;
            } else if system_call::set_nice_value(-20).is_ok() {
                guard.raised = Raised::Nice;
            }
        }
        guard
    }

    /// What was reached.
    pub const fn raised(&self) -> Raised {
        self.raised
    }
}

impl Drop for ThreadPriority {
    fn drop(&mut self) {
        // Lowering one's own priority is always permitted, so there is no failure to tell of.
        match self.raised {
            Raised::Nothing => {}
            Raised::Nice => drop(system_call::set_nice_value(self.nice)),
            Raised::RealTime => drop(system_call::set_scheduling(self.policy, self.real_time_priority)),
        }
    }
}
