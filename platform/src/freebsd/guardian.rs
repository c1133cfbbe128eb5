//! The tool's side of the guardian: starting it, asking it.

use super::guardian_process::{self, REPLY_WORDS, Reply};
use super::shared_memory::SharedMemory;
use super::system_call::{self, Waited};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Room for what one request reads.
const SHARED_BYTES: usize = 4 << 20;

/// A process that traces another one for this tool. Dropping it ends it; before that it lets go.
#[derive(Debug)]
pub struct Guardian {
    socket: OwnedFd,
    child: i32,
    shared: SharedMemory,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The guardian is no more.
    Dead,
    /// It did not answer in time: it waits for the process.
    Busy,
}

impl Guardian {
    /// Starts one for process `pid`; the system's call and error number where that cannot be done.
    pub fn start(pid: i32) -> Result<Self, (&'static str, i32)> {
        let (socket, other) = system_call::socket_pair().map_err(|error| ("socketpair", error))?;
        let mut shared = SharedMemory::new(SHARED_BYTES).map_err(|error| ("mmap", error))?;
        let number = system_call::number(&other);
        let child = system_call::fork(|| guardian_process::guard(pid, number, &mut shared))
            .map_err(|error| ("fork", error))?;
        Ok(Self { socket, child, shared })
    }

    /// Asks for something and waits for the answer, for at most so long.
    pub fn ask(&self, what: u64, first: u64, second: u64, at_most: Duration) -> Result<Reply, Silence> {
        let socket = system_call::number(&self.socket);
        guardian_process::send(socket, [what, first, second, 0]).map_err(|_| Silence::Dead)?;
        let until = Instant::now() + at_most;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left_ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX).max(1);
            if system_call::is_readable(socket, Some(left_ms)) {
                break;
            }
            if left.is_zero() {
                return Err(Silence::Busy);
            }
        }
        guardian_process::receive::<REPLY_WORDS>(socket).map(Reply::from_words).ok_or(Silence::Dead)
    }

    /// What the last answer left there.
    pub fn shared(&self, len_bytes: usize) -> &[u8] {
        let bytes = self.shared.bytes();
        bytes.get(..len_bytes).unwrap_or(bytes)
    }

    /// Most bytes that one request may read.
    pub const fn len_bytes_max() -> usize {
        SHARED_BYTES
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // A guardian that still waits for its process ends later, by itself; then the system takes note of it.
        const PATIENCE: Duration = Duration::from_millis(200);
        if let Ok((ours, _)) = system_call::socket_pair() {
            // Closes the socket: the guardian sees its end.
            self.socket = ours;
        }
        let began = Instant::now();
        while matches!(system_call::wait_for(self.child, libc::WNOHANG), Ok(Waited::Other) | Err(libc::EINTR))
            && began.elapsed() < PATIENCE
        {
            system_call::sleep_us(100);
        }
    }
}
