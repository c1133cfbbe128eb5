//! A process that was found to be examinable, and a hold on its identity.

use super::memory::ProcessMemory;
use super::page_table::PageTable;
use super::stop::Pause;
use super::tracing::Tracing;
use super::{access, process_table, system_call};
use crate::format::auxiliary_vector;
use crate::format::freebsd_kinfo::VmEntry;
use crate::{Architecture, Mapping, ProcessError, ResidentBytes};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A running 64-bit process of this machine that may be examined and that nobody else traces.
///
/// The id alone may come to mean another process. So this type keeps its start time and what the kernel handed to its program;
/// [`Process::check_same`] compares.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    name: String,
    executable: Option<PathBuf>,
    uid: u32,
    start_us: u64,
    boot_id: String,
    /// The auxiliary vector holds addresses that differ in every execution, where the system places programs at random.
    auxiliary_bytes: Vec<u8>,
    tracing: Arc<Tracing>,
}

impl Process {
    /// Finds the process and checks that it can be examined. Nothing is stopped.
    ///
    /// # Errors
    ///
    /// One variant of [`ProcessError`] for each reason why it cannot.
    pub fn open(pid: i32) -> Result<Self, ProcessError> {
        if i64::from(pid) == i64::from(std::process::id()) {
            return Err(ProcessError::OwnProcess { pid });
        }
        if pid <= 0 {
            return Err(ProcessError::NotFound { pid });
        }
        let found = process_table::find(pid).map_err(|error| match error {
            libc::ESRCH => ProcessError::NotFound { pid },
            error => access::error(pid, "KERN_PROC_PID", error),
        })?;
        if found.pid != pid {
            return Err(ProcessError::IsThread { tid: pid, process_pid: found.pid });
        }
        if found.is_kernel {
            return Err(ProcessError::KernelThread { pid, name: found.name });
        }
        if found.is_zombie || found.is_ending {
            return Err(ProcessError::Zombie { pid, name: found.name, parent_pid: found.parent_pid });
        }
        if found.is_traced {
            let tracer_pid = found.tracer_pid;
            let tracer_name = access::name_of(tracer_pid);
            return Err(ProcessError::AlreadyTraced { pid, name: found.name, tracer_pid, tracer_name });
        }
        if found.emulation.contains("ELF32") || found.emulation.contains("a.out") {
            return Err(ProcessError::ThirtyTwoBit { pid, name: found.name });
        }
        let auxiliary_bytes = process_table::auxiliary_vector(pid)
            .map_err(|error| access::error(pid, "KERN_PROC_AUXV", error))?;
        let process = Self {
            pid,
            name: found.name,
            executable: process_table::program_path(pid),
            uid: found.uid,
            start_us: found.start_us,
            boot_id: process_table::text(c"kern.boot_id").unwrap_or_default(),
            auxiliary_bytes,
            tracing: Arc::new(Tracing::new(pid)),
        };
        process.auxiliary_vector()?;
        process.check_same()?;
        Ok(process)
    }

    /// Checks that the id still means the process that was opened, with the program that it then ran.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] where it has ended, [`ProcessError::Replaced`] where it is another one or has executed another
    /// program.
    pub fn check_same(&self) -> Result<(), ProcessError> {
        let pid = self.pid;
        let found = process_table::find(pid).map_err(|error| access::error(pid, "KERN_PROC_PID", error))?;
        if found.is_zombie || found.is_ending {
            return Err(ProcessError::Gone { pid });
        }
        if found.start_us != self.start_us {
            return Err(ProcessError::Replaced { pid, change: "it started at another time" });
        }
        if self.has_same_image() {
            Ok(())
        } else {
            Err(ProcessError::Replaced { pid, change: "it executes another program now" })
        }
    }

    /// Whether it runs the program that it ran when it was opened. Costs one system call and touches no page that was not
    /// touched before.
    pub fn has_same_image(&self) -> bool {
        process_table::auxiliary_vector(self.pid).is_ok_and(|bytes| bytes == self.auxiliary_bytes)
    }

    /// The process id.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Its name when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's path, where the kernel knows it.
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// Whether the program's file was removed or replaced since it was started: the kernel then knows no path of it, and this is
    /// not told.
    pub const fn is_executable_deleted(&self) -> bool {
        false
    }

    /// Its effective user.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// When it started, in microseconds since 1970. Together with the boot id and the process id it names the process for good.
    pub const fn start_time_ticks(&self) -> u64 {
        self.start_us
    }

    /// Its id.
    pub fn namespace_pids(&self) -> &[i32] {
        std::slice::from_ref(&self.pid)
    }

    /// The kernel's random id of this boot; empty where the system has none.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Its instruction set.
    pub const fn architecture(&self) -> Option<Architecture> {
        if cfg!(target_arch = "x86_64") {
            Some(Architecture::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Architecture::Aarch64)
        } else {
            None
        }
    }

    pub(super) const fn tracing(&self) -> &Arc<Tracing> {
        &self.tracing
    }

    /// Whether it has the same root as this tool, so that its paths mean the same here. `None` where that cannot be seen.
    pub fn shares_mount_namespace(&self) -> Option<bool> {
        let own = i32::try_from(std::process::id()).ok()?;
        Some(process_table::root_folder(own)? == process_table::root_folder(self.pid)?)
    }

    /// Its mappings in ascending order.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] where it has ended or has no address space any more.
    pub fn mappings(&self) -> Result<Vec<Mapping>, ProcessError> {
        self.entries().map(|entries| entries.into_iter().map(|entry| entry.mapping).collect())
    }

    fn entries(&self) -> Result<Vec<VmEntry>, ProcessError> {
        let pid = self.pid;
        let entries = process_table::mappings(pid);
        let entries = entries.map_err(|error| access::error(pid, "KERN_PROC_VMMAP", error))?;
        if entries.is_empty() { Err(ProcessError::Gone { pid }) } else { Ok(entries) }
    }

    /// Keys (`AT_PHDR`, `AT_ENTRY`, ...) and values that the kernel handed to the program.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Replaced`] in the middle of executing a program; [`ProcessError::Gone`],
    /// [`ProcessError::PermissionDenied`] or an error of the system.
    pub fn auxiliary_vector(&self) -> Result<Vec<(u64, u64)>, ProcessError> {
        let bytes = process_table::auxiliary_vector(self.pid)
            .map_err(|error| access::error(self.pid, "KERN_PROC_AUXV", error))?;
        let pairs = auxiliary_vector::parse_auxiliary_vector(&bytes);
        if pairs.is_empty() {
            return Err(ProcessError::Replaced {
                pid: self.pid,
                change: "it begins to execute another program",
            });
        }
        Ok(pairs)
    }

    /// Its memory, for reading.
    pub fn memory(&self) -> ProcessMemory {
        ProcessMemory::new(Arc::clone(&self.tracing))
    }

    /// What is mapped where, for asking what can be read.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`], [`ProcessError::PermissionDenied`] or an error of the system.
    pub fn page_table(&self) -> Result<PageTable, ProcessError> {
        Ok(PageTable::new(Arc::clone(&self.tracing), self.entries()?))
    }

    /// Pauses that reading memory has cost since the last call: it can be read only while the process stands still, so reading
    /// outside of a stop makes short ones of its own.
    pub fn take_read_pauses(&self) -> Vec<Pause> {
        let thread_count = self.thread_count().unwrap_or(0);
        let stamps = self.tracing.take_borrowed();
        stamps.into_iter().map(|stamps| Pause::of(stamps, thread_count)).collect()
    }

    /// Resident memory by the counter of its page table. How much of it is what, the system does not tell.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] or an error of the system.
    pub fn resident_bytes(&self) -> Result<ResidentBytes, ProcessError> {
        let pid = self.pid;
        let found = process_table::find(pid).map_err(|error| access::error(pid, "KERN_PROC_PID", error))?;
        Ok(ResidentBytes {
            total_bytes: found.resident_pages.saturating_mul(system_call::page_size_bytes()),
            ..ResidentBytes::default()
        })
    }

    /// The same: the system has no way to count page by page.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] or an error of the system.
    pub fn resident_bytes_exact(&self) -> Result<ResidentBytes, ProcessError> {
        self.resident_bytes()
    }
}
