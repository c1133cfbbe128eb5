//! Keeping signals for this tool out of the moments in which another process waits for it.

use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};
use std::marker::PhantomData;
use std::sync::{Mutex, Once};

/// The signal that wakes a waiting thread up. Nobody else uses it, and by default it does nothing.
pub const WAKE_UP: Signal = Signal::SIGURG;

/// Signals that stop a process when a terminal asks for it.
const JOB_CONTROL: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// While this lives, signals to the calling thread wait, and the terminal cannot stop this tool: stopped itself, it could not
/// let the others go. Signals that waited are delivered afterwards; a request of the terminal to stop is lost.
#[derive(Debug)]
pub struct Undisturbed {
    mask_before: SigSet,
    /// A signal mask belongs to a thread, so the guard must stay with it.
    _of_this_thread: PhantomData<*mut ()>,
}

impl Undisturbed {
    pub fn begin() -> Self {
        install_wake_up();
        job_control::ignore();
        let mut blocked = SigSet::all();
        // The last four report faults of this thread itself; blocking them would only hide those.
        for signal in [WAKE_UP, Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL] {
            blocked.remove(signal);
        }
        let mut mask_before = SigSet::empty();
        // The call fails only for arguments that are not valid, and these are.
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&blocked), Some(&mut mask_before));
        Self { mask_before, _of_this_thread: PhantomData }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        job_control::restore();
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.mask_before), None);
    }
}

/// Gives the wake-up signal a handler that does nothing, so that it interrupts system calls. Stays for good.
fn install_wake_up() {
    extern "C" fn wake_up(_: i32) {}
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let action = SigAction::new(SigHandler::Handler(wake_up), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, so it is safe to run at any moment.
        let _ = unsafe { sigaction(WAKE_UP, &action) };
    });
}

/// Ignoring belongs to the whole process, so several stops at once count their users.
mod job_control {
    use super::{JOB_CONTROL, Mutex, SaFlags, SigAction, SigHandler, SigSet, sigaction};
    use std::sync::{MutexGuard, PoisonError};

    struct Ignored {
        user_count: usize,
        before: [Option<SigAction>; JOB_CONTROL.len()],
    }

    static IGNORED: Mutex<Ignored> = Mutex::new(Ignored { user_count: 0, before: [None; JOB_CONTROL.len()] });

    fn ignored() -> MutexGuard<'static, Ignored> {
        IGNORED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn ignore() {
        let mut ignored = ignored();
        ignored.user_count += 1;
        if ignored.user_count == 1 {
            let action = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
            for (before, signal) in ignored.before.iter_mut().zip(JOB_CONTROL) {
                // SAFETY: ignoring a signal runs no code.
                *before = unsafe { sigaction(signal, &action) }.ok();
            }
        }
    }

    pub fn restore() {
        let mut ignored = ignored();
        ignored.user_count = ignored.user_count.saturating_sub(1);
        if ignored.user_count == 0 {
            for (before, signal) in ignored.before.iter_mut().zip(JOB_CONTROL) {
                if let Some(action) = before.take() {
                    // SAFETY: this is the action that the process had, so whoever set it has vouched for it.
                    let _ = unsafe { sigaction(signal, &action) };
                }
            }
        }
    }
}
