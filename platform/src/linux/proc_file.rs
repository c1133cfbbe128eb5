//! Reading of small files under `/proc/PID`, with the system's error kept as it was.

use crate::ProcessError;
use nix::libc;
use procfs::process::{Stat, Status};
use procfs::{FromBufRead, FromRead};
use std::io::{self, Read};
use std::path::PathBuf;

/// `/proc/PID/NAME`.
pub fn path(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// All bytes of `/proc/PID/NAME`.
pub fn read(pid: i32, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    std::fs::File::open(path(pid, name))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether an error of `/proc` means that the process or thread is not there (any more).
pub fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Whether an error means that rights are missing.
pub fn is_denied(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// `/proc/PID/status`. Names that are not UTF-8 are made so.
pub fn status(pid: i32) -> io::Result<Status> {
    let bytes = read(pid, "status")?;
    let text = String::from_utf8_lossy(&bytes);
    Status::from_buf_read(text.as_bytes()).map_err(io::Error::other)
}

/// `/proc/PID/stat`.
pub fn stat(pid: i32) -> io::Result<Stat> {
    let bytes = read(pid, "stat")?;
    Stat::from_read(bytes.as_slice()).map_err(io::Error::other)
}

/// The state letter and the start time (clock ticks since boot) of one thread, or of a process's first thread.
pub fn state_and_start(pid: i32, tid: i32) -> io::Result<(char, u64)> {
    let bytes = read(pid, &format!("task/{tid}/stat"))?;
    let stat = Stat::from_read(bytes.as_slice()).map_err(io::Error::other)?;
    Ok((stat.state, stat.starttime))
}

/// The name of a process or thread, as far as it can be seen.
pub fn name_of(pid: i32) -> String {
    read(pid, "comm").map_or_else(|_| "unknown".to_owned(), |bytes| text_line(&bytes))
}

/// Text without its line end; bytes that are not UTF-8 are replaced.
pub fn text_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()
}

/// The general error for a file of a process that exists.
pub fn error(pid: i32, file: &'static str, source: io::Error) -> ProcessError {
    if is_gone(&source) {
        ProcessError::Gone { pid }
    } else if is_denied(&source) {
        ProcessError::PermissionDenied { pid, refusal: super::access::refusal(pid) }
    } else {
        ProcessError::Os { pid, file, source }
    }
}
