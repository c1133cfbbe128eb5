//! The guardian: the process that traces. It lets the target go when its time is up and when the tool that asked for the stop is no
//! more.
//!
//! It was forked from a process with other threads, so nothing here makes a heap allocation, takes a lock or panics. What it
//! reads goes through memory that it shares with the tool.

use super::shared_memory::SharedMemory;
use super::system_call::{self, Waited};
use crate::attach_protocol::{Answer, AttachProtocol, Cause, Failure, Request, Seen};
use crate::format::freebsd_kinfo::ProcessRecord;
use crate::format::freebsd_layout::{
    CTL_KERN, KERN_PROC, KERN_PROC_INC_THREAD, KERN_PROC_PID, KINFO_PROC_BYTES, PL_EVENT, PL_FLAG_BORN,
    PL_FLAG_CHILD, PL_FLAG_EXEC, PL_FLAG_EXITED, PL_FLAG_FORKED, PL_FLAG_SCE, PL_FLAG_SCX,
    PL_FLAG_VFORK_DONE, PL_FLAG_VFORKED, PL_FLAGS, PL_LWPID, PT_ATTACH, PT_DETACH, PT_GETLWPLIST,
    PT_GETNUMLWPS, PT_GETREGS, PT_LWPINFO, PT_VM_ENTRY, PTRACE_LWPINFO_BYTES, PTRACE_VM_ENTRY_BYTES, PVE_END,
    PVE_ENTRY, PVE_PROT, PVE_START,
};

/// The socket to the tool.
const SOCKET: i32 = 0;
/// Between two looks at a process that cannot be attached to yet.
const NAP_US: u32 = 500;

/// Words of a request: what to do, and three numbers.
pub const REQUEST_WORDS: usize = 4;
/// Words of a reply: see [`Reply`].
pub const REPLY_WORDS: usize = 6;
const WORD_BYTES: usize = 8;

/// Stop it. Numbers: milliseconds to try, milliseconds to hold it.
pub const STOP: u64 = 1;
/// Copy memory. Numbers: address, length.
pub const READ: u64 = 2;
/// List threads: records of [`THREAD_BYTES`] in the shared memory.
pub const THREADS: u64 = 3;
/// List mappings: records of three words, start, end and rights, in the shared memory.
pub const MAPPINGS: u64 = 4;
/// Let it go.
pub const RELEASE: u64 = 5;

/// A thread in the shared memory: `struct ptrace_lwpinfo`, then the thread pointer, then `struct reg`.
pub const THREAD_BYTES: usize = THREAD_REGISTERS + REGISTERS_BYTES;
/// Where the thread pointer stands in it.
pub const THREAD_POINTER: usize = PTRACE_LWPINFO_BYTES;
/// Where the registers stand in it.
pub const THREAD_REGISTERS: usize = THREAD_POINTER + 8;

#[cfg(target_arch = "x86_64")]
pub const REGISTERS_BYTES: usize = crate::format::freebsd_layout::REG_BYTES_AMD64;
#[cfg(target_arch = "aarch64")]
pub const REGISTERS_BYTES: usize = crate::format::freebsd_layout::REG_BYTES_ARM64;
#[cfg(target_arch = "x86_64")]
const _: () = assert!(size_of::<libc::reg>() == REGISTERS_BYTES);
const _: () = assert!(size_of::<libc::ptrace_lwpinfo>() == PTRACE_LWPINFO_BYTES);
const _: () = assert!(size_of::<libc::ptrace_vm_entry>() == PTRACE_VM_ENTRY_BYTES);

/// A record of a mapping in the shared memory.
pub const MAPPING_BYTES: usize = 24;

/// What the guardian answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// 0, or why not: one of `FAILED_` or [`REFUSED`].
    pub failure: u64,
    /// What belongs to it: an error number, a thread, a tracer.
    pub detail: u64,
    /// Bytes read, or records listed.
    pub count: u64,
    /// When the process was last attached to, in nanoseconds.
    pub attached_ns: u64,
    /// When it stood still.
    pub stopped_ns: u64,
    /// When it was let go; 0 where it still stands still.
    pub detached_ns: u64,
}

/// It does not stand still: never did, or its time was up.
pub const FAILED_RUNS: u64 = 1;
/// It has ended.
pub const FAILED_GONE: u64 = 2;
/// Somebody else traces it.
pub const FAILED_TRACED: u64 = 3;
/// It has executed another program.
pub const FAILED_EXECUTED: u64 = 4;
/// It was about to for too long.
pub const FAILED_EXECUTING: u64 = 5;
/// This thread waits in the kernel.
pub const FAILED_WAITING: u64 = 6;
/// It did not stop in time.
pub const FAILED_NOT_STOPPED: u64 = 7;
/// The kernel refused, with this error number.
pub const REFUSED: u64 = 8;

impl Reply {
    fn of_failure(failure: Failure) -> Self {
        let (failure, detail) = match failure {
            Failure::Gone => (FAILED_GONE, 0),
            Failure::Traced => (FAILED_TRACED, 0),
            Failure::Executed => (FAILED_EXECUTED, 0),
            Failure::Executing => (FAILED_EXECUTING, 0),
            Failure::Waiting(tid) => (FAILED_WAITING, tid),
            Failure::NotStopped => (FAILED_NOT_STOPPED, 0),
            Failure::Refused(error) => (REFUSED, error),
        };
        Self { failure, detail: u64::from(detail.cast_unsigned()), ..Self::default() }
    }

    fn refused(error: i32) -> Self {
        Self::of_failure(Failure::Refused(error))
    }

    /// From the words of a message.
    pub const fn from_words(words: [u64; REPLY_WORDS]) -> Self {
        let [failure, detail, count, attached_ns, stopped_ns, detached_ns] = words;
        Self { failure, detail, count, attached_ns, stopped_ns, detached_ns }
    }

    const fn words(self) -> [u64; REPLY_WORDS] {
        [self.failure, self.detail, self.count, self.attached_ns, self.stopped_ns, self.detached_ns]
    }
}

/// Sends words.
pub fn send<const WORDS: usize>(socket: i32, words: [u64; WORDS]) -> Result<(), i32> {
    words.iter().try_for_each(|word| system_call::send_all(socket, &word.to_ne_bytes()))
}

/// Receives words; `None` where the other end is no more.
pub fn receive<const WORDS: usize>(socket: i32) -> Option<[u64; WORDS]> {
    let mut words = [0; WORDS];
    for word in &mut words {
        let mut bytes = [0; WORD_BYTES];
        if !system_call::receive_all(socket, &mut bytes).unwrap_or(false) {
            return None;
        }
        *word = u64::from_ne_bytes(bytes);
    }
    Some(words)
}

/// What the guardian does until the tool is no more. `socket` is its end of the pair.
pub fn guard(pid: i32, socket: i32, shared: &mut SharedMemory) {
    if system_call::seclude(socket).is_err() {
        return;
    }
    let mut guardian =
        GuardianProcess { pid, shared, protocol: None, stamps: Reply::default(), hold_until_ns: 0 };
    while guardian.serve() {}
    guardian.let_go();
    system_call::exit_at_once(0)
}

struct GuardianProcess<'a> {
    pid: i32,
    shared: &'a mut SharedMemory,
    /// The stop in progress.
    protocol: Option<AttachProtocol>,
    /// When it came to what.
    stamps: Reply,
    hold_until_ns: u64,
}

impl GuardianProcess<'_> {
    /// One request; false at the end.
    fn serve(&mut self) -> bool {
        if self.protocol.is_some() {
            let left_ns = self.hold_until_ns.saturating_sub(system_call::clock_ns());
            let left_ms = i32::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(i32::MAX);
            if left_ns == 0 {
                self.let_go();
            } else if !system_call::is_readable(SOCKET, Some(left_ms)) {
                return true;
            }
        }
        let Some([what, first, second, _]) = receive::<REQUEST_WORDS>(SOCKET) else { return false };
        let reply = match what {
            STOP => self.stop(first, second),
            RELEASE => {
                self.let_go();
                Reply::default()
            }
            _ if self.protocol.is_none() => Reply { failure: FAILED_RUNS, ..Reply::default() },
            READ => self.read(first, second),
            THREADS => self.threads(),
            MAPPINGS => self.mappings(),
            _ => Reply::refused(libc::EINVAL),
        };
        let Reply { attached_ns, stopped_ns, detached_ns, .. } = self.stamps;
        let reply = Reply { attached_ns, stopped_ns, detached_ns, ..reply };
        send(SOCKET, reply.words()).is_ok()
    }

    fn stop(&mut self, reach_ms: u64, hold_ms: u64) -> Reply {
        self.let_go();
        self.stamps = Reply::default();
        let begun_ns = system_call::clock_ns();
        let reach_until_ns = begun_ns.saturating_add(reach_ms.saturating_mul(1_000_000));
        let mut protocol = AttachProtocol::new();
        loop {
            match protocol.next_request() {
                Request::AllStopped => break,
                Request::Finished => {
                    return Reply::of_failure(protocol.failure().unwrap_or(Failure::NotStopped));
                }
                request => self.take_step(&mut protocol, request),
            }
            if system_call::clock_ns() >= reach_until_ns {
                protocol.give_up();
            }
        }
        self.stamps.stopped_ns = system_call::clock_ns();
        self.hold_until_ns = self.stamps.attached_ns.saturating_add(hold_ms.saturating_mul(1_000_000));
        self.protocol = Some(protocol);
        Reply::default()
    }

    /// Lets the process go, if it is held.
    fn let_go(&mut self) {
        let Some(mut protocol) = self.protocol.take() else { return };
        protocol.release();
        loop {
            match protocol.next_request() {
                Request::Finished | Request::AllStopped => return,
                request => self.take_step(&mut protocol, request),
            }
        }
    }

    fn take_step(&mut self, protocol: &mut AttachProtocol, request: Request) {
        let answer = match request {
            Request::Look => self.look(),
            Request::Nap => {
                system_call::sleep_us(NAP_US);
                Answer::Done
            }
            Request::Attach => {
                self.stamps.attached_ns = system_call::clock_ns();
                answer_of(system_call::ptrace(PT_ATTACH, self.pid, 0, 0))
            }
            Request::Wait => match system_call::wait_for(self.pid, 0) {
                Ok(Waited::Stopped(signal)) => Answer::Stopped { signal },
                Ok(Waited::Ended) => Answer::Ended,
                Ok(Waited::Other) | Err(libc::EINTR) => Answer::Done,
                Err(libc::ECHILD) => Answer::NoSuchProcess,
                Err(error) => Answer::Refused(error),
            },
            Request::Inspect => Answer::Cause(self.cause()),
            Request::Detach { signal } => {
                // The address 1 stands for going on where it stopped.
                let answer = answer_of(system_call::ptrace(PT_DETACH, self.pid, 1, signal));
                self.stamps.detached_ns = system_call::clock_ns();
                answer
            }
            Request::StopAgain => {
                let _ = system_call::kill(self.pid, crate::attach_protocol::SIGSTOP);
                Answer::Done
            }
            Request::AllStopped | Request::Finished => Answer::Done,
        };
        protocol.answer(answer);
    }

    fn look(&mut self) -> Answer {
        let buffer = self.shared.bytes_mut();
        let len_bytes = match list_threads(self.pid, buffer) {
            Ok(len_bytes) => len_bytes,
            Err(libc::ESRCH) => return Answer::NoSuchProcess,
            Err(error) => return Answer::Refused(error),
        };
        let mut seen = Seen::default();
        let mut count = 0;
        for thread in ProcessRecord::all(buffer.get(..len_bytes).unwrap_or_default()) {
            count += 1;
            if thread.is_zombie() || thread.is_ending() {
                return Answer::Ended;
            }
            seen.is_traced |= thread.is_traced();
            seen.is_stopped |= thread.is_stopped_by_signal();
            seen.is_executing |= thread.is_executing();
            if thread.sleeps_uninterruptibly() {
                seen.waiting_tid = Some(thread.tid());
            }
        }
        if count == 0 { Answer::NoSuchProcess } else { Answer::Seen(seen) }
    }

    fn cause(&self) -> Cause {
        const EVENTS: i32 = PL_FLAG_SCE
            | PL_FLAG_SCX
            | PL_FLAG_FORKED
            | PL_FLAG_CHILD
            | PL_FLAG_BORN
            | PL_FLAG_EXITED
            | PL_FLAG_VFORKED
            | PL_FLAG_VFORK_DONE;
        let mut thread = [0; PTRACE_LWPINFO_BYTES];
        let asked = system_call::ptrace_fill(PT_LWPINFO, self.pid, &mut thread, PTRACE_LWPINFO_BYTES as i32);
        match (asked, i32_at(&thread, PL_FLAGS)) {
            (Ok(_), flags) if flags & PL_FLAG_EXEC != 0 => Cause::Executed,
            (Ok(_), flags) if flags & EVENTS != 0 => Cause::Event,
            // No event of a signal: a stop that nobody is to be handed anything for.
            (Ok(_), _) if i32_at(&thread, PL_EVENT) == 0 => Cause::Event,
            _ => Cause::Signal,
        }
    }

    fn read(&mut self, address: u64, len_bytes: u64) -> Reply {
        let len_bytes = usize::try_from(len_bytes).unwrap_or(usize::MAX);
        let Some(destination) = self.shared.bytes_mut().get_mut(..len_bytes) else {
            return Reply::refused(libc::EINVAL);
        };
        match system_call::ptrace_read(self.pid, address, destination) {
            Ok(count) => Reply { count: count as u64, ..Reply::default() },
            Err(error) => Reply::refused(error),
        }
    }

    fn threads(&mut self) -> Reply {
        // The ids stand at the end of the memory; records from its start on never reach them.
        let bytes = self.shared.bytes_mut();
        let count = match system_call::ptrace(PT_GETNUMLWPS, self.pid, 0, 0) {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => return Reply::refused(error),
        };
        let Some(ids_at) = bytes.len().checked_sub(count.saturating_mul(4)) else {
            return Reply::refused(libc::ENOMEM);
        };
        if count.saturating_mul(THREAD_BYTES) > ids_at {
            return Reply::refused(libc::ENOMEM);
        }
        let (records, ids) = bytes.split_at_mut(ids_at);
        let listed =
            system_call::ptrace_fill(PT_GETLWPLIST, self.pid, ids, i32::try_from(count).unwrap_or(0));
        let count = match listed {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) => return Reply::refused(error),
        };
        for (id, record) in ids.chunks_exact(4).zip(records.chunks_exact_mut(THREAD_BYTES)).take(count) {
            if let Err(error) = thread(i32_at(id, 0), record) {
                return Reply::refused(error);
            }
        }
        Reply { count: count as u64, ..Reply::default() }
    }

    fn mappings(&mut self) -> Reply {
        let mut entry = [0; PTRACE_VM_ENTRY_BYTES];
        for (count, record) in (0..).zip(self.shared.bytes_mut().chunks_exact_mut(MAPPING_BYTES)) {
            // Without room for a path none is looked for.
            let number = i32_at(&entry, PVE_ENTRY);
            entry.fill(0);
            put(&mut entry, PVE_ENTRY, &number.to_ne_bytes());
            match system_call::ptrace_fill(PT_VM_ENTRY, self.pid, &mut entry, 0) {
                Ok(_) => {}
                Err(libc::ENOENT) => return Reply { count, ..Reply::default() },
                Err(error) => return Reply::refused(error),
            }
            // The end is that of the last byte; the rights that it could have stand above those that it has.
            let end = word_at(&entry, PVE_END).wrapping_add(1);
            put(record, 0, &word_at(&entry, PVE_START).to_ne_bytes());
            put(record, 8, &end.to_ne_bytes());
            put(record, 16, &u64::from(i32_at(&entry, PVE_PROT).cast_unsigned()).to_ne_bytes());
        }
        Reply::refused(libc::ENOMEM)
    }
}

/// Fills `buffer` with the records of all threads, or of the first where the kernel cannot give all: the bytes filled. The kernel
/// holds the whole buffer in memory meanwhile, of which a user may have little, so no more of it is offered than is needed.
fn list_threads(pid: i32, buffer: &mut [u8]) -> Result<usize, i32> {
    const THREADS_MORE: usize = 8;
    let name = [CTL_KERN, KERN_PROC, KERN_PROC_PID | KERN_PROC_INC_THREAD, pid];
    let wanted_bytes = system_call::sysctl_len_bytes(&name)?.saturating_add(THREADS_MORE * KINFO_PROC_BYTES);
    let wanted_bytes = wanted_bytes.min(buffer.len());
    match system_call::sysctl(&name, buffer.get_mut(..wanted_bytes).unwrap_or_default()) {
        Err(libc::ENOMEM) => {
            let first = buffer.get_mut(..KINFO_PROC_BYTES).unwrap_or_default();
            system_call::sysctl(&[CTL_KERN, KERN_PROC, KERN_PROC_PID, pid], first)
        }
        other => other,
    }
}

fn answer_of(done: Result<i32, i32>) -> Answer {
    match done {
        Ok(_) => Answer::Done,
        Err(libc::ESRCH) => Answer::NoSuchProcess,
        Err(libc::EBUSY) => Answer::Busy,
        Err(error) => Answer::Refused(error),
    }
}

fn thread(tid: i32, record: &mut [u8]) -> Result<(), i32> {
    let Some((information, rest)) = record.split_at_mut_checked(THREAD_POINTER) else {
        return Err(libc::EINVAL);
    };
    let Some((pointer, registers)) = rest.split_at_mut_checked(8) else { return Err(libc::EINVAL) };
    information.fill(0);
    system_call::ptrace_fill(PT_LWPINFO, tid, information, PTRACE_LWPINFO_BYTES as i32)?;
    put(information, PL_LWPID, &tid.to_ne_bytes());
    system_call::ptrace_fill(PT_GETREGS, tid, registers, 0)?;
    pointer.fill(0);
    // A thread without one is as good as a thread whose pointer is not known.
    let _ = thread_pointer(tid, pointer);
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn thread_pointer(tid: i32, pointer: &mut [u8]) -> Result<(), i32> {
    use crate::format::freebsd_layout::PT_GETFSBASE;
    system_call::ptrace_fill(PT_GETFSBASE, tid, pointer, 0).map(drop)
}

#[cfg(target_arch = "aarch64")]
fn thread_pointer(tid: i32, pointer: &mut [u8]) -> Result<(), i32> {
    system_call::ptrace_register_set(tid, crate::format::freebsd_core::NT_ARM_TLS as i32, pointer)
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes)
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + what.len()) {
        place.copy_from_slice(what);
    }
}
