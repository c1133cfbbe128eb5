//! What reading large cores costs: time and memory of `heaptap snap CORE`.
//!
//! Run by `cargo bench --bench core`. The cores are those that the kernel writes of two ledgers: 1.6 GB of glibc's malloc
//! with 1.75 million blocks, and 16 GB of jemalloc's address space of which most was never written to. Where the kernel
//! writes none into the current folder nothing is measured. Beside them what others need for the same file: reading what
//! is on disk once, and gdb showing the stacks. `HEAPTAP_BENCH_ROUNDS` makes the run shorter.

mod cost;
mod crowd;
mod sheet;

use cost::{Files, Spent};
use crowd::Crowd;
use heaptap_test_programs::{LEDGER, LEDGER_JEMALLOC};
use sheet::{Demand, Sheet};
use std::path::PathBuf;

const ROUNDS: usize = 7;
/// 1.75 million blocks in 1.6 GB.
const GLIBC_GROWTH: [&str; 2] = ["grow 1200000 860 0", "grow 550000 860 0"];
/// 16 GB in blocks of which only the first page is written to, and a million small ones.
const JEMALLOC_GROWTH: [&str; 2] = ["grow 65536 262144 0", "grow 1000000 64 0"];

fn main() {
    let rounds = std::env::var("HEAPTAP_BENCH_ROUNDS").map_or(ROUNDS, |text| text.parse().expect("a number"));
    println!("machine: {}", sheet::machine());
    let mut sheet = Sheet::default();
    measure(&mut sheet, "glibc", LEDGER, &GLIBC_GROWTH, 3.0, rounds);
    let jemalloc = LEDGER_JEMALLOC.expect("this benchmark is for Linux");
    measure(&mut sheet, "jemalloc", jemalloc, &JEMALLOC_GROWTH, 5.0, rounds);
    println!("machine: {}", sheet::machine());
    sheet.print();
}

fn measure(sheet: &mut Sheet, of: &str, program: &str, growth: &[&str], demand_s: f64, rounds: usize) {
    let files = Files::new();
    let mut ledger = Crowd::start(program, 1, &files);
    growth.iter().for_each(|command| ledger.command(command));
    ledger.abort();
    let Some(core) = core_in(&files) else {
        println!(
            "{of}: not measured, the kernel wrote no core into the current folder (kernel.core_pattern)"
        );
        return;
    };
    let file = std::fs::metadata(&core).expect("a core");
    let on_disk_bytes = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
    println!("{of}: a core of {} bytes, {on_disk_bytes} of them on disk", file.len());
    let core = core.display().to_string();
    let (mut wall, mut cpu, mut peak, mut read, mut gdb) = (vec![], vec![], vec![], vec![], vec![]);
    // A sparse file has no bytes to be read in most of its places.
    let is_sparse = on_disk_bytes < file.len() / 2;
    for _ in 0..rounds {
        if !is_sparse {
            read.extend(files.run("cat", &[&core]).map(|spent| spent.wall_s));
        }
        let Spent { wall_s, cpu_s, peak_bytes } = files.heaptap(&["snap", &core]);
        wall.push(wall_s);
        cpu.push(cpu_s);
        peak.push(peak_bytes / 1e6);
        let backtrace = ["-nx", "-batch", "-ex", "thread apply all backtrace", program, &core];
        gdb.extend(files.run("gdb", &backtrace).map(|spent| spent.wall_s));
    }
    let times =
        |against: &[f64]| wall.iter().zip(against).map(|(own, other)| own / other).collect::<Vec<_>>();
    sheet.figure(&format!("{of}: snap CORE"), "s", &wall, Demand::AtMost(demand_s));
    sheet.figure(&format!("{of}: snap CORE, processor time"), "s", &cpu, Demand::None);
    sheet.figure(&format!("{of}: snap CORE, peak memory"), "MB", &peak, Demand::AtMost(500.0));
    if !read.is_empty() {
        sheet.figure(&format!("{of}: snap / reading the file once"), "times", &times(&read), Demand::None);
    }
    if !gdb.is_empty() {
        sheet.figure(&format!("{of}: snap / gdb's backtrace"), "times", &times(&gdb), Demand::None);
    }
}

/// The core among the files, whatever is behind its name.
fn core_in(files: &Files) -> Option<PathBuf> {
    let entries = std::fs::read_dir(files.folder()).expect("the folder");
    let paths = entries.map(|entry| entry.expect("the folder").path());
    paths
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core")))
}
