//! What can be learnt of the reason when the kernel refuses access to a process.

use super::proc_file;
use crate::AccessRefusal;
use nix::libc;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};
use std::os::unix::fs::MetadataExt;

const CAP_SYS_PTRACE: u32 = 19;

/// What stands between this tool and process `pid`, as far as the kernel shows it.
pub fn refusal(pid: i32) -> AccessRefusal {
    let own_uid = geteuid().as_raw();
    let status = proc_file::status(pid).ok();
    let target_uid = status.as_ref().map(|status| status.euid);
    AccessRefusal {
        own_uid,
        target_uid,
        has_ptrace_capability: has_ptrace_capability(),
        ptrace_scope: ptrace_scope(),
        dumpable: target_uid.and_then(|uid| dumpable(pid, uid)),
        hidden: status.is_none() && exists(pid),
        freebsd: None,
    }
}

/// Whether a process has this id, also where `/proc` hides it. The empty signal is delivered to nobody.
pub fn exists(pid: i32) -> bool {
    matches!(kill(Pid::from_raw(pid), None), Ok(()) | Err(nix::errno::Errno::EPERM))
}

fn has_ptrace_capability() -> bool {
    // Capabilities belong to threads.
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_SYS_PTRACE) != 0)
}

fn ptrace_scope() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok()?.trim().parse().ok()
}

/// The kernel gives the files of a process that is not dumpable to root, but not the folder that they are in. So nothing can be said of root's own processes.
fn dumpable(pid: i32, target_uid: u32) -> Option<bool> {
    let owner = std::fs::metadata(proc_file::path(pid, "stat")).ok()?.uid();
    (target_uid != 0).then_some(owner == target_uid)
}

/// Whether the tracer's id tells who it is: the name that belongs to it, or where it must be.
pub fn tracer_name(tracer_pid: i32) -> String {
    if tracer_pid == 0 { "outside this container".to_owned() } else { proc_file::name_of(tracer_pid) }
}

/// The error number as it stands in `io::Error`.
pub const fn is_permission(os_error: i32) -> bool {
    os_error == libc::EPERM || os_error == libc::EACCES
}
