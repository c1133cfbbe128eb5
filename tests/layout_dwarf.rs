//! Layouts from debug information: do they equal the checked-in tables, field by field?
//!
//! The compiler wrote the debug information; the tables were written by hand. Each is the other's oracle.

use heaptap::allocator::Provenance;
use heaptap::allocator::jemalloc::dwarf;
use heaptap::allocator::jemalloc::layout::{Build, Layout, THREAD_DATA_SHIFTS};
use heaptap::module::Image;
use heaptap_platform::MappedFile;
use heaptap_test_programs::jemalloc_programs;
use std::fs::File;
use std::path::Path;

/// All tables, whatever the version.
fn tables(build: Build) -> Vec<Layout> {
    let all =
        [Layout::v5_0, Layout::v5_1, Layout::v5_2, Layout::v5_3_0, Layout::v5_3_1, Layout::development];
    all.iter().map(|table| table(build)).collect()
}

fn told(path: &Path, build: Build) -> Vec<Layout> {
    let file = File::open(path).expect("the program was built");
    let image = Image::new(MappedFile::map(&file).expect("it can be mapped"));
    dwarf::told(&image, &tables(build))
}

/// The table of `name`, as if read from debug information, with thread-specific data moved by `shift` bytes.
fn table(name: &str, build: Build, shift: i64) -> Layout {
    let table = tables(build).into_iter().find(|table| table.table == name).expect("a table of that name");
    Layout { provenance: Provenance::Dwarf, tcache: table.tcache.shifted(shift), ..table }
}

/// Fields in which two layouts differ, each as both have it.
fn differences(told: &Layout, table: &Layout) -> Vec<String> {
    let (told, table) = (format!("{told:#?}"), format!("{table:#?}"));
    let pairs = told.lines().zip(table.lines()).filter(|(told, table)| told != table);
    pairs.map(|(told, table)| format!("told {}, table {}", told.trim(), table.trim())).collect()
}

#[test]
fn every_release_equals_its_table() {
    for program in jemalloc_programs().expect("test-programs/build works") {
        let nbins = if program.name.ends_with("-redis") { 39 } else { 36 };
        let build = Build { nbins, nlarge: 196, lg_page: 12 };
        let told = told(&program.executable, build);
        if told.is_empty() { eprintln!("{} nothing", program.name); continue; }
        let [told] = told.as_slice() else { panic!("{}: {} layouts fit", program.name, told.len()) };
        assert!(program.version.starts_with(told.table), "{}: {}", program.name, told.table);
        // Only from 5.3.1 on does the configuration move anything.
        let shifts = if told.table == "5.3.1" { &THREAD_DATA_SHIFTS[..] } else { &[0] };
        let differences = shifts.iter().map(|shift| differences(told, &table(told.table, build, *shift)));
        let least = differences.min_by_key(Vec::len).expect("at least one shift");
        assert_eq!(least, [] as [&str; 0], "{}", program.name);
    }
}

#[test]
fn stripped_programs_tell_nothing() {
    for program in jemalloc_programs().expect("test-programs/build works") {
        assert_eq!(told(&program.stripped, Build { nbins: 36, nlarge: 196, lg_page: 12 }), []);
    }
}
