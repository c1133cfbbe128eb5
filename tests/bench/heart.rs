//! The heartbeat of a target: how long its own thread was kept from running.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Where the fields of `struct heartbeat` in `test-programs/ledger/heartbeat.h` are.
const BEATS_AT: u64 = 0;
const GAP_AT: u64 = 16;

/// The file that a heartbeat stamps into.
pub struct Heart {
    file: File,
}

impl Heart {
    /// Waits until it beats.
    pub fn of(path: &Path) -> Self {
        let file = loop {
            match OpenOptions::new().read(true).write(true).open(path) {
                Ok(file) if file.metadata().is_ok_and(|found| found.len() > GAP_AT) => break file,
                _ => std::thread::yield_now(),
            }
        };
        let heart = Self { file };
        heart.await_beats(1);
        heart
    }

    /// The longest time between two beats while `work` is done.
    pub fn gap_ms(&self, work: impl FnOnce()) -> f64 {
        self.await_beats(2);
        self.file.write_all_at(&0_u64.to_le_bytes(), GAP_AT).expect("the heartbeat's file");
        work();
        self.await_beats(2);
        self.word(GAP_AT) as f64 / 1e6
    }

    fn await_beats(&self, count: u64) {
        let until = self.word(BEATS_AT) + count;
        while self.word(BEATS_AT) < until {
            std::thread::yield_now();
        }
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).expect("the heartbeat's file");
        u64::from_le_bytes(bytes)
    }
}

/// Nothing, for longer than a pause lasts: what gaps there are then are the machine's.
pub fn idle() {
    std::thread::sleep(Duration::from_millis(50));
}
