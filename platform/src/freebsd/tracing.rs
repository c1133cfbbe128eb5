//! Holding a process still, for as long as is asked for or for as long as reading takes.
//!
//! Memory can be read only while the process stands still. So a read outside of a stop borrows one: a short one, that ends
//! after some milliseconds whatever is asked for next, with time to run before the next. Pages read in it are kept until it ends,
//! as nothing changes before. What was borrowed is told by [`Tracing::take_borrowed`].

use super::guardian::{Guardian, Silence};
use super::guardian_process::{
    FAILED_EXECUTED, FAILED_EXECUTING, FAILED_GONE, FAILED_RUNS, FAILED_TRACED, FAILED_WAITING,
    MAPPING_BYTES, MAPPINGS, READ, REFUSED, REGISTERS_BYTES, RELEASE, Reply, STOP, THREAD_BYTES,
    THREAD_POINTER, THREAD_REGISTERS, THREADS,
};
use super::{access, process_table, system_call, threads};
use crate::format::freebsd_core;
use crate::format::freebsd_layout::{KVME_PROT_READ, PL_LWPID};
use crate::{AddressRange, Architecture, ReadError, Registers, StopError};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a borrowed stop lasts at most: the guardian ends it then, whatever happens here.
const BORROWED_MAX: Duration = Duration::from_millis(10);
/// When reading begins no further request in a borrowed stop.
const BORROWED_USE: Duration = Duration::from_millis(8);
/// How long the process runs between two of them.
const REST: Duration = Duration::from_millis(10);
/// How long it may take to come to a borrowed stop.
const REACH_BORROWED: Duration = Duration::from_millis(250);
/// What the guardian may take beyond a limit.
const GRACE: Duration = Duration::from_secs(1);
/// For requests that wait for nobody.
const AT_ONCE: Duration = Duration::from_secs(10);
/// Most pages kept in one stop.
const PAGES_MAX: usize = 1 << 14;

/// One thread of a stopped process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoppedThread {
    /// Its id.
    pub tid: i32,
    /// Its registers.
    pub registers: Registers,
}

/// When a stop came to what, in nanoseconds of the monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    pub attached_ns: u64,
    pub stopped_ns: u64,
    pub detached_ns: u64,
}

impl Stamps {
    const fn of(reply: &Reply) -> Self {
        let Reply { attached_ns, stopped_ns, detached_ns, .. } = *reply;
        Self { attached_ns, stopped_ns, detached_ns }
    }
}

/// Who holds the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    Nobody,
    /// A stop that somebody asked for.
    Stop,
    /// One that reading borrowed.
    Borrowed {
        since: Instant,
    },
}

#[derive(Debug)]
struct State {
    guardian: Option<Guardian>,
    hold: Hold,
    /// Counts stops.
    number: u64,
    /// Pages read in this stop, by number; `None` where there is no such page.
    pages: HashMap<u64, Option<Box<[u8]>>>,
    borrowed: Vec<Stamps>,
    let_go: Option<Instant>,
}

/// The means to hold a process still and to read it meanwhile.
#[derive(Debug)]
pub struct Tracing {
    pid: i32,
    page_size_bytes: u64,
    state: Mutex<State>,
}

impl Tracing {
    pub fn new(pid: i32) -> Self {
        let state = State {
            guardian: None,
            hold: Hold::Nobody,
            number: 0,
            pages: HashMap::new(),
            borrowed: Vec::new(),
            let_go: None,
        };
        Self { pid, page_size_bytes: super::page_size_bytes(), state: Mutex::new(state) }
    }

    pub const fn pid(&self) -> i32 {
        self.pid
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the process still until [`Tracing::release`], or for so long.
    pub fn stop(&self, reach_max: Duration, hold_max: Duration) -> Result<Stamps, StopError> {
        let mut state = self.state();
        state.end_borrowed();
        let stamps = state.stop(self.pid, reach_max, hold_max)?;
        state.hold = Hold::Stop;
        Ok(stamps)
    }

    /// Lets it go: when that was, and whether the guardian had done so before because time was up.
    pub fn release(&self) -> Option<(Stamps, bool)> {
        let mut state = self.state();
        if state.hold != Hold::Stop {
            return None;
        }
        let asked_ns = system_call::clock_ns();
        let released = state.ask(RELEASE, 0, 0, AT_ONCE);
        state.forget_stop();
        let reply = released.ok()?;
        Some((Stamps::of(&reply), reply.detached_ns < asked_ns))
    }

    /// The threads of the process, which must be held.
    pub fn threads(&self) -> Result<Vec<StoppedThread>, StopError> {
        let mut state = self.state();
        let reply = state.ask(THREADS, 0, 0, AT_ONCE).map_err(|silence| silence_error(self.pid, silence))?;
        if reply.failure != 0 {
            return Err(stop_error(self.pid, &reply, Duration::ZERO, "ptrace(PT_GETLWPLIST)"));
        }
        let count = usize::try_from(reply.count).unwrap_or(0);
        let Some(guardian) = &state.guardian else { return Err(StopError::Gone { pid: self.pid }) };
        let records = guardian.shared(count.saturating_mul(THREAD_BYTES)).chunks_exact(THREAD_BYTES);
        let threads: Option<Vec<StoppedThread>> = records.take(count).map(thread).collect();
        threads.filter(|threads| !threads.is_empty()).ok_or(StopError::Gone { pid: self.pid })
    }

    /// Which stop is the last, and whether it lasts.
    pub fn stop_number(&self) -> (u64, bool) {
        let state = self.state();
        (state.number, state.hold != Hold::Nobody)
    }

    /// The readable mappings of the process, which must be held, without asking what is in memory.
    pub fn readable_mappings(&self) -> Option<Vec<AddressRange>> {
        let mut state = self.state();
        let reply = state.ask(MAPPINGS, 0, 0, AT_ONCE).ok().filter(|reply| reply.failure == 0)?;
        let count = usize::try_from(reply.count).unwrap_or(0);
        let records = state.guardian.as_ref()?.shared(count.saturating_mul(MAPPING_BYTES));
        let mut ranges = Vec::with_capacity(count);
        for record in records.chunks_exact(MAPPING_BYTES).take(count) {
            if word(record, 16)? & u64::from(KVME_PROT_READ.cast_unsigned()) != 0 {
                ranges.extend(AddressRange::new(word(record, 0)?, word(record, 8)?));
            }
        }
        Some(ranges)
    }

    /// Stops that reading has borrowed since the last call. Ends the present one.
    pub fn take_borrowed(&self) -> Vec<Stamps> {
        let mut state = self.state();
        state.end_borrowed();
        std::mem::take(&mut state.borrowed)
    }

    /// Copies from `address` on: the number of bytes copied, 0 where there is no memory. Small reads go by whole pages.
    pub fn read(&self, address: u64, destination: &mut [u8]) -> Result<usize, ReadError> {
        let page_size = self.page_size_bytes;
        let into_page = address % page_size;
        let left_bytes = usize::try_from(page_size - into_page).unwrap_or(0);
        let mut state = self.state();
        if destination.len() > left_bytes.max(1024) {
            return self.read_piece(&mut state, address, destination);
        }
        let number = address / page_size;
        state.ensure_held(self.pid)?;
        if !state.pages.contains_key(&number) {
            let mut page = vec![0; usize::try_from(page_size).unwrap_or(4096)].into_boxed_slice();
            let count = self.read_piece(&mut state, address - into_page, &mut page)?;
            let page = (count == page.len()).then_some(page);
            if state.pages.len() >= PAGES_MAX {
                state.pages.clear();
            }
            state.pages.insert(number, page);
        }
        let Some(Some(page)) = state.pages.get(&number) else { return Ok(0) };
        let into_page = usize::try_from(into_page).unwrap_or(0);
        let count = destination.len().min(left_bytes);
        let (Some(source), Some(place)) =
            (page.get(into_page..into_page.saturating_add(count)), destination.get_mut(..count))
        else {
            return Ok(0);
        };
        place.copy_from_slice(source);
        Ok(count)
    }

    /// One request, for what is not kept.
    fn read_piece(
        &self,
        state: &mut State,
        address: u64,
        destination: &mut [u8],
    ) -> Result<usize, ReadError> {
        const TRIES: usize = 3;
        let len_bytes = destination.len().min(Guardian::len_bytes_max());
        for _ in 0..TRIES {
            state.ensure_held(self.pid)?;
            let reply = match state.ask(READ, address, len_bytes as u64, AT_ONCE) {
                Ok(reply) => reply,
                Err(_) => return Err(ReadError::Gone { pid: self.pid }),
            };
            match (reply.failure, i32::try_from(reply.detail).unwrap_or(0)) {
                (0, _) => {
                    let count = usize::try_from(reply.count).unwrap_or(0).min(len_bytes);
                    let Some(guardian) = &state.guardian else { return Ok(0) };
                    let (place, source) = (destination.get_mut(..count), guardian.shared(count));
                    place.unwrap_or_default().copy_from_slice(source);
                    return Ok(count);
                }
                // Its time was up between the look at the clock and the request.
                (FAILED_RUNS, _) if state.is_borrowed() => state.note_expired(&reply),
                // A stop that lasted too long was ended: nothing more is to be had of it.
                (FAILED_RUNS, _) => {
                    let (pid, os_error) = (self.pid, libc::EBUSY);
                    return Err(ReadError::Os { pid, address, call: "ptrace(PT_IO)", os_error });
                }
                (REFUSED, libc::ESRCH | libc::EPERM) => return Err(ReadError::Gone { pid: self.pid }),
                // Killed while it stood still.
                (REFUSED, libc::EBUSY) => return Err(ReadError::Gone { pid: self.pid }),
                (REFUSED, libc::EFAULT | libc::EINVAL | libc::ENOMEM | libc::EIO) => return Ok(0),
                (_, os_error) => {
                    return Err(ReadError::Os { pid: self.pid, address, call: "ptrace(PT_IO)", os_error });
                }
            }
        }
        Ok(0)
    }
}

impl State {
    fn ask(&mut self, what: u64, first: u64, second: u64, at_most: Duration) -> Result<Reply, Silence> {
        let Some(guardian) = &self.guardian else { return Err(Silence::Dead) };
        let answer = guardian.ask(what, first, second, at_most);
        if answer.is_err() {
            // It lets go when it can.
            self.guardian = None;
            self.forget_stop();
        }
        answer
    }

    fn stop(&mut self, pid: i32, reach_max: Duration, hold_max: Duration) -> Result<Stamps, StopError> {
        if self.guardian.is_none() {
            let started =
                Guardian::start(pid).map_err(|(call, os_error)| StopError::Os { pid, call, os_error });
            self.guardian = Some(started?);
        }
        self.forget_stop();
        self.number += 1;
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let reply = match self.ask(STOP, ms(reach_max), ms(hold_max), reach_max + GRACE) {
            Ok(reply) => reply,
            Err(Silence::Busy) => return Err(unstoppable(pid, 0, reach_max)),
            Err(Silence::Dead) => return Err(silence_error(pid, Silence::Dead)),
        };
        if reply.failure == 0 {
            Ok(Stamps::of(&reply))
        } else {
            Err(stop_error(pid, &reply, reach_max, "ptrace(PT_ATTACH)"))
        }
    }

    fn forget_stop(&mut self) {
        if self.hold != Hold::Nobody {
            self.let_go = Some(Instant::now());
        }
        self.hold = Hold::Nobody;
        self.pages.clear();
    }

    const fn is_borrowed(&self) -> bool {
        matches!(self.hold, Hold::Borrowed { .. })
    }

    /// Sees to it that the process stands still, by a borrowed stop where nobody has asked for one.
    fn ensure_held(&mut self, pid: i32) -> Result<(), ReadError> {
        match self.hold {
            Hold::Stop => return Ok(()),
            Hold::Borrowed { since } if since.elapsed() < BORROWED_USE => return Ok(()),
            Hold::Borrowed { .. } => self.end_borrowed(),
            Hold::Nobody => {}
        }
        if let Some(let_go) = self.let_go {
            std::thread::sleep(REST.saturating_sub(let_go.elapsed()));
        }
        let since = Instant::now();
        self.stop(pid, REACH_BORROWED, BORROWED_MAX).map_err(|reason| match reason {
            StopError::Gone { pid } => ReadError::Gone { pid },
            StopError::NotPermitted { pid, .. } => ReadError::NotPermitted { pid },
            reason => ReadError::NotStopped { pid, reason: Box::new(reason) },
        })?;
        self.hold = Hold::Borrowed { since };
        Ok(())
    }

    fn end_borrowed(&mut self) {
        if !self.is_borrowed() {
            return;
        }
        if let Ok(reply) = self.ask(RELEASE, 0, 0, AT_ONCE) {
            self.borrowed.push(Stamps::of(&reply));
        }
        self.forget_stop();
    }

    fn note_expired(&mut self, reply: &Reply) {
        self.borrowed.push(Stamps::of(reply));
        self.forget_stop();
    }
}

fn silence_error(pid: i32, silence: Silence) -> StopError {
    match silence {
        Silence::Busy => unstoppable(pid, 0, AT_ONCE),
        Silence::Dead => StopError::Os { pid, call: "guardian process", os_error: libc::EPIPE },
    }
}

fn unstoppable(pid: i32, tid: i32, waited: Duration) -> StopError {
    let name = threads::name(pid, tid).unwrap_or_else(|| "unknown".to_owned());
    StopError::Unstoppable { pid, tid: if tid == 0 { pid } else { tid }, name, state: 'D', waited }
}

fn stop_error(pid: i32, reply: &Reply, waited: Duration, call: &'static str) -> StopError {
    let detail = u32::try_from(reply.detail).unwrap_or(0).cast_signed();
    match (reply.failure, detail) {
        (FAILED_GONE, _) | (REFUSED, libc::ESRCH) => StopError::Gone { pid },
        (FAILED_EXECUTED, _) => StopError::Executed { pid },
        (FAILED_EXECUTING, _) => StopError::Executing { pid, waited },
        (FAILED_TRACED, _) => {
            let tracer_pid = process_table::process(pid).map_or(0, |found| found.tracer_pid);
            StopError::AlreadyTraced { pid, tid: pid, tracer_pid, tracer_name: access::name_of(tracer_pid) }
        }
        (REFUSED, libc::EPERM | libc::EACCES) => StopError::NotPermitted { pid, tid: pid },
        (REFUSED, os_error) => StopError::Os { pid, call, os_error },
        (FAILED_WAITING, tid) => unstoppable(pid, tid, waited),
        _ => unstoppable(pid, 0, waited),
    }
}

fn thread(record: &[u8]) -> Option<StoppedThread> {
    let tid = i32::from_ne_bytes(record.get(PL_LWPID..PL_LWPID + 4)?.try_into().ok()?);
    let bytes = record.get(THREAD_REGISTERS..THREAD_REGISTERS + REGISTERS_BYTES)?;
    let architecture =
        if cfg!(target_arch = "x86_64") { Architecture::X86_64 } else { Architecture::Aarch64 };
    let registers = freebsd_core::registers(architecture, bytes, word(record, THREAD_POINTER)?)?;
    Some(StoppedThread { tid, registers })
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}
