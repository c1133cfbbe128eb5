//! See README.md.

#![allow(dead_code, reason = "what only takes up memory is read by nobody")]

mod descent;
mod latencies;
mod options;
mod random;
mod ring;
mod sites;
mod tally;
mod worker;

use latencies::Latencies;
use options::Options;
use std::io::{self, BufRead, Write};
use std::sync::Arc;
use std::time::Instant;
use tally::{SITES, Tallies};
use worker::Worker;

#[global_allocator]
static ALLOCATOR: allocator::Jemalloc = allocator::Jemalloc;

struct Server {
    tallies: Vec<Arc<Tallies>>,
    latencies: Vec<Arc<Latencies>>,
    since: Instant,
    allocations_before: u64,
    latencies_before: Latencies,
}

impl Server {
    fn start(options: Options) -> Self {
        let (filled, wait) = std::sync::mpsc::channel();
        let mut server = Self {
            tallies: Vec::new(),
            latencies: Vec::new(),
            since: Instant::now(),
            allocations_before: 0,
            latencies_before: Latencies::default(),
        };
        for number in 0..options.threads {
            let (tallies, latencies) = (Arc::new(Tallies::default()), Arc::new(Latencies::default()));
            server.tallies.push(Arc::clone(&tallies));
            server.latencies.push(Arc::clone(&latencies));
            let filled = filled.clone();
            let work = move || {
                let mut worker = Box::new(Worker::new(options, number, tallies, latencies));
                worker.fill();
                filled.send(()).expect("the main thread waits");
                worker.serve();
            };
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(work).expect("a thread");
        }
        for _ in 0..options.threads {
            wait.recv().expect("the worker fills");
        }
        server.begin_pace();
        server
    }

    fn obey(&mut self) -> io::Result<()> {
        for command in io::stdin().lock().lines() {
            match command?.as_str() {
                "truth" => self.tell_truth(),
                "pace" => self.tell_pace(),
                "exit" => return Ok(()),
                _ => println!("error no such command"),
            }
            io::stdout().flush()?;
        }
        Ok(())
    }

    fn tell_truth(&self) {
        for (index, (name, leaks)) in SITES.iter().enumerate() {
            // Deaths first: a block that dies in between must not count as one that never was born.
            let died: u64 = self.tallies.iter().map(|tallies| tallies.0[index].died.get()).sum();
            let born: u64 = self.tallies.iter().map(|tallies| tallies.0[index].born.get()).sum();
            println!(
                "site name={name} function={name}::allocate allocations={born} live={} leaks={}",
                born - died,
                u8::from(*leaks)
            );
        }
        println!("end");
    }

    fn allocations(&self) -> u64 {
        self.tallies.iter().flat_map(|tallies| &tallies.0).map(|tally| tally.born.get()).sum()
    }

    fn all_latencies(&self) -> Latencies {
        let all = Latencies::default();
        self.latencies.iter().for_each(|one| all.join(one));
        all
    }

    fn begin_pace(&mut self) {
        self.since = Instant::now();
        self.allocations_before = self.allocations();
        self.latencies_before = self.all_latencies();
    }

    fn tell_pace(&mut self) {
        let since = self.all_latencies();
        since.take_off(&self.latencies_before);
        println!(
            "pace allocations={} seconds={} p50_ns={} p99_ns={} max_ns={}",
            self.allocations() - self.allocations_before,
            self.since.elapsed().as_secs_f64(),
            since.quantile_ns(0.5),
            since.quantile_ns(0.99),
            since.quantile_ns(1.0)
        );
        self.begin_pace();
    }
}

fn main() -> io::Result<()> {
    let options = Options::typed().unwrap_or_else(|reason| {
        eprintln!("rust-leak-server: {reason}");
        std::process::exit(2);
    });
    let mut server = Server::start(options);
    println!("ready pid={} threads={}", std::process::id(), options.threads);
    io::stdout().flush()?;
    server.obey()?;
    // The workers still run: nothing may be torn down under them.
    std::process::exit(0)
}
