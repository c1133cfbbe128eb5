//! Does a snapshot file give back what was written, and does every other file give a clear error?

mod blocks;

use blocks::{Heap, Random, heap, process};
use heaptap::allocator::{Run, RunClass, Sink};
use heaptap::snapshot::schema::{ClassRow, SCHEMA, Shard, Summary};
use heaptap::snapshot::{self, Liveness, Overwrite, Snapshot, SnapshotError};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

/// A directory of its own, removed with what is in it.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("heaptap-{test}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn here() -> &'static Path {
    Path::new("some.heaptap")
}

fn read(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    snapshot::from_bytes(bytes, here())
}

/// A snapshot with runs, cached blocks and large blocks, and its file.
fn sample() -> (Snapshot, Vec<u8>) {
    let mut random = Random(77);
    let mut heap = Heap::default();
    for run in 0..40 {
        let class = run as usize % blocks::CLASSES.len();
        let count = blocks::CLASSES[class].1 / blocks::CLASSES[class].0;
        let live: Vec<bool> = (0..count).map(|_| run % 3 == 0 || random.below(4) > 0).collect();
        heap.runs.push(blocks::PlainRun {
            address: 0x7f00_0000_0000 + run * 0x5000,
            class,
            shard: (run % 4) as u32,
            serial: 100 + run,
            cached: live.iter().map(|live| !live && random.below(3) == 0).collect(),
            live,
        });
    }
    for large in 0..5 {
        heap.large.push(heaptap::allocator::Block {
            address: 0x7f80_0000_0000 + (large << 21),
            usable_bytes: 16384 << large,
            held_bytes: (16384 << large) + 4096,
            class_bytes: if large == 2 { 0 } else { 16384 << large },
            shard: 0,
            serial: 500 - large,
            cached: large == 4,
        });
    }
    let snapshot = heap.snapshot(process(4121), 1_790_000_000.25);
    let bytes = snapshot::to_bytes(&snapshot, here()).unwrap();
    (snapshot, bytes)
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Gives a file that has been tampered with the checksums that belong to it, as far as its directory goes.
fn seal(bytes: &mut [u8]) {
    if bytes.len() < 32 {
        return;
    }
    let end = (32 + 32 * u64::from(u32_at(bytes, 12))).min(bytes.len() as u64) as usize;
    let mut section = end as u64;
    for entry in (32..end.saturating_sub(31)).step_by(32) {
        let next = section.saturating_add(u64_at(bytes, entry + 8));
        if let Some(section) = bytes.get(section as usize..next as usize) {
            let sum = crc(section).to_le_bytes();
            bytes[entry + 24..entry + 28].copy_from_slice(&sum);
        }
        section = next;
    }
    let directory = crc(&bytes[32..end]).to_le_bytes();
    bytes[24..28].copy_from_slice(&directory);
    let header = crc(&bytes[..28]).to_le_bytes();
    bytes[28..32].copy_from_slice(&header);
}

proptest! {
    #[test]
    fn what_was_written_is_read(heap in heap(), taken_at in 0.0..2e9_f64) {
        let snapshot = heap.snapshot(process(7), taken_at);
        let bytes = snapshot::to_bytes(&snapshot, here()).unwrap();
        prop_assert_eq!(read(&bytes).unwrap(), snapshot);
    }

    #[test]
    fn a_byte_that_changed_is_noticed(at: prop::sample::Index, change in 1..=255_u8) {
        let (_, mut bytes) = sample();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let error = read(&bytes).expect_err("some byte is wrong");
        match error {
            SnapshotError::NotSnapshot { .. } => prop_assert!(at < 8),
            SnapshotError::Corrupt { offset, .. } => prop_assert!(offset <= at as u64),
            other => prop_assert!(false, "{other}"),
        }
    }

    /// Whoever made such a file made the checksums as well: what is behind them must hold by itself.
    #[test]
    fn a_forged_file_is_refused_or_sound(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        in_directory: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, mut bytes) = sample();
        let range = if in_directory { 12..32 + 32 * u32_at(&bytes, 12) as usize } else { 0..bytes.len() };
        for (at, value) in changes {
            bytes[range.start + at.index(range.len())] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        seal(&mut bytes);
        if let Ok(snapshot) = read(&bytes) {
            prop_assert!(snapshot.liveness.iter().all(|liveness| liveness.check().is_ok()));
        }
    }

    /// As before, but the change is to what a section says, not to how it is compressed.
    #[test]
    fn forged_columns_are_refused_or_sound(
        section: prop::sample::Index,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_, bytes) = sample();
        let sections = u32_at(&bytes, 12) as usize;
        let forged = forge(&bytes, section.index(sections), |content| {
            for (at, value) in &changes {
                let at = at.index(content.len());
                content[at] = *value;
            }
            if let Some(cut) = cut {
                content.truncate(cut.index(content.len()));
            }
        });
        match read(&forged) {
            Ok(snapshot) => prop_assert!(snapshot.liveness.iter().all(|liveness| liveness.check().is_ok())),
            Err(error) => prop_assert!(matches!(error, SnapshotError::Corrupt { .. }), "{}", error),
        }
    }

    #[test]
    fn anything_else_is_no_snapshot(bytes: Vec<u8>) {
        let error = read(&bytes).expect_err("it cannot be one");
        let wrong = matches!(error, SnapshotError::NotSnapshot { .. }) || bytes.is_empty();
        prop_assert!(wrong, "{}", error);
    }
}

/// The file with the content of one section changed, and everything that depends on it made to fit.
fn forge(bytes: &[u8], section: usize, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let sections = u32_at(bytes, 12) as usize;
    let (mut directory, mut contents) = (bytes[..32 + 32 * sections].to_vec(), Vec::new());
    let mut start = directory.len();
    let mut change = Some(change);
    for index in 0..sections {
        let entry = 32 + 32 * index;
        let end = start + u64_at(bytes, entry + 8) as usize;
        let mut encoded = bytes[start..end].to_vec();
        if index == section {
            let mut content = zstd::decode_all(encoded.as_slice()).unwrap();
            if let Some(change) = change.take() {
                change(&mut content);
            }
            encoded = zstd::encode_all(content.as_slice(), 1).unwrap();
            directory[entry + 8..entry + 16].copy_from_slice(&(encoded.len() as u64).to_le_bytes());
            directory[entry + 16..entry + 24].copy_from_slice(&(content.len() as u64).to_le_bytes());
        }
        contents.extend(encoded);
        start = end;
    }
    directory.extend(contents);
    let len = directory.len() as u64;
    directory[16..24].copy_from_slice(&len.to_le_bytes());
    seal(&mut directory);
    directory
}

/// Index of the first section of a kind.
fn section_of(bytes: &[u8], kind: u8) -> usize {
    let sections = u32_at(bytes, 12) as usize;
    (0..sections).find(|index| bytes[32 + 32 * index] == kind).expect("there is such a section")
}

#[test]
fn a_file_forged_without_a_change_is_the_same_snapshot() {
    let (snapshot, bytes) = sample();
    for section in 0..u32_at(&bytes, 12) as usize {
        assert_eq!(read(&forge(&bytes, section, |_| {})).unwrap(), snapshot);
    }
}

#[test]
fn every_shorter_file_is_truncated() {
    let (_, bytes) = sample();
    for len in 0..bytes.len() {
        match read(&bytes[..len]).expect_err("it is cut") {
            SnapshotError::Truncated { expected_bytes, found_bytes, path } => {
                let whole = if len < 32 { 32 } else { bytes.len() };
                assert_eq!((expected_bytes, found_bytes), (whole as u64, len as u64));
                assert_eq!(path, here());
            }
            other => panic!("{len} bytes: {other}"),
        }
    }
}

#[test]
fn bytes_after_the_end_are_noticed() {
    let (_, mut bytes) = sample();
    let end = bytes.len() as u64;
    bytes.push(0);
    assert!(matches!(read(&bytes), Err(SnapshotError::Corrupt { offset, .. }) if offset == end));
}

#[test]
fn a_newer_format_is_told_from_a_corrupt_one() {
    let (_, mut bytes) = sample();
    bytes[8] = 2;
    assert!(matches!(read(&bytes), Err(SnapshotError::Corrupt { offset: 0, .. })));
    // A later format keeps the header's length and its checksum, and may do anything behind it.
    let header = crc(&bytes[..28]).to_le_bytes();
    bytes[28..32].copy_from_slice(&header);
    bytes.truncate(40);
    let error = read(&bytes).expect_err("it is newer");
    assert!(matches!(error, SnapshotError::Newer { version: 2, .. }), "{error}");
    assert_eq!(error.hint().unwrap(), "read it with the heaptap that wrote it, or a later one");
}

#[test]
fn claims_that_the_file_cannot_hold_are_refused() {
    let (_, bytes) = sample();
    for entry in (32..32 + 32 * u32_at(&bytes, 12) as usize).step_by(32) {
        for claim in [u64::MAX, 1 << 40, 1 << 30] {
            let mut bytes = bytes.clone();
            bytes[entry + 16..entry + 24].copy_from_slice(&claim.to_le_bytes());
            seal(&mut bytes);
            let error = read(&bytes).expect_err("no section decodes to so much");
            assert!(matches!(error, SnapshotError::Corrupt { .. }), "{error}");
        }
    }
    let mut many = bytes.clone();
    many[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    seal(&mut many);
    assert!(matches!(read(&many), Err(SnapshotError::Corrupt { .. })));
}

#[test]
fn contents_that_no_writer_writes_are_refused() {
    let (_, bytes) = sample();
    let refused = |kind: u8, change: fn(&mut Vec<u8>), says: &str| {
        let error = read(&forge(&bytes, section_of(&bytes, kind), change)).expect_err(says);
        let SnapshotError::Corrupt { what, .. } = &error else { panic!("{error}") };
        assert!(what.contains(says), "{what}");
    };
    refused(1, |json| json[0] = b'x', "summary");
    refused(2, |classes| classes.truncate(2), "class");
    refused(3, |cached| cached.extend([0x7e, 0]), "Cached");
    refused(16, |class| class[1] = 0x7e, "RunClass");
    refused(17, |gaps| drop(gaps.splice(gaps.len() - 1.., [0xff, 0x7f])), "address");
    refused(17, |gaps| gaps.push(0), "RunAddress");
    refused(18, |serials| serials.truncate(serials.len() - 1), "RunSerial");
    refused(20, |states| states[0] = 3, "RunState");
    refused(20, |states| states.push(0), "RunState");
    refused(21, |words| words.truncate(8), "RunState");
    refused(21, |words| words.extend([0; 8]), "RunState");
    refused(33, |usable| usable.truncate(usable.len() - 1), "LargeUsable");
    refused(38, |cached| *cached.last_mut().unwrap() = 4, "LargeCached");
}

#[test]
fn a_file_replaces_snapshots_and_empty_files_only() {
    let directory = Directory::new("replace");
    let (snapshot, bytes) = sample();
    let path = directory.file("a.heaptap");
    let len = snapshot::write(&snapshot, &path, Overwrite::Snapshots).unwrap();
    assert_eq!(len, bytes.len() as u64);
    assert_eq!(snapshot::read(&path).unwrap(), snapshot);
    assert_eq!(snapshot::read_summary(&path).unwrap(), snapshot.summary);
    assert!(snapshot::is_snapshot(&path).unwrap());

    fs::write(&path, &bytes[..100]).unwrap();
    snapshot::write(&snapshot, &path, Overwrite::Snapshots).expect("a broken snapshot may be replaced");
    fs::write(&path, b"").unwrap();
    snapshot::write(&snapshot, &path, Overwrite::Snapshots).expect("an empty file may be replaced");

    let letter = directory.file("letter.txt");
    fs::write(&letter, b"precious").unwrap();
    let error = snapshot::write(&snapshot, &letter, Overwrite::Snapshots).expect_err("it is no snapshot");
    assert!(matches!(error, SnapshotError::Occupied { replaceable: true, .. }), "{error}");
    assert_eq!(fs::read(&letter).unwrap(), b"precious");
    snapshot::write(&snapshot, &letter, Overwrite::AnyFile).unwrap();
    assert_eq!(snapshot::read(&letter).unwrap(), snapshot);
    assert_eq!(directory.names(), ["a.heaptap", "letter.txt"]);
}

#[test]
fn no_file_is_written_where_none_can_be() {
    let directory = Directory::new("nowhere");
    let (mut snapshot, _) = sample();
    let overwrite = Overwrite::AnyFile;
    let error = snapshot::write(&snapshot, &directory.0, overwrite).expect_err("it is a directory");
    assert!(matches!(error, SnapshotError::Occupied { replaceable: false, .. }), "{error}");
    let error = snapshot::write(&snapshot, Path::new("/dev/null"), overwrite).expect_err("it is a device");
    assert!(matches!(error, SnapshotError::Occupied { replaceable: false, .. }), "{error}");
    let error = snapshot::write(&snapshot, &directory.file("no/where"), overwrite).expect_err("no directory");
    assert!(matches!(&error, SnapshotError::Io { action: "write", .. }), "{error}");
    assert!(error.hint().is_some());

    snapshot.summary.allocators[0].live_blocks += 1;
    let error = snapshot::write(&snapshot, &directory.file("a"), overwrite).expect_err("it is inconsistent");
    assert!(matches!(error, SnapshotError::Inconsistent { .. }), "{error}");
    assert!(error.to_string().contains("live blocks"), "{error}");
    assert_eq!(directory.names(), Vec::<String>::new());
}

#[test]
fn a_link_stays_a_link() {
    let directory = Directory::new("link");
    let (snapshot, _) = sample();
    let (file, link) = (directory.file("monday.heaptap"), directory.file("latest.heaptap"));
    snapshot::write(&snapshot, &file, Overwrite::Snapshots).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    fs::write(&file, b"").unwrap();
    snapshot::write(&snapshot, &link, Overwrite::Snapshots).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(snapshot::read(&file).unwrap(), snapshot);
}

#[test]
fn what_is_no_snapshot_is_named() {
    let directory = Directory::new("other");
    let core = directory.file("core");
    fs::write(&core, b"\x7fELF and then some").unwrap();
    assert!(!snapshot::is_snapshot(&core).unwrap());
    let error = snapshot::read(&core).expect_err("it is a core");
    assert!(matches!(&error, SnapshotError::NotSnapshot { found, .. } if found.contains("ELF")), "{error}");
    assert_eq!(error.path(), core);
    let error = snapshot::read(&directory.0).expect_err("it is a directory");
    assert!(matches!(&error, SnapshotError::NotSnapshot { found, .. } if found == "a directory"), "{error}");
    let error = snapshot::read(&directory.file("nothing")).expect_err("there is none");
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
}

#[test]
fn many_runs_take_many_groups_and_few_bytes() {
    let class = RunClass { block_bytes: 32, run_bytes: 4096, blocks: 128 };
    let mut liveness = Liveness::new(vec![class]);
    let (runs, mut random) = (100_000, Random(3));
    let (mut live_blocks, mut holes) = (0, 0);
    for run in 0..runs {
        let holed = random.below(20) == 0;
        let live = if holed { [u64::MAX << random.below(64), u64::MAX] } else { [u64::MAX; 2] };
        live_blocks += live.iter().map(|word| u64::from(word.count_ones())).sum::<u64>();
        holes += u64::from(holed);
        let (address, serial) = (0x7000_0000_0000 + run * 4096 + (run / 9999) * 8192, run);
        liveness.run(Run { address, class: 0, shard: 0, serial, live: &live, cached: &[] });
    }
    let row = ClassRow {
        size_bytes: 32,
        live_blocks,
        live_bytes: live_blocks * 32,
        runs,
        run_bytes: runs * 4096,
        ..ClassRow::default()
    };
    let mut allocator = blocks::allocator("jemalloc", "");
    (allocator.live_blocks, allocator.live_bytes) = (live_blocks, live_blocks * 32);
    allocator.shards = vec![Shard { classes: vec![row], ..Shard::default() }];
    let summary = Summary { schema: SCHEMA.to_owned(), allocators: vec![allocator], ..Summary::default() };
    let snapshot = Snapshot::checked(summary, vec![liveness]).unwrap();
    let bytes = snapshot::to_bytes(&snapshot, here()).unwrap();
    assert_eq!(read(&bytes).unwrap(), snapshot);
    assert!(u32_at(&bytes, 12) > 20, "several groups of runs");
    // A place among the runs, and a number of holes, are the least that a run with holes must tell.
    assert!((bytes.len() as u64) < holes * 16 + 4096, "{} bytes for {holes} runs with holes", bytes.len());
}
