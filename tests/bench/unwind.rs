//! How fast stacks are unwound, against framehop over the same bytes in the same run.
//!
//! Run by `cargo bench --bench unwind`, or `cargo bench --bench unwind -- PID...` for processes of one's own. The
//! program that holds every shape of stack is always among them. A process is stopped once; both unwinders then
//! work on the copy. "First" is with nothing known of the code, "again" with all rules known; both count frames
//! found, one by one, with the registers of each thread given.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Unwinder as _};
use heaptap::capture::{Capture, Limits, LiveMemory, take_stacks};
use heaptap::memory::MemoryExt;
use heaptap::module::{Image, Module, OpenImage};
use heaptap::unwind::{Frame, Unwinder};
use heaptap_platform::{AddressRange, Architecture, MappedFile, Mapping, Process};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Each time is the best of so many.
const ROUNDS: usize = 7;
/// Each round takes at least so long.
const ROUND_MIN: Duration = Duration::from_millis(100);

struct Files<'a>(&'a Process);

impl OpenImage for Files<'_> {
    fn open_module(&self, mapping: &Mapping) -> Option<Image> {
        MappedFile::map(&self.0.open_module(mapping).ok()?.file).ok().map(Image::new)
    }

    fn open_in_root(&self, path: &Path) -> Option<Image> {
        MappedFile::map(&self.0.open_in_root(path).ok()?).ok().map(Image::new)
    }
}

/// One process, stopped and copied.
struct Subject {
    name: String,
    capture: Capture,
    modules: Vec<Module>,
    executable: Vec<AddressRange>,
}

impl Subject {
    fn take(pid: i32) -> Self {
        let process = Process::open(pid).unwrap();
        let mappings = process.mappings().unwrap();
        let live = LiveMemory::new(process.memory(), process.page_table().unwrap());
        let limits = Limits { pause: Duration::from_secs(1), ..Limits::default() };
        let capture = take_stacks(&process, &live, &mappings, limits).unwrap();
        let executable = mappings.iter().filter(|mapping| mapping.executable).map(|mapping| mapping.range);
        Self {
            name: process.name().to_owned(),
            capture,
            modules: Module::all(&mappings, &Files(&process)),
            executable: executable.collect(),
        }
    }

    fn ours(&self) -> Unwinder<'_> {
        Unwinder::new(Architecture::X86_64, &self.modules, &self.executable)
    }

    fn unwind_ours(&self, unwinder: &mut Unwinder<'_>, frames: &mut Vec<Frame>) -> usize {
        let mut count = 0;
        for thread in &self.capture.threads {
            unwinder.unwind_into(&thread.registers, &self.capture.memory, frames);
            count += frames.len();
        }
        count
    }

    fn framehop(&self) -> UnwinderX86_64<Vec<u8>> {
        let mut unwinder = UnwinderX86_64::new();
        for module in &self.modules {
            let Some(image) = &module.image else { continue };
            let sections = image.call_frame_sections();
            let range = |address: u64, len: usize| address..address + len as u64;
            let eh_frame = sections.eh_frame.as_ref();
            let hdr = sections.eh_frame_hdr.as_ref();
            let info = ExplicitModuleSectionInfo {
                base_svma: 0,
                eh_frame_svma: eh_frame.map(|(address, bytes)| range(*address, bytes.len())),
                eh_frame: eh_frame.map(|(_, bytes)| bytes.to_vec()),
                eh_frame_hdr_svma: hdr.map(|(address, bytes)| range(*address, bytes.len())),
                eh_frame_hdr: hdr.map(|(_, bytes)| bytes.to_vec()),
                debug_frame: sections.debug_frame.as_ref().map(|(_, bytes)| bytes.to_vec()),
                ..ExplicitModuleSectionInfo::default()
            };
            let span = module.range.start..module.range.end;
            unwinder.add_module(framehop::Module::new(module.name(), span, module.bias, info));
        }
        unwinder
    }

    fn unwind_framehop(&self, unwinder: &UnwinderX86_64<Vec<u8>>, cache: &mut CacheX86_64) -> usize {
        let mut read = |address| self.capture.memory.read_u64(address).map_err(|_| ());
        let mut count = 0;
        for thread in &self.capture.threads {
            let registers = &thread.registers;
            let (counter, stack) = (registers.program_counter, registers.stack_pointer);
            let start = UnwindRegsX86_64::new(counter, stack, registers.get(6).unwrap());
            let mut frames = unwinder.iter_frames(counter, start, cache, &mut read);
            while let Ok(Some(_)) = frames.next() {
                count += 1;
            }
        }
        count
    }
}

/// Frames of one pass, and the best time for one frame.
fn best(mut pass: impl FnMut() -> usize) -> (usize, f64) {
    let mut best_ns = f64::INFINITY;
    let mut count = 0;
    for _ in 0..ROUNDS {
        let (begun, mut frames) = (Instant::now(), 0);
        while begun.elapsed() < ROUND_MIN {
            count = pass();
            frames += count;
        }
        best_ns = best_ns.min(begun.elapsed().as_nanos() as f64 / frames.max(1) as f64);
    }
    (count, best_ns)
}

fn report(subject: &Subject) {
    let mut frames = Vec::new();
    let mut warm = subject.ours();
    let (ours, ours_again) = best(|| subject.unwind_ours(&mut warm, &mut frames));
    let framehop = subject.framehop();
    let mut cache = CacheX86_64::new();
    let (theirs, theirs_again) = best(|| subject.unwind_framehop(&framehop, &mut cache));
    let begun = Instant::now();
    let mut cold = subject.ours();
    let first_frames = subject.unwind_ours(&mut cold, &mut frames);
    let ours_first = begun.elapsed().as_nanos() as f64 / 1e3;
    let learnt = cold.learnt();
    let mut cache = CacheX86_64::new();
    let begun = Instant::now();
    subject.unwind_framehop(&framehop, &mut cache);
    let theirs_first = begun.elapsed().as_nanos() as f64 / 1e3;
    let whole = subject
        .capture
        .threads
        .iter()
        .filter(|thread| cold.unwind(&thread.registers, &subject.capture.memory).end.is_whole());
    println!(
        "{:<16} {:>3} threads  {} whole  {} places, {} rules",
        subject.name,
        subject.capture.threads.len(),
        whole.count(),
        learnt.misses,
        learnt.rules
    );
    let line = |name: &str, frames: usize, again_ns: f64, first_us: f64| {
        let rate = 1e3 / again_ns;
        println!(
            "  {name:<10} {frames:>6} frames  again {rate:>6.1} million frames/s  first {first_us:>8.0} us"
        );
    };
    line("heaptap", ours, ours_again, ours_first);
    line("framehop", theirs, theirs_again, theirs_first);
    println!("  ratio of rates {:.2}", theirs_again / ours_again);
    assert_eq!(first_frames, ours, "what is remembered gives the same frames");
}

fn main() {
    let mut shapes = Command::new(heaptap_test_programs::SHAPES).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(shapes.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let own = i32::try_from(shapes.id()).unwrap();
    let named = std::env::args().skip(1).filter_map(|word| word.parse().ok());
    for pid in std::iter::once(own).chain(named) {
        report(&Subject::take(pid));
    }
    shapes.kill().unwrap();
    shapes.wait().unwrap();
}
