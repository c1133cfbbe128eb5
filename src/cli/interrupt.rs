//! Ctrl-C and its like: the first asks a command to come to its end, a second ends it at once.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::cell::Cell;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

/// Listens for signals as long as it lives.
#[derive(Debug)]
pub struct Interrupt {
    signals: Receiver<i32>,
    is_raised: Cell<bool>,
    handle: Handle,
}

impl Interrupt {
    /// Starts to listen.
    ///
    /// # Errors
    /// The system does not let a handler or its thread be set up.
    pub fn listen() -> io::Result<Self> {
        let signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let (sender, receiver) = mpsc::channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || forward(signals, &sender))?;
        Ok(Self { signals: receiver, is_raised: Cell::new(false), handle })
    }

    /// Waits; returns early and true if a signal came, now or before.
    pub fn wait(&self, span: Duration) -> bool {
        if !self.is_raised.get() {
            match self.signals.recv_timeout(span) {
                Ok(_) | Err(RecvTimeoutError::Disconnected) => self.is_raised.set(true),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.is_raised.get()
    }

    /// Whether a signal came.
    pub fn is_raised(&self) -> bool {
        self.wait(Duration::ZERO)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        self.handle.close();
    }
}

fn forward(mut signals: Signals, sender: &Sender<i32>) {
    let mut is_repeated = false;
    for signal in &mut signals {
        if is_repeated || sender.send(signal).is_err() {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
        }
        is_repeated = true;
    }
}
