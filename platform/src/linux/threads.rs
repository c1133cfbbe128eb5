//! The threads of a process: their ids, their number, their names.

use super::{Process, proc_file};
use crate::ProcessError;
use std::io;
use std::os::unix::fs::MetadataExt;

/// The ids of all threads that `/proc/PID/task` shows. Threads may come and go while it is read.
pub fn list(pid: i32) -> io::Result<Vec<i32>> {
    let mut tids = Vec::new();
    for entry in std::fs::read_dir(proc_file::path(pid, "task"))? {
        if let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            tids.push(tid);
        }
    }
    Ok(tids)
}

/// The number of threads by the kernel's own count, ended ones that nobody has waited for included: the links of
/// `/proc/PID/task` less the two that every folder has (`proc_task_getattr` in Linux, `fs/proc/base.c`). `None` where the
/// folder does not count so.
pub fn count(pid: i32) -> Option<usize> {
    let links = std::fs::metadata(proc_file::path(pid, "task")).ok()?.nlink();
    usize::try_from(links.checked_sub(2)?).ok().filter(|&count| count > 0)
}

/// The name of a thread, or `None` where it has ended.
pub fn name(pid: i32, tid: i32) -> Option<String> {
    let bytes = proc_file::read(pid, &format!("task/{tid}/comm")).ok()?;
    Some(proc_file::text_line(&bytes))
}

impl Process {
    /// The ids of its threads.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] where it has ended.
    pub fn thread_ids(&self) -> Result<Vec<i32>, ProcessError> {
        list(self.pid()).map_err(|source| proc_file::error(self.pid(), "task", source))
    }

    /// The number of its threads, or `None` where it has ended.
    pub fn thread_count(&self) -> Option<usize> {
        count(self.pid())
    }

    /// The name of one of its threads, or `None` where that thread has ended.
    pub fn thread_name(&self, tid: i32) -> Option<String> {
        name(self.pid(), tid)
    }
}
