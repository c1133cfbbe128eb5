//! The threads of a process: their ids, their number, their names.

use super::{Process, access, process_table};
use crate::ProcessError;

/// The name of a thread, or `None` where it has ended.
pub fn name(pid: i32, tid: i32) -> Option<String> {
    let threads = process_table::threads(pid).ok()?;
    threads.into_iter().find(|(found, _)| *found == tid).map(|(_, name)| name)
}

impl Process {
    /// The ids of its threads.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] where it has ended.
    pub fn thread_ids(&self) -> Result<Vec<i32>, ProcessError> {
        let threads = process_table::threads(self.pid());
        let threads = threads.map_err(|error| access::error(self.pid(), "KERN_PROC_PID", error))?;
        Ok(threads.into_iter().map(|(tid, _)| tid).collect())
    }

    /// The number of its threads, or `None` where it has ended.
    pub fn thread_count(&self) -> Option<usize> {
        process_table::process(self.pid()).map(|found| found.thread_count)
    }

    /// The name of one of its threads, or `None` where that thread has ended.
    pub fn thread_name(&self, tid: i32) -> Option<String> {
        name(self.pid(), tid)
    }
}
