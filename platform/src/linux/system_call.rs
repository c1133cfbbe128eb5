//! The system calls that no crate offers in a safe form that fits, one a function.
//!
//! Each function does nothing but the call. What is asked for, and when, is decided elsewhere.

use nix::errno::Errno;
use nix::libc;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// One run of pages of `PAGEMAP_SCAN`. Layout: Linux 6.7, `struct page_region` in `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PageRegion {
    pub start: u64,
    pub end: u64,
    pub categories: u64,
}

/// The argument of `PAGEMAP_SCAN`. Layout: Linux 6.7, `struct pm_scan_arg` in `include/uapi/linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PageScan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    /// Written by the kernel: where the walk ended.
    pub walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

impl PageScan {
    /// Looks from `start` to `end` for pages in any of the categories `wanted`, at most `pages_max` of them.
    pub fn new(start: u64, end: u64, wanted: u64, told: u64, pages_max: u64) -> Self {
        Self {
            start,
            end,
            max_pages: pages_max,
            category_anyof_mask: wanted,
            return_mask: told,
            ..Self::default()
        }
    }
}

const _: () = assert!(size_of::<PageScan>() == 96 && size_of::<PageRegion>() == 24);

/// `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: libc::Ioctl = nix::request_code_readwrite!(b'f', 16, size_of::<PageScan>());

/// `ioctl(PAGEMAP_SCAN)` on an open `/proc/PID/pagemap`: the number of `regions` that were filled.
pub fn pagemap_scan(file: RawFd, scan: &mut PageScan, regions: &mut [PageRegion]) -> Result<usize, Errno> {
    scan.size = size_of::<PageScan>() as u64;
    scan.vec = regions.as_mut_ptr() as u64;
    scan.vec_len = regions.len() as u64;
    // SAFETY: the kernel reads and writes `scan`, which is as long as `size` says, and writes at most `vec_len` elements
    // to `regions`; both are borrowed exclusively until the call returns. Without flags the call changes no page.
    let filled = unsafe { libc::ioctl(file, PAGEMAP_SCAN, std::ptr::from_mut(scan)) };
    Errno::result(filled).map(|count| usize::try_from(count).unwrap_or(0))
}

/// `pidfd_open(2)`: a handle on a process that cannot come to mean another.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers and returns a new file descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor was made by the call above and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `poll(2)` without waiting: whether the process behind a pidfd has ended.
pub fn pidfd_has_ended(pidfd: &OwnedFd) -> bool {
    let mut entry = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry is passed with the count 1, borrowed exclusively until the call returns.
    let ready = unsafe { libc::poll(&raw mut entry, 1, 0) };
    ready == 1 && entry.revents & libc::POLLIN != 0
}

/// `ptrace(PTRACE_DETACH)`: lets a stopped thread go on, with `signal` delivered to it unless that is 0. Real-time signals
/// have no name in nix, so numbers are used.
pub fn ptrace_detach(tid: i32, signal: i32) -> Result<(), Errno> {
    let address = std::ptr::null_mut::<libc::c_void>();
    let data = std::ptr::without_provenance_mut::<libc::c_void>(usize::try_from(signal).unwrap_or(0));
    // SAFETY: this request takes two numbers in place of pointers and touches no memory of this process.
    let done = unsafe { libc::ptrace(libc::PTRACE_DETACH, tid, address, data) };
    Errno::result(done).map(drop)
}

/// `ptrace(PTRACE_GETREGSET)` of a stopped thread into `buffer`: the number of bytes that the set has.
pub fn ptrace_register_set(tid: i32, set: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let set = std::ptr::without_provenance_mut::<libc::c_void>(usize::try_from(set).unwrap_or(0));
    // SAFETY: the kernel writes at most `iov_len` bytes to `buffer` and the count to `vector`, both borrowed exclusively.
    let done = unsafe { libc::ptrace(libc::PTRACE_GETREGSET, tid, set, &raw mut vector) };
    Errno::result(done).map(|_| vector.iov_len)
}

/// `waitid(2)` for one thread, whoever made it: its `si_code` and `si_status`, or `None` where `WNOHANG` was given and nothing
/// has happened. nix refuses the statuses of real-time signals, so it is not used here.
pub fn wait_for(tid: i32, flags: i32) -> Result<Option<(i32, i32)>, Errno> {
    let mut event = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    let id = libc::id_t::try_from(tid).map_err(|_| Errno::ECHILD)?;
    // SAFETY: the kernel writes at most one `siginfo_t`, borrowed exclusively.
    let done = unsafe { libc::waitid(libc::P_PID, id, event.as_mut_ptr(), flags | libc::__WALL) };
    Errno::result(done)?;
    // SAFETY: all bytes were set to zero above, which is a valid `siginfo_t`, or by the kernel since.
    let event = unsafe { event.assume_init() };
    if event.si_signo != libc::SIGCHLD {
        return Ok(None);
    }
    // SAFETY: a `siginfo_t` of SIGCHLD has this field.
    let status = unsafe { event.si_status() };
    Ok(Some((event.si_code, status)))
}

/// `sched_getscheduler(2)` of the calling thread.
pub fn scheduling_policy() -> Result<i32, Errno> {
    // SAFETY: the call takes and returns numbers.
    Errno::result(unsafe { libc::sched_getscheduler(0) })
}

/// `sched_getparam(2)` of the calling thread: its real-time priority.
pub fn real_time_priority() -> Result<i32, Errno> {
    let mut parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel writes one `sched_param`, borrowed exclusively.
    let done = unsafe { libc::sched_getparam(0, &raw mut parameter) };
    Errno::result(done).map(|_| parameter.sched_priority)
}

/// `sched_setscheduler(2)` of the calling thread.
pub fn set_scheduling(policy: i32, priority: i32) -> Result<(), Errno> {
    let parameter = libc::sched_param { sched_priority: priority };
    // SAFETY: the kernel reads one `sched_param`.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) };
    Errno::result(done).map(drop)
}

/// `getpriority(2)` of the calling thread: its nice value.
pub fn nice_value() -> Result<i32, Errno> {
    Errno::clear();
    // SAFETY: the call takes and returns numbers. -1 is also a nice value, so the error number decides.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    if nice == -1 && Errno::last_raw() != 0 { Err(Errno::last()) } else { Ok(nice) }
}

/// `setpriority(2)` of the calling thread.
pub fn set_nice_value(nice: i32) -> Result<(), Errno> {
    // SAFETY: the call takes and returns numbers.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// `struct perf_event_attr` up to its fifth version. Layout: Linux 4.1, `include/uapi/linux/perf_event.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_kind: u32,
    breakpoint_address: u64,
    breakpoint_len: u64,
    branch_sample_type: u64,
    sample_regs_user: u64,
    sample_stack_user: u32,
    clock: i32,
    sample_regs_intr: u64,
    aux_watermark: u32,
    sample_max_stack: u16,
    reserved: u16,
}

const _: () = assert!(size_of::<EventAttributes>() == 112);

impl EventAttributes {
    /// A breakpoint of (kind, address, length), disabled, that samples every hit in user space with these registers and so
    /// much of the stack, and stamps it with the monotonic clock.
    pub fn breakpoint(
        (kind, address, len_bytes): (u32, u64, u64),
        sample_type: u64,
        registers: u64,
        stack_len_bytes: u32,
    ) -> Self {
        const TYPE_BREAKPOINT: u32 = 5;
        const DISABLED: u64 = 1;
        const EXCLUDE_KERNEL: u64 = 1 << 5;
        const EXCLUDE_HYPERVISOR: u64 = 1 << 6;
        const USE_CLOCK: u64 = 1 << 25;
        Self {
            kind: TYPE_BREAKPOINT,
            size: size_of::<Self>() as u32,
            sample_period: 1,
            sample_type,
            flags: DISABLED | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR | USE_CLOCK,
            wakeup_events: 1,
            breakpoint_kind: kind,
            breakpoint_address: address,
            breakpoint_len: len_bytes,
            sample_regs_user: registers,
            sample_stack_user: stack_len_bytes,
            clock: libc::CLOCK_MONOTONIC,
            ..Self::default()
        }
    }
}

impl EventAttributes {
    /// Page faults of a thread, disabled, of which one of `period` is sampled, also those of the kernel on its behalf where
    /// `with_kernel` is set; otherwise as a breakpoint.
    pub fn page_faults(
        period: u64,
        with_kernel: bool,
        sample_type: u64,
        registers: u64,
        stack_len_bytes: u32,
    ) -> Self {
        const TYPE_SOFTWARE: u32 = 1;
        const PAGE_FAULTS: u64 = 2;
        const EXCLUDE_KERNEL: u64 = 1 << 5;
        let like = Self::breakpoint((0, 0, 0), sample_type, registers, stack_len_bytes);
        let flags = if with_kernel { like.flags & !EXCLUDE_KERNEL } else { like.flags };
        Self { kind: TYPE_SOFTWARE, config: PAGE_FAULTS, sample_period: period, flags, ..like }
    }
}

/// `perf_event_open(2)` for one thread on any processor. Children and new threads do not inherit the event.
pub fn perf_event_open(attributes: &EventAttributes, tid: i32) -> Result<OwnedFd, Errno> {
    const FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: the kernel reads as many bytes of `attributes` as its field `size` says, which is all of it.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes, tid, -1, -1, FLAG_FD_CLOEXEC) };
    let fd = Errno::result(fd)?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor was made by the call above and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `ioctl(PERF_EVENT_IOC_ENABLE)`.
pub fn perf_event_enable(event: &OwnedFd) -> Result<(), Errno> {
    const ENABLE: libc::Ioctl = nix::request_code_none!(b'$', 0);
    // SAFETY: this request takes a number and touches no memory of this process.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), ENABLE, 0) };
    Errno::result(done).map(drop)
}

/// `ioctl(PERF_EVENT_IOC_DISABLE)`.
pub fn perf_event_disable(event: &OwnedFd) -> Result<(), Errno> {
    const DISABLE: libc::Ioctl = nix::request_code_none!(b'$', 1);
    // SAFETY: this request takes a number and touches no memory of this process.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), DISABLE, 0) };
    Errno::result(done).map(drop)
}

/// `ioctl(PERF_EVENT_IOC_MODIFY_ATTRIBUTES)`, since Linux 4.17: moves a breakpoint.
pub fn perf_event_modify(event: &OwnedFd, attributes: &EventAttributes) -> Result<(), Errno> {
    const MODIFY: libc::Ioctl = nix::request_code_write!(b'$', 11, size_of::<*const EventAttributes>());
    // SAFETY: the kernel reads as many bytes of `attributes` as its field `size` says, which is all of it.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), MODIFY, std::ptr::from_ref(attributes)) };
    Errno::result(done).map(drop)
}
