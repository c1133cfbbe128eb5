//! Layouts from debug information: do they equal the checked-in tables, field by field?
//!
//! The compiler wrote the debug information; the tables were written by hand. Each is the other's oracle.

use heaptap::allocator::Provenance;
use heaptap::allocator::jemalloc::dwarf;
use heaptap::allocator::jemalloc::layout::{Build, Layout, THREAD_DATA_SHIFTS};
use heaptap::module::Image;
use heaptap_platform::MappedFile;
use heaptap_test_programs::{Language, jemalloc_programs, jemalloc_programs_with_assertions};
use std::fs::File;
use std::path::Path;

/// Pages of 4 KiB and a quantum of 16 bytes.
const DEFAULT: Build = Build { nbins: 36, nlarge: 196, lg_page: 12 };

/// All tables, whatever the version.
fn tables(build: Build) -> Vec<Layout> {
    let all = [Layout::v5_0, Layout::v5_1, Layout::v5_2, Layout::v5_3_0, Layout::v5_3_1, Layout::development];
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

/// Compares the one layout that `path` tells with the table of its version.
fn assert_equals_its_table(path: &Path, version: &str, build: Build) {
    let told = told(path, build);
    let name = path.display();
    let [told] = told.as_slice() else { panic!("{name}: {} layouts fit", told.len()) };
    assert!(version.starts_with(told.table) || told.table.starts_with(version), "{name}: {}", told.table);
    // Only from 5.3.1 on does the configuration move anything.
    let moves = matches!(told.table, "5.3.1" | "development");
    let shifts = if moves { &THREAD_DATA_SHIFTS[..] } else { &[0] };
    let differences = shifts.iter().map(|shift| differences(told, &table(told.table, build, *shift)));
    let least = differences.min_by_key(Vec::len).expect("at least one shift");
    assert_eq!(least, [] as [&str; 0], "{name}");
}

#[test]
fn every_release_equals_its_table() {
    let programs = jemalloc_programs().expect("test-programs/build works");
    for language in [Language::C, Language::Rust] {
        let count = programs.iter().filter(|program| program.language == language).count();
        assert!(count >= 4, "{count} programs in {language:?}");
    }
    for program in programs {
        let nbins = if program.name.ends_with("-redis") { 39 } else { 36 };
        let build = Build { nbins, ..DEFAULT };
        assert_equals_its_table(&program.executable, &program.version, build);
    }
}

#[test]
fn assertions_make_structures_longer() {
    for program in jemalloc_programs_with_assertions().expect("test-programs/build works") {
        let told = told(&program.executable, DEFAULT);
        let [told] = told.as_slice() else { panic!("{}: {} layouts fit", program.name, told.len()) };
        assert!(program.version.starts_with(told.table), "{}: {}", program.name, told.table);
        let table = table(told.table, DEFAULT, 0);
        assert!(told.bin_bytes > table.bin_bytes && told.arena_base > table.arena_base, "{}", program.name);
        assert!(told.tcache.tsd_tcache > table.tcache.tsd_tcache, "{}", program.name);
    }
}

#[test]
fn stripped_programs_tell_nothing() {
    for program in jemalloc_programs().expect("test-programs/build works") {
        assert_eq!(told(&program.stripped, DEFAULT), [], "{}", program.name);
    }
}

#[test]
#[ignore = "name a folder in HEAPTAP_JEMALLOC_BUILDS: below VERSION-default lie builds with debug information"]
fn every_library_in_a_folder_equals_its_table() {
    let folder = std::env::var("HEAPTAP_JEMALLOC_BUILDS").expect("HEAPTAP_JEMALLOC_BUILDS is set");
    for build in std::fs::read_dir(folder).expect("a folder").flatten() {
        let name = build.file_name().to_string_lossy().into_owned();
        let Some(version) = name.strip_suffix("-default") else { continue };
        assert_equals_its_table(&build.path().join("lib/libjemalloc.so.2"), version, DEFAULT);
        println!("{version}: equal");
    }
}
