//! Core files that lie: cut off at any byte, with any byte changed, in headers, notes, memory and compressed streams. What
//! reads them never panics, comes to an end, stays below a limit of memory, and says where it failed and why.
//!
//! Each case is made from a seed, which is printed when it fails. The whole process runs under a limit of address space:
//! an allocation beyond it ends the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap::capture::core_file;
use heaptap::target::{Options, Target};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Address space that the tests of this file may take together.
const ADDRESS_SPACE_BYTES: u64 = 3 << 30;
/// Longest time that one core may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn limited() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = format!("--as={ADDRESS_SPACE_BYTES}");
        let status =
            Command::new("prlimit").args(["--pid", &std::process::id().to_string(), &limit]).status();
        assert!(status.expect("util-linux is installed").success());
    });
}

/// Numbers that look random and are the same every time (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % end as u64).unwrap()
    }

    /// A value that is likely to hurt.
    fn word(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => u64::MAX >> self.below(64),
            4 => self.below(1 << 16) as u64,
            _ => self.roll(),
        }
    }

    /// Changes a few words, halves or bytes of `bytes`.
    fn spoil(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.below(4) {
            let word = self.word().to_le_bytes();
            let len_bytes = [1, 2, 4, 8][self.below(4)].min(bytes.len());
            let at = self.below(bytes.len() - len_bytes + 1);
            bytes[at..at + len_bytes].copy_from_slice(&word[..len_bytes]);
        }
    }
}

fn packed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name)
}

fn unpacked(name: &str) -> Vec<u8> {
    zstd::decode_all(std::fs::read(packed(name)).unwrap().as_slice()).unwrap()
}

/// A small core of each kind: the FreeBSD ones without most of their heap.
fn small_cores() -> Vec<(&'static str, Vec<u8>)> {
    let cut = |name| {
        let mut bytes = unpacked(name);
        bytes.truncate(0x16_0000);
        bytes
    };
    vec![
        ("ledger-5.2-vaddr48.core.zst", unpacked("ledger-5.2-vaddr48.core.zst")),
        ("freebsd-15.1-amd64.core.zst", cut("freebsd-15.1-amd64.core.zst")),
        ("freebsd-13.2-userland-amd64.core.zst", cut("freebsd-13.2-userland-amd64.core.zst")),
    ]
}

/// Where headers and notes end.
fn head_bytes(bytes: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes([bytes[56], bytes[57]]));
    let notes = (0..count).map(|index| word(32) + index * 56).find(|header| bytes[*header] == 4).unwrap();
    word(notes + 8) + word(notes + 32)
}

/// An error that a core gives names the file, and a place in it or what is wrong with it.
fn check_error(error: &str, case: &str) {
    assert!(error.len() > 20, "{case}: {error}");
    let corrupt = error.contains("is corrupt at byte ") || error.contains("ends at byte ");
    let foreign =
        ["is neither a snapshot", "is not supported", "capture format"].iter().any(|it| error.contains(it));
    assert!(corrupt || foreign, "{case}: {error}");
}

/// Reads headers and notes.
fn open(bytes: Vec<u8>, case: &str) {
    let begun = Instant::now();
    if let Err(error) = core_file::from_bytes(bytes, Path::new("hostile.core")) {
        check_error(&error.to_string(), case);
    }
    assert!(begun.elapsed() < PATIENCE, "{case}");
}

/// Reads everything: the walkers and the stacks too.
fn walk(bytes: Vec<u8>, case: &str) {
    let begun = Instant::now();
    match Target::from_bytes(bytes, Path::new("hostile.core")) {
        Err(error) => check_error(&error.to_string(), case),
        Ok(target) => {
            let target = target.below(Path::new("/nowhere"));
            let stacks = target.stacks(&Options::default(), false);
            assert!(stacks.is_ok(), "{case}: {stacks:?}");
            // That there is nothing to walk, or nothing that agrees with itself, is an answer too.
            if let Err(error) = target.snapshot(&Options::default()) {
                assert!(error.to_string().len() > 20, "{case}: {error}");
            }
        }
    }
    assert!(begun.elapsed() < PATIENCE, "{case}");
}

/// Runs so many cases on all processors; the seed of one that panics is printed.
fn in_parallel(cases: u64, one: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cases {
                        break;
                    }
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| one(seed)));
                    assert!(outcome.is_ok(), "seed {seed}");
                }
            });
        }
    });
}

#[test]
fn headers_and_notes_may_hold_anything() {
    const CASES: u64 = 12_000;
    limited();
    let heads: Vec<(&str, Vec<u8>, usize)> = small_cores()
        .into_iter()
        .map(|(name, mut bytes)| {
            let head = head_bytes(&bytes);
            bytes.truncate(head + 4096);
            (name, bytes, head)
        })
        .collect();
    in_parallel(CASES, |seed| {
        let mut dice = Dice(seed);
        let (name, bytes, head) = &heads[dice.below(heads.len())];
        let mut bytes = bytes.clone();
        // The beginning, where the counts and offsets are, is spoilt as often as all of the rest.
        let end = if dice.below(2) == 0 { *head } else { 64 + 56 * 20 };
        dice.spoil(&mut bytes[..end]);
        if dice.below(4) == 0 {
            bytes.truncate(dice.below(*head));
        }
        open(bytes, &format!("{name}, seed {seed}"));
    });
}

#[test]
fn a_core_may_end_at_any_byte() {
    limited();
    for (name, bytes) in small_cores() {
        let head = head_bytes(&bytes);
        let (name, bytes) = (name, &bytes);
        // Each of the first bytes, then each seventh of the notes.
        let ends: Vec<usize> = (0..2048.min(head)).chain((2048..head).step_by(7)).collect();
        in_parallel(ends.len() as u64, |seed| {
            let end = ends[usize::try_from(seed).unwrap()];
            open(bytes[..end].to_vec(), &format!("{name}, {end} bytes"));
        });
    }
}

#[test]
fn walkers_read_spoilt_memory_of_cores() {
    const CASES: u64 = 40;
    limited();
    let cores = small_cores();
    in_parallel(CASES, |seed| {
        let mut dice = Dice(seed ^ (0x5eed << 32));
        let (name, bytes) = &cores[dice.below(cores.len())];
        let mut bytes = bytes.clone();
        for _ in 0..dice.below(40) {
            dice.spoil(&mut bytes);
        }
        if dice.below(3) == 0 {
            let end = 64 + dice.below(bytes.len() - 64);
            bytes.truncate(end);
        }
        walk(bytes, &format!("{name}, seed {seed}"));
    });
}

#[test]
fn compressed_streams_may_hold_anything() {
    const CASES: u64 = 400;
    limited();
    let folder = std::env::temp_dir().join(format!("heaptap-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let plain = unpacked("ledger-5.2-vaddr48.core.zst");
    let plain_path = folder.join("plain");
    std::fs::write(&plain_path, &plain[..200_000]).unwrap();
    let pack = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).arg(&plain_path).output().expect(words[0]);
        assert!(output.status.success(), "{words:?}");
        output.stdout
    };
    let streams = [
        pack(&["zstd", "-q", "-c"]),
        pack(&["gzip", "-c"]),
        pack(&["xz", "-c", "-0"]),
        pack(&["lz4", "-q", "-c"]),
    ];
    in_parallel(CASES, |seed| {
        let mut dice = Dice(seed ^ (0xfeed << 32));
        let mut bytes = streams[dice.below(streams.len())].clone();
        // What tells the compression stays.
        let start = 6.min(bytes.len());
        if dice.below(4) == 0 {
            bytes.truncate(start + dice.below(bytes.len() - start));
        } else {
            dice.spoil(&mut bytes[start..]);
        }
        let path = folder.join(format!("{seed}.core"));
        std::fs::write(&path, &bytes).unwrap();
        let begun = Instant::now();
        if let Err(error) = core_file::open(&path) {
            check_error(&error.to_string(), &format!("seed {seed}"));
        }
        assert!(begun.elapsed() < PATIENCE, "seed {seed}");
        std::fs::remove_file(&path).unwrap();
    });
    std::fs::remove_dir_all(&folder).unwrap();
}
