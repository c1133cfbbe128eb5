//! What can be learnt of the reason when the kernel refuses access to a process.

use super::{process_table, system_call};
use crate::process_error::FreebsdBarriers;
use crate::{AccessRefusal, ProcessError};
use std::io;

/// What stands between this tool and process `pid`, as far as the kernel shows it.
pub fn refusal(pid: i32) -> AccessRefusal {
    let found = process_table::process(pid);
    AccessRefusal {
        own_uid: system_call::effective_uid(),
        target_uid: found.as_ref().map(|found| found.uid),
        freebsd: Some(FreebsdBarriers {
            unprivileged_debugging: process_table::number(c"security.bsd.unprivileged_proc_debug")
                .map(|value| value != 0),
            secure_level: process_table::number(c"kern.securelevel"),
            is_in_jail: process_table::number(c"security.jail.jailed").is_some_and(|value| value != 0),
            target_jail: found.as_ref().map_or(0, |found| found.jail_id),
            has_changed_user: found.is_some_and(|found| found.has_changed_user),
        }),
        ..AccessRefusal::default()
    }
}

/// The general error for a question about a process that exists.
pub fn error(pid: i32, what: &'static str, os_error: i32) -> ProcessError {
    match os_error {
        libc::ESRCH => ProcessError::Gone { pid },
        libc::EPERM | libc::EACCES => ProcessError::PermissionDenied { pid, refusal: refusal(pid) },
        _ => ProcessError::Os { pid, file: what, source: io::Error::from_raw_os_error(os_error) },
    }
}

/// The name of a process, as far as it can be seen.
pub fn name_of(pid: i32) -> String {
    process_table::process(pid).map_or_else(|| "unknown".to_owned(), |found| found.name)
}
