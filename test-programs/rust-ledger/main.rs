//! A Rust program that knows the truth about its own heap.
//!
//! ```text
//! rust-ledger [--threads N] [--seed N]
//! ```
//!
//! It speaks a part of the protocol of the C ledger (`ledger/README.md`): `ready`, `table FILE`, `stats FILE`,
//! `grow N SIZE [THREAD]`, `shrink N SIZE [THREAD]`, `start`, `stop`, `churn MS`, `threads N`, `flush`, `exit`. Thread 0 has no shelf,
//! so `grow` and `shrink` speak of thread 1 unless another is named. In the table every block is in the record of
//! thread 0: a Rust block has no owner that the allocator could know.

mod control;
mod crew;
mod record;
mod shelf;

use crew::{Crew, Order};
use std::ffi::CString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: record::Recorded<allocator::Jemalloc> = record::Recorded(allocator::Jemalloc);

/// What the answers are made with, allocated once: an answer must not change the heap that it speaks of.
struct Desk {
    crew: Crew,
    answer: String,
    page: Vec<u8>,
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)?.parse().ok()
    };
    let mut desk = Desk {
        crew: Crew::new(option("--seed").unwrap_or(1)),
        answer: String::with_capacity(4096),
        page: Vec::with_capacity(1 << 16),
    };
    if !desk.crew.add(option("--threads").unwrap_or(4) as usize) {
        return Err(io::Error::other("no room for so many threads"));
    }
    desk.crew.run_all(Order::Fill);
    desk.obey()
}

impl Desk {
    fn obey(&mut self) -> io::Result<()> {
        let mut line = String::with_capacity(4096);
        let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
        let _ = write!(self.answer, "ready pid={} threads={}", std::process::id(), self.crew.count());
        loop {
            self.answer.push('\n');
            output.write_all(self.answer.as_bytes())?;
            output.flush()?;
            line.clear();
            if input.read_line(&mut line)? == 0 || line.trim() == "exit" {
                return output.write_all(b"ok\n");
            }
            self.answer.clear();
            if let Err(reason) = self.command(&line) {
                self.answer.clear();
                let _ = write!(self.answer, "error {reason}");
            }
        }
    }

    fn command(&mut self, line: &str) -> Result<(), &'static str> {
        let mut words = line.split_ascii_whitespace();
        let command = words.next().unwrap_or_default();
        let first = words.next().unwrap_or_default();
        let number = first.parse::<usize>().unwrap_or(0);
        let second = words.next().and_then(|word| word.parse::<usize>().ok());
        let thread = words.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or(1);
        if self.crew.churning() && !matches!(command, "stop" | "stats") {
            return Err("the heap is not at rest: say stop");
        }
        match (command, second) {
            ("table", _) => return self.table(first).map_err(|_| "cannot write the table"),
            ("stats", _) => return self.statistics(first),
            ("grow", Some(size)) => self.order(thread, Order::Grow(number, size))?,
            ("shrink", Some(size)) => self.order(thread, Order::Shrink(number, size))?,
            ("start", _) => {
                self.crew.churn();
                self.say("ok", &[]);
            }
            ("stop", _) => {
                let operations = self.crew.settle();
                self.say("ok", &[("operations", operations)]);
            }
            ("churn", _) => {
                let end = Instant::now() + Duration::from_millis(number as u64);
                self.crew.churn();
                std::thread::sleep(end.saturating_duration_since(Instant::now()));
                let operations = self.crew.settle();
                self.say("ok", &[("operations", operations)]);
            }
            ("threads", _) => {
                if !self.crew.add(number) {
                    return Err("no room for so many threads");
                }
                self.say("ok", &[("threads", self.crew.count())]);
            }
            ("flush", _) => {
                control::flush_cache();
                self.crew.run_all(Order::Flush);
                self.say("ok", &[]);
            }
            _ => return Err("no such command"),
        }
        Ok(())
    }

    fn say(&mut self, word: &str, fields: &[(&str, usize)]) {
        self.answer.push_str(word);
        for (name, value) in fields {
            let _ = write!(self.answer, " {name}={value}");
        }
    }

    fn order(&mut self, thread: usize, order: Order) -> Result<(), &'static str> {
        let done = self.crew.run(thread, order).ok_or("no such thread")?;
        self.say("ok", &[("blocks", done)]);
        Ok(())
    }

    fn statistics(&mut self, path: &str) -> Result<(), &'static str> {
        let path = CString::new(path).map_err(|_| "cannot write the statistics")?;
        let lines = control::write_statistics(&path).ok_or("cannot write the statistics")?;
        self.say("ok", &[("lines", lines), ("mallctl", usize::from(control::has_control()))]);
        Ok(())
    }

    fn table(&mut self, path: &str) -> io::Result<()> {
        let mut file = File::create(path)?;
        let (mut blocks, mut requested, mut usable) = (0, 0, 0);
        self.page.clear();
        self.page.extend_from_slice(b"table 1\n");
        for block in record::blocks() {
            let usable_here = control::usable_size(block.address);
            writeln!(self.page, "{:#x} {} {usable_here} heap 0", block.address, block.size)?;
            blocks += 1;
            requested += block.size;
            usable += usable_here;
            if self.page.len() > self.page.capacity() - 100 {
                file.write_all(&self.page)?;
                self.page.clear();
            }
        }
        writeln!(self.page, "end {blocks} {requested} {usable}")?;
        file.write_all(&self.page)?;
        self.say("ok", &[("blocks", blocks), ("requested", requested), ("usable", usable), ("runtime", 0)]);
        Ok(())
    }
}
