//! Types from debug information against what the compiler says: a C program is compiled in many ways and prints
//! sizes and offsets of its own structures.

use heaptap::module::Image;
use heaptap::module::dwarf::DebugSections;
use heaptap::module::types::Types;
use heaptap_platform::MappedFile;
use object::{Object, ObjectSection};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shapes/shapes.c");

/// The program, compiled with `flags`.
fn compile(name: &str, flags: &[&str]) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("shapes-{name}"));
    let mut command = Command::new("cc");
    command.args(flags).arg(SOURCE).arg("-o").arg(&program);
    assert!(command.status().expect("cc starts").success(), "{command:?}");
    program
}

fn image(path: &Path) -> Image {
    Image::new(MappedFile::map(&File::open(path).expect("it is there")).expect("it can be mapped"))
}

/// What a program says of its structures: structure, member, offset, size.
fn said(program: &Path) -> Vec<(String, String, u64, u64)> {
    let output = Command::new(program).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    let line = |line: &str| {
        let mut fields = line.split(' ').map(str::to_owned);
        let (structure, member) = (fields.next()?, fields.next()?);
        Some((structure, member, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    text.lines().map(|text| line(text).expect("four fields")).collect()
}

fn assert_equal(name: &str, flags: &[&str]) {
    assert_told(name, &compile(name, flags));
}

/// Compares what the debug information of a program tells with what the program says.
fn assert_told(name: &str, program: &Path) {
    let image = image(program);
    let sections = DebugSections::of(&image).expect("compiled with debug information");
    let types = Types::of(&sections, &["shapes.c"]);
    let said = said(program);
    assert!(said.len() > 30, "{name}: {} lines", said.len());
    for (structure, member, offset_bytes, size_bytes) in said {
        let of = types.find(&[&structure]).unwrap_or_else(|| panic!("{name}: no {structure}"));
        if member == "-" {
            assert_eq!(of.size_bytes(), Some(size_bytes), "{name}: size of {structure}");
            continue;
        }
        let found = of.member(&member).unwrap_or_else(|| panic!("{name}: no {member} in {structure}"));
        assert_eq!(found.offset_bytes, offset_bytes, "{name}: {member} in {structure}");
        assert_eq!(found.of.size_bytes(), Some(size_bytes), "{name}: size of {member} in {structure}");
    }
}

#[test]
fn every_version_of_dwarf() {
    for version in ["2", "3", "4", "5"] {
        let flag = format!("-gdwarf-{version}");
        assert_equal(&format!("dwarf-{version}"), &[&flag, "-gstrict-dwarf"]);
        assert_equal(&format!("dwarf-{version}-optimised"), &[&flag, "-O2"]);
        assert_equal(&format!("dwarf-{version}-64-bit"), &[&flag, "-gdwarf64"]);
    }
}

#[test]
fn compressed_sections() {
    for form in ["zlib", "zlib-gnu"] {
        assert_equal(&format!("compressed-{form}"), &["-g", &format!("-gz={form}")]);
    }
}

#[test]
fn optimised_by_the_linker() {
    assert_equal("linked-together", &["-g", "-O2", "-flto"]);
}

#[test]
fn common_parts_in_units_of_their_own() {
    let object = compile("again", &["-g", "-c", "-Dmain=again"]);
    let twice = object.display().to_string();
    let program = compile("twice", &["-g", &twice]);
    let status = Command::new("dwz").arg(&program).status().expect("install dwz: .ci/run does");
    assert!(status.success());
    let partial = Command::new("readelf").args(["--debug-dump=info", "-W"]).arg(&program).output();
    let partial = partial.expect("readelf starts").stdout;
    assert!(String::from_utf8_lossy(&partial).contains("DW_TAG_partial_unit"), "dwz moved nothing");
    assert_told("twice", &program);
}

#[test]
fn counts_of_elements() {
    let image = image(&compile("elements", &["-g"]));
    let sections = DebugSections::of(&image).expect("compiled with debug information");
    let types = Types::of(&sections, &["shapes.c"]);
    let arrays = types.find(&["arrays_s"]).expect("it is defined");
    let count = |path| arrays.member(path).and_then(|member| member.of.elements()).map(|(_, count)| count);
    assert_eq!(count("few"), Some(Some(7)));
    assert_eq!(count("grid"), Some(Some(15)));
    assert_eq!(count("none"), Some(Some(0)));
    assert_eq!(count("open"), Some(None), "an array without an end has no count");
    assert_eq!(count("counter"), None, "a number has no elements");
    assert_eq!(arrays.member("open").and_then(|member| member.of.size_bytes()), None);
}

#[test]
fn what_is_not_there_is_not_told() {
    let image = image(&compile("absent", &["-g"]));
    let sections = DebugSections::of(&image).expect("compiled with debug information");
    let types = Types::of(&sections, &["shapes.c"]);
    assert!(types.find(&["no_such_s"]).is_none());
    assert_eq!(types.find(&["no_such_s", "inner_s"]).and_then(|inner| inner.offset_bytes("b")), Some(8));
    let bits = types.find(&["bits_s"]).expect("it is defined");
    assert!(bits.member("high").is_none(), "a bit field has no offset in bytes");
    let plain = types.find(&["plain_s"]).expect("it is defined");
    for path in ["", ".", "b", "inner.", "inner.c", "first.b", "inner.b.c"] {
        assert!(plain.member(path).is_none(), "{path:?}");
    }
    assert!(Types::of(&sections, &["other.c"]).find(&["plain_s"]).is_none(), "another source");
    assert!(Types::of(&sections, &["hapes.c"]).find(&["plain_s"]).is_none(), "a part of a name");
    assert!(DebugSections::of(&self::image(&compile("stripped", &["-s"]))).is_none());
}

#[test]
fn types_in_sections_of_their_own_are_refused() {
    let image = image(&compile("apart", &["-gdwarf-4", "-fdebug-types-section"]));
    let sections = DebugSections::of(&image).expect("compiled with debug information");
    assert!(Types::of(&sections, &["shapes.c"]).find(&["plain_s"]).is_none());
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn damage_ends_in_an_answer() {
    let program = compile("damaged", &["-gdwarf-5", "-O2"]);
    let whole = fs::read(&program).expect("it is there");
    let parsed = object::File::parse(whole.as_slice()).expect("an ELF file");
    let ranges: Vec<(usize, usize)> = [".debug_info", ".debug_abbrev"]
        .map(|name| {
            let section = parsed.section_by_name(name).expect("compiled with debug information");
            let (start, len) = section.file_range().expect("it has bytes");
            (usize::try_from(start).expect("small"), usize::try_from(len).expect("small"))
        })
        .to_vec();
    let names: Vec<String> = said(&program).into_iter().map(|(structure, ..)| structure).collect();
    let mut dice = Dice(1);
    let damaged = program.with_extension("bytes");
    let mut told = 0;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        let (start, len) = ranges[dice.below(ranges.len())];
        for _ in 0..=dice.below(8) {
            bytes[start + dice.below(len)] = dice.below(256) as u8;
        }
        fs::write(&damaged, &bytes).expect("there is room");
        let image = image(&damaged);
        let Some(sections) = DebugSections::of(&image) else { continue };
        let types = Types::of(&sections, &["shapes.c"]);
        for name in &names {
            let Some(of) = types.find(&[name]) else { continue };
            told += usize::from(of.size_bytes().is_some());
            told += usize::from(of.member("inner.b").is_some());
            told += usize::from(of.member("list.head").is_some());
        }
    }
    assert!(told > 400, "most of the damage is elsewhere: {told}");
}
