//! Why a process could not be opened or described.

use std::path::PathBuf;
use thiserror::Error;

/// A process that cannot be examined, and why.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// No process has this id.
    #[error("no process has the id {pid}")]
    NotFound {
        /// The id asked for.
        pid: i32,
    },
    /// The process has ended since it was opened.
    #[error("process {pid} has ended")]
    Gone {
        /// The process.
        pid: i32,
    },
    /// The process has ended and its id now belongs to another, or it executes another program now.
    #[error("process {pid} is no longer the one that was opened: {change}")]
    Replaced {
        /// The id that both have.
        pid: i32,
        /// What shows it.
        change: &'static str,
    },
    /// The process has ended and waits for its parent to notice.
    #[error("process {pid} ({name}) is a zombie: it has ended and has no memory")]
    Zombie {
        /// The process.
        pid: i32,
        /// Its name.
        name: String,
        /// The parent that has not yet noticed.
        parent_pid: i32,
    },
    /// A thread of the kernel has no memory of its own.
    #[error("{pid} ({name}) is a kernel thread: it has no heap")]
    KernelThread {
        /// The id asked for.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// The program is a 32-bit one.
    #[error("process {pid} ({name}) runs a 32-bit program; only 64-bit programs can be examined")]
    ThirtyTwoBit {
        /// The process.
        pid: i32,
        /// Its name.
        name: String,
    },
    /// The id is that of a thread and not of a process.
    #[error("{tid} is a thread of process {process_pid}, not a process")]
    IsThread {
        /// The id asked for.
        tid: i32,
        /// The process that the thread belongs to.
        process_pid: i32,
    },
    /// A debugger or another tracer is attached.
    #[error("process {pid} ({name}) is already traced by process {tracer_pid} ({tracer_name})")]
    AlreadyTraced {
        /// The process.
        pid: i32,
        /// Its name.
        name: String,
        /// The tracer.
        tracer_pid: i32,
        /// The tracer's name.
        tracer_name: String,
    },
    /// A process cannot stop itself.
    #[error("process {pid} is this tool itself")]
    OwnProcess {
        /// The id asked for.
        pid: i32,
    },
    /// The kernel does not let this process look into the other.
    #[error("not permitted to examine process {pid}: {refusal}")]
    PermissionDenied {
        /// The process.
        pid: i32,
        /// What stands in the way.
        refusal: AccessRefusal,
    },
    /// No way was found to the file that a mapping shows.
    #[error("cannot open {path} as process {pid} has it mapped: {reason}")]
    ModuleUnavailable {
        /// The process.
        pid: i32,
        /// The path as the process had it.
        path: PathBuf,
        /// What was tried and how it failed.
        reason: String,
    },
    /// The kernel wrote something that is not understood.
    #[error("cannot understand {file} of process {pid}: {detail}")]
    Malformed {
        /// The process.
        pid: i32,
        /// The file under the process's folder in `/proc`.
        file: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// Another failure of the operating system.
    #[error("cannot read {file} of process {pid}: {source}")]
    Os {
        /// The process.
        pid: i32,
        /// The file under the process's folder in `/proc`, or the system call.
        file: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
}

impl ProcessError {
    /// What to do about it, where anything can be done.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } | Self::Gone { .. } | Self::Replaced { .. } => {
                Some("look up the process id again, for example with pgrep".to_owned())
            }
            Self::Zombie { parent_pid, .. } => {
                Some(format!("nothing is left to examine; its parent is process {parent_pid}"))
            }
            Self::KernelThread { .. } | Self::OwnProcess { .. } => {
                Some("give the id of the process whose heap grows".to_owned())
            }
            Self::ThirtyTwoBit { .. } => Some("run its 64-bit build, if there is one".to_owned()),
            Self::IsThread { process_pid, .. } => Some(format!("use the process id {process_pid}")),
            Self::AlreadyTraced { tracer_pid, tracer_name, .. } => Some(if *tracer_pid == 0 {
                "detach the tracer first; it runs outside this container".to_owned()
            } else {
                format!("detach or end {tracer_name} (process {tracer_pid}) first")
            }),
            Self::PermissionDenied { refusal, .. } => Some(refusal.remedy()),
            Self::ModuleUnavailable { .. } => {
                Some("run as root, so that files deleted since can be read through the process".to_owned())
            }
            Self::Malformed { .. } | Self::Os { .. } => None,
        }
    }
}

/// What is known of a refusal by the kernel to let one process examine another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRefusal {
    /// The effective user that this tool runs as.
    pub own_uid: u32,
    /// The user of the process, where it could be seen.
    pub target_uid: Option<u32>,
    /// Whether this tool has the capability `CAP_SYS_PTRACE`.
    pub has_ptrace_capability: bool,
    /// The kernel's setting `kernel.yama.ptrace_scope`, where it has one: 0 own processes, 1 only children, 2 only with
    /// the capability, 3 nobody.
    pub ptrace_scope: Option<u8>,
    /// Whether the process may be examined by its own user; a process that changed its user or capabilities may not.
    /// `None` where that cannot be seen.
    pub dumpable: Option<bool>,
    /// The process exists and `/proc` hides it.
    pub hidden: bool,
    /// What FreeBSD can put in the way, instead of what is Linux's own above.
    pub freebsd: Option<FreebsdBarriers>,
}

/// What FreeBSD can put in the way of examining a process (FreeBSD, `p_candebug` in `sys/kern/kern_prot.c`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreebsdBarriers {
    /// The setting `security.bsd.unprivileged_proc_debug`, where it could be read: without it only root may.
    pub unprivileged_debugging: Option<bool>,
    /// The setting `kern.securelevel`: above 0 nobody may examine process 1.
    pub secure_level: Option<i32>,
    /// This tool runs in a jail, and so reaches nothing outside of it.
    pub is_in_jail: bool,
    /// The jail that the process lives in; 0 for none.
    pub target_jail: i32,
    /// The process has changed its user since it was executed, so that only root may.
    pub has_changed_user: bool,
}

impl FreebsdBarriers {
    fn remedy(&self, is_root: bool) -> String {
        if is_root {
            "run as root on the host, outside of jails; security.mac modules, a process that denied tracing for itself \
             (procctl PROC_TRACE_CTL) and, for process 1, kern.securelevel can refuse root too"
        } else if self.unprivileged_debugging == Some(false) {
            "run as root, or have root run: sysctl security.bsd.unprivileged_proc_debug=1"
        } else {
            "run as root"
        }
        .to_owned()
    }

    fn list(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.unprivileged_debugging == Some(false) {
            write!(formatter, "; security.bsd.unprivileged_proc_debug is 0")?;
        }
        if self.has_changed_user {
            write!(formatter, "; the process has changed its user since it was started")?;
        }
        if self.target_jail != 0 {
            write!(formatter, "; it lives in jail {}", self.target_jail)?;
        }
        if self.is_in_jail {
            write!(formatter, "; this tool runs in a jail")?;
        }
        match self.secure_level {
            Some(level) if level > 0 => write!(formatter, "; kern.securelevel is {level}"),
            _ => Ok(()),
        }
    }
}

impl AccessRefusal {
    fn remedy(&self) -> String {
        if let Some(barriers) = &self.freebsd {
            return barriers.remedy(self.own_uid == 0);
        }
        match self.ptrace_scope {
            Some(3) => "kernel.yama.ptrace_scope is 3: nobody may attach until the machine is restarted with another \
                        value"
                .to_owned(),
            _ if self.has_ptrace_capability => {
                "the process belongs to a user namespace that this tool has no capability in, or a security module \
                 (SELinux, AppArmor, seccomp) forbids it: run the tool as root on the host"
                    .to_owned()
            }
            Some(1) if self.target_uid == Some(self.own_uid) && self.dumpable != Some(false) => {
                "run as root, give the tool the capability CAP_SYS_PTRACE, or run: sysctl kernel.yama.ptrace_scope=0"
                    .to_owned()
            }
            _ => "run as root, or give the tool the capability CAP_SYS_PTRACE".to_owned(),
        }
    }
}

impl std::fmt::Display for AccessRefusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.hidden {
            return write!(formatter, "it exists, but /proc hides it from user {}", self.own_uid);
        }
        match self.target_uid {
            Some(target_uid) if target_uid != self.own_uid => {
                write!(
                    formatter,
                    "it belongs to user {target_uid}, this tool runs as user {}",
                    self.own_uid
                )?;
            }
            Some(_) => write!(formatter, "it belongs to the same user {}", self.own_uid)?,
            None => write!(formatter, "this tool runs as user {}", self.own_uid)?,
        }
        if let Some(barriers) = &self.freebsd {
            return barriers.list(formatter);
        }
        if let Some(scope) = self.ptrace_scope.filter(|&scope| scope > 0) {
            write!(formatter, "; kernel.yama.ptrace_scope is {scope}")?;
        }
        if self.dumpable == Some(false) {
            write!(formatter, "; the process is not dumpable")?;
        }
        let has = if self.has_ptrace_capability { "with" } else { "without" };
        write!(formatter, "; {has} the capability CAP_SYS_PTRACE")
    }
}
