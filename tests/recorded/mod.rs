//! Recorded captures, and what was true of each: by the program's own table and its allocator's own statistics.

#![allow(dead_code, reason = "each test file that includes this uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Where they are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

/// All captures of the ledger, by name, but for those on jemalloc 4.x.
pub fn fixtures() -> Vec<PathBuf> {
    fixtures_in(&folder())
}

/// Those in one folder.
pub fn fixtures_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_str().unwrap().ends_with(".core.zst") && truth_path(path).exists());
    paths.sort();
    paths
}

fn truth_path(capture: &Path) -> PathBuf {
    PathBuf::from(capture.to_str().unwrap().replace(".core.zst", ".truth"))
}

/// What a program and its allocator said of the heap.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// `stats.allocated`; absent where the allocator keeps no statistics.
    pub allocated: Option<u64>,
    /// Blocks in use by arena and size class, by mallctl; those above zero.
    pub cells: BTreeMap<(u32, u64), u64>,
    /// Slabs by arena and size class, by mallctl; those above zero.
    pub slabs: BTreeMap<(u32, u64), u64>,
    /// Addresses of the program's own blocks.
    pub blocks: BTreeSet<u64>,
    /// Usable sizes of the blocks of the C and C++ libraries, ascending.
    pub runtime: Vec<u64>,
}

impl Truth {
    /// The truth beside a capture.
    pub fn beside(capture: &Path) -> Self {
        let path = truth_path(capture);
        let text = fs::read_to_string(&path).expect("it was recorded with the capture");
        let mut truth = Self::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let number = |index: usize| fields[index].parse::<u64>().expect(line);
            let cell = || ((u32::try_from(number(1)).unwrap(), number(2)), number(3));
            match fields[0] {
                "allocated" => truth.allocated = Some(number(1)),
                "cell" => truth.cells.extend([cell()]),
                "slabs" => truth.slabs.extend([cell()]),
                "block" => truth.blocks.extend([u64::from_str_radix(fields[1], 16).expect(line)]),
                "runtime" => truth.runtime.push(number(1)),
                _ => panic!("{}: {line}", path.display()),
            }
        }
        truth
    }

    /// Writes it beside a capture.
    pub fn write(&self, capture: &Path) {
        let mut text = String::new();
        if let Some(allocated) = self.allocated {
            writeln!(text, "allocated {allocated}").unwrap();
        }
        for (name, cells) in [("cell", &self.cells), ("slabs", &self.slabs)] {
            for ((arena, size), count) in cells {
                writeln!(text, "{name} {arena} {size} {count}").unwrap();
            }
        }
        self.runtime.iter().for_each(|size| writeln!(text, "runtime {size}").unwrap());
        self.blocks.iter().for_each(|address| writeln!(text, "block {address:x}").unwrap());
        fs::write(truth_path(capture), text).unwrap();
    }
}
