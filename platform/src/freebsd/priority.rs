//! This tool's own priority while another process waits for it.

use super::system_call;

/// Whether and when the priority is raised for a stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaisePriority {
    /// Not at all.
    Never,
    /// Before the process is stopped.
    #[default]
    BeforeStop,
    /// When it stands still.
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
    /// Before all ordinary threads: not asked for on this system.
    RealTime,
}

/// Raises the priority as far as it is permitted to, and restores it when dropped.
#[derive(Debug)]
pub struct ThreadPriority {
    raised: Raised,
    nice: i32,
    _of_this_thread: std::marker::PhantomData<*mut ()>,
}

impl ThreadPriority {
    /// A nice value of -20, else nothing. It is one of the whole process.
    pub fn raise() -> Self {
        let nice = system_call::nice_value();
        let raised = if system_call::set_nice_value(-20).is_ok() { Raised::Nice } else { Raised::Nothing };
        Self { raised, nice, _of_this_thread: std::marker::PhantomData }
    }

    /// What was reached.
    pub const fn raised(&self) -> Raised {
        self.raised
    }
}

impl Drop for ThreadPriority {
    fn drop(&mut self) {
        if self.raised == Raised::Nice {
            // Lowering one's own priority is always permitted, so there is no failure to tell of.
            let _ = system_call::set_nice_value(self.nice);
        }
    }
}
