//! Parts of heaptap, called as a library.

use crate::rivals::Taken;
use heaptap::allocator::jemalloc::identify;
use heaptap::allocator::{AddressSpace, Allocator, Block, Run, Sink};
use heaptap::capture::{self, Capture, Extra, Limits, LiveMemory};
use heaptap::module::{Image, Module, OpenImage};
use heaptap_platform::{AddressRange, MappedFile, Mapping, Process};
use std::path::Path;
use std::time::Instant;

/// A walk, timed.
pub struct Walk {
    /// Blocks, live or not, in all slabs.
    pub slots: u64,
    pub slabs: u64,
    /// Of each round: slots a microsecond, which is millions a second.
    pub slots_per_us: Vec<f64>,
}

/// The ranges that a snapshot copies.
pub fn metadata(pid: u32) -> Vec<AddressRange> {
    capture(pid).1.memory.ranges()
}

/// Walks one capture again and again.
pub fn walk(pid: u32, rounds: usize) -> Walk {
    let (allocators, capture) = capture(pid);
    let threads = capture.thread_pointers();
    let mut walk = Walk { slots: 0, slabs: 0, slots_per_us: Vec::new() };
    for _ in 0..rounds {
        let mut runs = Runs::default();
        let began = Instant::now();
        let outcome = allocators[0].walk(&capture.memory, &threads, &mut runs);
        let us = began.elapsed().as_secs_f64() * 1e6;
        assert!(outcome.complete, "the walk met everything");
        walk.slabs = runs.by_class.iter().sum();
        let classes = runs.by_class.iter().zip(&outcome.run_classes);
        walk.slots = classes.map(|(runs, class)| runs * u64::from(class.blocks)).sum();
        walk.slots_per_us.push(walk.slots as f64 / us);
    }
    walk
}

/// Stops all threads and lets them go.
pub fn stop(pid: u32) -> Taken {
    let process = open(pid);
    let pause = capture::survey(&process, Limits::default()).expect("the threads can be stopped").pause;
    Taken { stop_ms: pause.stop_latency_us as f64 / 1000.0, pause_ms: pause.stopped_us as f64 / 1000.0 }
}

fn open(pid: u32) -> Process {
    Process::open(i32::try_from(pid).expect("a process id")).expect("the target runs")
}

fn capture(pid: u32) -> (Vec<Box<dyn Allocator>>, Capture) {
    let process = open(pid);
    let mappings = process.mappings().expect("mappings");
    let modules = Module::all(&mappings, &Files(&process));
    let live = LiveMemory::new(process.memory(), process.page_table().expect("a page table"));
    let findings = identify::find(AddressSpace { modules: &modules, mappings: &mappings }, &live);
    let allocators: Vec<Box<dyn Allocator>> =
        findings.found.into_iter().map(|found| Box::new(found) as Box<dyn Allocator>).collect();
    let borrowed: Vec<&dyn Allocator> = allocators.iter().map(AsRef::as_ref).collect();
    let capture = capture::take(&process, &live, &borrowed, &[], &Extra::default(), Limits::default())
        .expect("a capture");
    assert!(!capture.cut_short, "the capture is whole");
    (allocators, capture)
}

/// Opens a target's modules where they are mapped from.
struct Files<'a>(&'a Process);

impl OpenImage for Files<'_> {
    fn open_module(&self, mapping: &Mapping) -> Option<Image> {
        let file = self.0.open_module(mapping).ok()?;
        MappedFile::map(&file.file).ok().map(Image::new)
    }

    fn open_in_root(&self, path: &Path) -> Option<Image> {
        MappedFile::map(&self.0.open_in_root(path).ok()?).ok().map(Image::new)
    }
}

/// Counts runs by class and looks at nothing else.
#[derive(Default)]
struct Runs {
    by_class: Vec<u64>,
}

impl Sink for Runs {
    fn run(&mut self, run: Run<'_>) {
        let class = usize::from(run.class);
        if self.by_class.len() <= class {
            self.by_class.resize(class + 1, 0);
        }
        self.by_class[class] += 1;
    }

    fn block(&mut self, _block: Block) {}
}
