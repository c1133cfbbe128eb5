//! A line on standard error while something takes longer than a second, and only on a terminal.

use indicatif::ProgressBar;
use std::io::IsTerminal;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);
const REDRAW: Duration = Duration::from_millis(120);

/// Says what is being waited for, as long as it lives.
#[derive(Debug)]
pub struct Progress {
    line: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins to wait for what the clause names.
    pub fn begin(clause: String) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { line: None };
        }
        let (done, wait) = mpsc::channel::<()>();
        let line = std::thread::Builder::new().name("progress".to_owned()).spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let bar = ProgressBar::new_spinner().with_message(clause);
                bar.enable_steady_tick(REDRAW);
                let _ = wait.recv();
                bar.finish_and_clear();
            }
        });
        Self { line: line.ok().map(|line| (done, line)) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((done, line)) = self.line.take() {
            drop(done);
            let _ = line.join();
        }
    }
}
