//! A process that was found to be examinable, and a hold on its identity.

use super::{access, memory::ProcessMemory, page_table::PageTable, proc_file, system_call};
use crate::format::{auxiliary_vector, maps};
use crate::{Architecture, Mapping, ProcessError, ReadError, ResidentBytes};
use nix::errno::Errno;
use nix::libc;
use nix::sys::uio::pread;
use nix::unistd::getpid;
use procfs::process::{StatFlags, Status};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A running 64-bit process of this machine that may be examined and that nobody else traces.
///
/// The id alone may come to mean another process. So this type keeps a handle on the process, its start time and an open
/// view of its address space; [`Process::check_same`] compares.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    name: String,
    executable: Option<PathBuf>,
    executable_deleted: bool,
    uid: u32,
    start_time_ticks: u64,
    namespace_pids: Vec<i32>,
    boot_id: String,
    architecture: Option<Architecture>,
    is_own_child: bool,
    pidfd: Option<OwnedFd>,
    memory_file: Arc<File>,
}

impl Process {
    /// Finds the process and checks that it can be examined. Nothing is stopped.
    ///
    /// # Errors
    ///
    /// One variant of [`ProcessError`] for each reason why it cannot.
    pub fn open(pid: i32) -> Result<Self, ProcessError> {
        if pid == getpid().as_raw() {
            return Err(ProcessError::OwnProcess { pid });
        }
        let status = find(pid)?;
        let stat = proc_file::stat(pid).map_err(|source| proc_file::error(pid, "stat", source))?;
        let flags = StatFlags::from_bits_truncate(stat.flags);
        if flags.contains(StatFlags::PF_KTHREAD) {
            return Err(ProcessError::KernelThread { pid, name: status.name });
        }
        let Some(tid) = find_living_thread(pid) else {
            return Err(ProcessError::Zombie { pid, name: status.name, parent_pid: status.ppid });
        };
        if status.tracerpid != 0 {
            let tracer_name = access::tracer_name(status.tracerpid);
            return Err(ProcessError::AlreadyTraced {
                pid,
                name: status.name,
                tracer_pid: status.tracerpid,
                tracer_name,
            });
        }
        let architecture = program_architecture(pid, tid, &status.name)?;
        let memory_file = File::open(proc_file::path(pid, &format!("task/{tid}/mem")))
            .map_err(|source| proc_file::error(pid, "mem", source))?;
        let executable = std::fs::read_link(proc_file::path(pid, &format!("task/{tid}/exe"))).ok();
        let (executable, executable_deleted) = split_deleted(executable);
        let process = Self {
            pid,
            name: status.name,
            executable,
            executable_deleted,
            uid: status.euid,
            start_time_ticks: stat.starttime,
            namespace_pids: status.nspid.unwrap_or_else(|| vec![pid]),
            boot_id: std::fs::read("/proc/sys/kernel/random/boot_id")
                .map(|bytes| proc_file::text_line(&bytes))
                .unwrap_or_default(),
            architecture,
            is_own_child: status.ppid == getpid().as_raw(),
            pidfd: system_call::pidfd_open(pid).ok(),
            memory_file: Arc::new(memory_file),
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
        if self.pidfd.as_ref().is_some_and(system_call::pidfd_has_ended) {
            return Err(ProcessError::Gone { pid });
        }
        let (_, start_time_ticks) =
            proc_file::state_and_start(pid, pid).map_err(|source| proc_file::error(pid, "stat", source))?;
        if start_time_ticks != self.start_time_ticks {
            return Err(ProcessError::Replaced { pid, change: "it started at another time" });
        }
        if self.has_same_image() {
            Ok(())
        } else if has_address_space(pid) {
            Err(ProcessError::Replaced { pid, change: "it executes another program now" })
        } else {
            Err(ProcessError::Gone { pid })
        }
    }

    /// Whether the address space that was opened is still in use: false after the process ended or executed another program.
    /// Costs one system call and touches no page.
    pub fn has_same_image(&self) -> bool {
        address_space_exists(&self.memory_file)
    }

    /// The process id, as seen from here.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// The name of its first thread when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program's path in the process's own root, where it could be seen.
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// Whether the program's file was removed or replaced since it was started.
    pub const fn is_executable_deleted(&self) -> bool {
        self.executable_deleted
    }

    /// Its effective user.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// When it started, in clock ticks since boot. Together with the boot id and the process id it names the process for good.
    pub const fn start_time_ticks(&self) -> u64 {
        self.start_time_ticks
    }

    /// Its id here and then in each nested PID namespace, innermost last.
    pub fn namespace_pids(&self) -> &[i32] {
        &self.namespace_pids
    }

    /// The kernel's random id of this boot; empty where it cannot be read.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }

    /// Its instruction set, where it is one that this crate knows.
    pub const fn architecture(&self) -> Option<Architecture> {
        self.architecture
    }

    pub(super) fn memory_file(&self) -> Arc<File> {
        Arc::clone(&self.memory_file)
    }

    pub(super) const fn is_own_child(&self) -> bool {
        self.is_own_child
    }

    /// Whether it sees the same mounts as this tool, so that its paths mean the same here. `None` where that cannot be seen.
    pub fn shares_mount_namespace(&self) -> Option<bool> {
        let own = std::fs::read_link("/proc/self/ns/mnt").ok()?;
        Some(own == std::fs::read_link(proc_file::path(self.pid, "ns/mnt")).ok()?)
    }

    /// Its mappings in ascending order.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] where it has ended or has no address space any more.
    pub fn mappings(&self) -> Result<Vec<Mapping>, ProcessError> {
        let pid = self.pid;
        let text = self.read_of_living_thread("maps")?;
        let (mappings, bad_line_count) = maps::parse_maps(&text);
        if bad_line_count > 0 {
            let detail = format!("{bad_line_count} lines are not mappings");
            return Err(ProcessError::Malformed { pid, file: "maps", detail });
        }
        if mappings.is_empty() { Err(ProcessError::Gone { pid }) } else { Ok(mappings) }
    }

    /// Keys (`AT_PHDR`, `AT_ENTRY`, ...) and values that the kernel handed to the program.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Replaced`] in the middle of executing a program; [`ProcessError::Gone`],
    /// [`ProcessError::PermissionDenied`] or an error of the system.
    pub fn auxiliary_vector(&self) -> Result<Vec<(u64, u64)>, ProcessError> {
        let pairs = auxiliary_vector::parse_auxiliary_vector(&self.read_of_living_thread("auxv")?);
        // The kernel fills it in last when it sets up the address space of a new program.
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
        ProcessMemory::new(self.pid, self.memory_file())
    }

    /// Its page table, for asking which pages are in memory.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`], [`ProcessError::PermissionDenied`] or an error of the system.
    pub fn page_table(&self) -> Result<PageTable, ProcessError> {
        let pid = self.pid;
        let file = File::open(self.living_thread_path("pagemap")?)
            .map_err(|source| proc_file::error(pid, "pagemap", source))?;
        Ok(PageTable::new(pid, file, self.memory_file()))
    }

    /// Pauses that reading memory has cost since the last call: none, it can be read while the process runs.
    pub const fn take_read_pauses(&self) -> Vec<super::Pause> {
        Vec::new()
    }

    /// Resident memory by the kernel's counters. Cheap; holds no lock of the process. Kernels before 6.16 keep the counters for
    /// each CPU apart and do not add them up exactly, so that each figure may be off by some dozens of pages for each CPU.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] or an error of the system.
    pub fn resident_bytes(&self) -> Result<ResidentBytes, ProcessError> {
        let pid = self.pid;
        let bytes = self.read_of_living_thread("status")?;
        let text = String::from_utf8_lossy(&bytes);
        let line = |key: &str| kib_line(&text, key);
        let total_bytes = line("VmRSS:").ok_or(ProcessError::Gone { pid })?;
        Ok(ResidentBytes {
            anonymous_bytes: line("RssAnon:").unwrap_or(0),
            file_bytes: line("RssFile:").unwrap_or(0),
            shared_memory_bytes: line("RssShmem:").unwrap_or(0),
            swapped_bytes: line("VmSwap:").unwrap_or(0),
            total_bytes,
            exact: false,
        })
    }

    /// Resident memory summed page by page by the kernel (`smaps_rollup`). It walks the whole page table and holds a lock
    /// meanwhile that the process needs for mapping memory: some 10 ms for each GiB of small pages.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Gone`] or an error of the system, also on kernels before 4.14, which lack the file.
    pub fn resident_bytes_exact(&self) -> Result<ResidentBytes, ProcessError> {
        let pid = self.pid;
        let bytes = self.read_of_living_thread("smaps_rollup")?;
        let text = String::from_utf8_lossy(&bytes);
        let line = |key: &str| kib_line(&text, key).unwrap_or(0);
        let total_bytes = kib_line(&text, "Rss:").ok_or(ProcessError::Gone { pid })?;
        let anonymous_bytes = line("Anonymous:");
        Ok(ResidentBytes {
            anonymous_bytes,
            file_bytes: total_bytes.saturating_sub(anonymous_bytes),
            shared_memory_bytes: 0,
            swapped_bytes: line("Swap:"),
            total_bytes,
            exact: true,
        })
    }

    /// `/proc/PID/task/TID/NAME` of a thread that still has the address space: the first thread may have ended before others.
    pub(super) fn living_thread_path(&self, name: &str) -> Result<PathBuf, ProcessError> {
        let pid = self.pid;
        let tid = find_living_thread(pid).ok_or(ProcessError::Gone { pid })?;
        Ok(proc_file::path(pid, &format!("task/{tid}/{name}")))
    }

    fn read_of_living_thread(&self, name: &'static str) -> Result<Vec<u8>, ProcessError> {
        let mut bytes = Vec::with_capacity(16 * 1024);
        File::open(self.living_thread_path(name)?)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|source| proc_file::error(self.pid, name, source))?;
        Ok(bytes)
    }
}

/// Whether an open `/proc/PID/mem` still shows an address space. Reading there gives 0 bytes once the last thread has left
/// it; at address 0, where nothing is mapped, it gives an error before.
pub(super) fn address_space_exists(memory_file: &File) -> bool {
    pread(memory_file, &mut [0], 0) != Ok(0)
}

/// Whether a process has an address space now, whichever: one that ends loses it some time before it is a zombie.
fn has_address_space(pid: i32) -> bool {
    find_living_thread(pid).is_some_and(|tid| {
        match File::open(proc_file::path(pid, &format!("task/{tid}/mem"))) {
            Ok(file) => address_space_exists(&file),
            // A program that runs as another user.
            Err(error) => proc_file::is_denied(&error),
        }
    })
}

fn find(pid: i32) -> Result<Status, ProcessError> {
    if pid <= 0 {
        return Err(ProcessError::NotFound { pid });
    }
    let status = proc_file::status(pid).map_err(|source| {
        if !proc_file::is_gone(&source) {
            proc_file::error(pid, "status", source)
        } else if access::exists(pid) {
            ProcessError::PermissionDenied { pid, refusal: access::refusal(pid) }
        } else {
            ProcessError::NotFound { pid }
        }
    })?;
    if status.tgid == getpid().as_raw() {
        return Err(ProcessError::OwnProcess { pid });
    }
    if status.tgid != pid {
        return Err(ProcessError::IsThread { tid: pid, process_pid: status.tgid });
    }
    Ok(status)
}

/// A thread of the process that has not ended: the first one, or another where that has ended before them. `None` where all
/// have.
pub(super) fn find_living_thread(pid: i32) -> Option<i32> {
    /// A thread that executes a program ends the first one and then takes its place, maybe between two looks.
    const LOOKS_MAX: usize = 8;
    let lives =
        |tid: &i32| proc_file::state_and_start(pid, *tid).is_ok_and(|(state, _)| !matches!(state, 'Z' | 'X'));
    (0..LOOKS_MAX).find_map(|_| {
        if lives(&pid) {
            return Some(pid);
        }
        super::threads::list(pid).ok()?.into_iter().find(lives)
    })
}

/// The instruction set from the program's ELF header; refuses 32-bit programs.
fn program_architecture(pid: i32, tid: i32, name: &str) -> Result<Option<Architecture>, ProcessError> {
    const ELFCLASS32: u8 = 1;
    const EM_X86_64: u16 = 62;
    const EM_AARCH64: u16 = 183;
    let mut header = [0; 20];
    File::open(proc_file::path(pid, &format!("task/{tid}/exe")))
        .and_then(|mut file| file.read_exact(&mut header))
        .map_err(|source| proc_file::error(pid, "exe", source))?;
    let [0x7f, b'E', b'L', b'F', class, .., machine_low, machine_high] = header else { return Ok(None) };
    if class == ELFCLASS32 {
        return Err(ProcessError::ThirtyTwoBit { pid, name: name.to_owned() });
    }
    Ok(match u16::from_le_bytes([machine_low, machine_high]) {
        EM_X86_64 => Some(Architecture::X86_64),
        EM_AARCH64 => Some(Architecture::Aarch64),
        _ => None,
    })
}

fn split_deleted(path: Option<PathBuf>) -> (Option<PathBuf>, bool) {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let Some(path) = path else { return (None, false) };
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(stripped) => (Some(PathBuf::from(std::ffi::OsString::from_vec(stripped.to_vec()))), true),
        None => (Some(path), false),
    }
}

fn kib_line(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The reading error for an error number that does not concern one address alone.
pub(super) fn read_error(pid: i32, address: u64, call: &'static str, errno: Errno) -> ReadError {
    match errno as i32 {
        libc::ESRCH => ReadError::Gone { pid },
        number if access::is_permission(number) => ReadError::NotPermitted { pid },
        os_error => ReadError::Os { pid, address, call, os_error },
    }
}
