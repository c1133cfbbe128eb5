//! The system calls, one a function.
//!
//! Each function does nothing but the call and makes no heap allocation, so that a forked process may use it. Errors are the
//! system's error numbers.

use crate::format::freebsd_layout::{
    PIOD_ADDR, PIOD_LEN, PIOD_OFFS, PIOD_OP, PIOD_READ_D, PT_IO, PTRACE_IO_DESC_BYTES,
};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const _: () = assert!(size_of::<libc::ptrace_io_desc>() == PTRACE_IO_DESC_BYTES);
const _: () = assert!(std::mem::offset_of!(libc::ptrace_io_desc, piod_op) == PIOD_OP);
const _: () = assert!(std::mem::offset_of!(libc::ptrace_io_desc, piod_offs) == PIOD_OFFS);
const _: () = assert!(std::mem::offset_of!(libc::ptrace_io_desc, piod_addr) == PIOD_ADDR);
const _: () = assert!(std::mem::offset_of!(libc::ptrace_io_desc, piod_len) == PIOD_LEN);

/// The error number of the last call that failed.
fn last_error() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

fn checked(returned: libc::c_int) -> Result<libc::c_int, i32> {
    if returned == -1 { Err(last_error()) } else { Ok(returned) }
}

/// `ptrace(2)` with numbers in place of an address.
pub fn ptrace(request: i32, id: i32, address: usize, data: i32) -> Result<i32, i32> {
    let address = std::ptr::without_provenance_mut(address);
    // SAFETY: requests that take numbers touch no memory of this process.
    checked(unsafe { libc::ptrace(request, id, address, data) })
}

/// `ptrace(2)` with a request that fills `buffer`, as far as the request's structure goes: callers give room for all of it.
pub fn ptrace_fill(request: i32, id: i32, buffer: &mut [u8], data: i32) -> Result<i32, i32> {
    // SAFETY: the caller has looked that `buffer` is as long as what the request writes; it is borrowed exclusively.
    checked(unsafe { libc::ptrace(request, id, buffer.as_mut_ptr().cast(), data) })
}

/// `ptrace(PT_GETREGSET)` of a thread into `buffer`, which must be exactly as long as the set.
#[cfg(target_arch = "aarch64")]
pub fn ptrace_register_set(tid: i32, set: i32, buffer: &mut [u8]) -> Result<(), i32> {
    use crate::format::freebsd_layout::PT_GETREGSET;
    let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let vector = std::ptr::from_mut(&mut vector).cast();
    // SAFETY: the kernel writes at most `iov_len` bytes to `buffer` and the length to `vector`, both borrowed exclusively.
    checked(unsafe { libc::ptrace(PT_GETREGSET, tid, vector, set) }).map(drop)
}

/// `ptrace(PT_IO)`: copies memory of a stopped process; the number of bytes.
pub fn ptrace_read(pid: i32, address: u64, destination: &mut [u8]) -> Result<usize, i32> {
    let mut description = libc::ptrace_io_desc {
        piod_op: PIOD_READ_D,
        piod_offs: std::ptr::without_provenance_mut(usize::try_from(address).map_err(|_| libc::EFAULT)?),
        piod_addr: destination.as_mut_ptr().cast(),
        piod_len: destination.len(),
    };
    let description_ptr = std::ptr::from_mut(&mut description).cast();
    // SAFETY: the kernel writes at most `piod_len` bytes to `destination` and the length to `description`, both borrowed exclusively.
    checked(unsafe { libc::ptrace(PT_IO, pid, description_ptr, 0) })?;
    Ok(description.piod_len.min(destination.len()))
}

/// What [`wait_for`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It stopped with this signal.
    Stopped(i32),
    /// It ended.
    Ended,
    /// Something else, or nothing yet.
    Other,
}

/// `waitpid(2)`.
pub fn wait_for(pid: i32, flags: i32) -> Result<Waited, i32> {
    let mut status = 0;
    // SAFETY: the kernel writes one number, borrowed exclusively.
    let found = checked(unsafe { libc::waitpid(pid, &raw mut status, flags) })?;
    Ok(if found != pid {
        Waited::Other
    } else if libc::WIFSTOPPED(status) {
        Waited::Stopped(libc::WSTOPSIG(status))
    } else if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
        Waited::Ended
    } else {
        Waited::Other
    })
}

/// `kill(2)`.
pub fn kill(pid: i32, signal: i32) -> Result<(), i32> {
    // SAFETY: the call takes numbers.
    checked(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// `sysctl(3)` by numbers into `buffer`: the bytes that were filled. What finds no room is left out.
pub fn sysctl(name: &[i32], buffer: &mut [u8]) -> Result<usize, i32> {
    let count = libc::c_uint::try_from(name.len()).map_err(|_| libc::EINVAL)?;
    let mut len_bytes = buffer.len();
    let (place, len) = (buffer.as_mut_ptr().cast(), &raw mut len_bytes);
    // SAFETY: the kernel reads `count` numbers and writes at most `len_bytes` bytes and the length, all borrowed until it returns.
    let done = unsafe { libc::sysctl(name.as_ptr(), count, place, len, std::ptr::null(), 0) };
    match checked(done) {
        Ok(_) => Ok(len_bytes.min(buffer.len())),
        Err(libc::ENOMEM) if len_bytes > 0 => Ok(len_bytes.min(buffer.len())),
        Err(error) => Err(error),
    }
}

/// `sysctl(3)` by numbers: the length of what it would give now.
pub fn sysctl_len_bytes(name: &[i32]) -> Result<usize, i32> {
    let count = libc::c_uint::try_from(name.len()).map_err(|_| libc::EINVAL)?;
    let mut len_bytes = 0;
    let len = &raw mut len_bytes;
    // SAFETY: the kernel reads `count` numbers and writes the length.
    checked(unsafe { libc::sysctl(name.as_ptr(), count, std::ptr::null_mut(), len, std::ptr::null(), 0) })?;
    Ok(len_bytes)
}

/// `sysctlbyname(3)` into `buffer`: the bytes that were filled.
pub fn sysctl_by_name(name: &std::ffi::CStr, buffer: &mut [u8]) -> Result<usize, i32> {
    let mut len_bytes = buffer.len();
    let (place, len) = (buffer.as_mut_ptr().cast(), &raw mut len_bytes);
    // SAFETY: the kernel reads the text and writes at most `len_bytes` bytes and the length.
    checked(unsafe { libc::sysctlbyname(name.as_ptr(), place, len, std::ptr::null(), 0) })?;
    Ok(len_bytes.min(buffer.len()))
}

/// `socketpair(2)`, closed on execution.
pub fn socket_pair() -> Result<(OwnedFd, OwnedFd), i32> {
    let mut sockets = [-1; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two numbers.
    checked(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, sockets.as_mut_ptr()) })?;
    let [one, other] = sockets;
    // SAFETY: the descriptor was made by the call above and nothing else owns it.
    let one = unsafe { OwnedFd::from_raw_fd(one) };
    // SAFETY: the same.
    Ok((one, unsafe { OwnedFd::from_raw_fd(other) }))
}

/// `send(2)` of all bytes, without a signal where nobody listens.
pub fn send_all(socket: RawFd, mut bytes: &[u8]) -> Result<(), i32> {
    while !bytes.is_empty() {
        // SAFETY: the kernel reads at most as many bytes as there are.
        let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(_) if last_error() == libc::EINTR => {}
            Err(_) => return Err(last_error()),
        }
    }
    Ok(())
}

/// `recv(2)` until `bytes` is full; false where the other end was closed before.
pub fn receive_all(socket: RawFd, bytes: &mut [u8]) -> Result<bool, i32> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        // SAFETY: the kernel writes at most as many bytes as there is room for.
        let received = unsafe { libc::recv(socket, rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(received) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(_) if last_error() == libc::EINTR => {}
            Err(_) => return Err(last_error()),
        }
    }
    Ok(true)
}

/// `poll(2)` of one socket for at most so many milliseconds, or for good: whether there is something to read, the end included.
pub fn is_readable(socket: RawFd, timeout_ms: Option<i32>) -> bool {
    let mut entry = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry is passed with the count 1, borrowed exclusively until the call returns.
    let ready = unsafe { libc::poll(&raw mut entry, 1, timeout_ms.unwrap_or(-1)) };
    ready == 1
}

/// Nanoseconds of the monotonic clock, the same in all processes.
pub fn clock_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, borrowed exclusively.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// `nanosleep(2)`.
pub fn sleep_us(microseconds: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::from(microseconds) * 1000 };
    // SAFETY: the kernel reads one `timespec`.
    let _ = unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
}

/// `sysconf(_SC_PAGESIZE)`.
pub fn page_size_bytes() -> u64 {
    // SAFETY: the call takes and returns numbers.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// `geteuid(2)`.
pub fn effective_uid() -> u32 {
    // SAFETY: the call takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// `fork(2)` of a process whose child does nothing but `body` and then ends: the child's id.
///
/// Other threads are not copied, and locks that they held stay held. So `body` must take no lock, make no heap allocation and not
/// panic.
pub fn fork(body: impl FnOnce()) -> Result<i32, i32> {
    // SAFETY: the child goes on in `body` alone, which by its contract touches nothing that another thread may have left half done.
    let child = checked(unsafe { libc::fork() })?;
    if child == 0 {
        body();
        exit_at_once(1);
    }
    Ok(child)
}

/// Makes the calling process, just forked, one that nothing else reaches: its own session, no signals that can be blocked, no open
/// files but `socket`, which becomes number 0.
pub fn seclude(socket: RawFd) -> Result<(), i32> {
    // SAFETY: the call takes numbers.
    checked(unsafe { libc::dup2(socket, 0) })?;
    // SAFETY: the process was just forked; nothing in it uses the files that are closed.
    unsafe { libc::closefrom(1) };
    // SAFETY: the call takes nothing.
    let _ = unsafe { libc::setsid() };
    // SAFETY: all bytes zero is a valid set, and it is filled next.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is borrowed exclusively.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: the kernel reads the set.
    checked(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) }).map(drop)
}

/// `_exit(2)`.
pub fn exit_at_once(code: i32) -> ! {
    // SAFETY: nothing is to be cleaned up in a forked process.
    unsafe { libc::_exit(code) }
}

/// `mmap(2)` of memory that forked processes share.
pub fn map_shared(len_bytes: usize) -> Result<*mut u8, i32> {
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANON;
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let place = unsafe { libc::mmap(std::ptr::null_mut(), len_bytes, rights, flags, -1, 0) };
    if place == libc::MAP_FAILED { Err(last_error()) } else { Ok(place.cast()) }
}

/// `munmap(2)`.
///
/// # Safety
///
/// The range must be one that [`map_shared`] gave, and nothing may refer to it any more.
pub unsafe fn unmap(place: *mut u8, len_bytes: usize) {
    // SAFETY: vouched for by the caller.
    let _ = unsafe { libc::munmap(place.cast(), len_bytes) };
}

/// `getpriority(2)` of this process: its nice value.
pub fn nice_value() -> i32 {
    // SAFETY: the call takes and returns numbers.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// `setpriority(2)` of this process.
pub fn set_nice_value(nice: i32) -> Result<(), i32> {
    // SAFETY: the call takes and returns numbers.
    checked(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// The number of a file descriptor.
pub fn number(file: &OwnedFd) -> RawFd {
    file.as_raw_fd()
}
