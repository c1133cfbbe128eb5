//! Does a recording file give back what was written, and does every other file give a clear error?

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use heaptap::growth::schema::{Growth, Row};
use heaptap::recording::file::{self, RecordingFileError};
use heaptap::recording::kept::{KeptGrown, KeptSample, SCHEMA};
use heaptap::recording::{Kept, schema::Cost};
use heaptap::stacks::schema::Frame;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;

fn here() -> &'static Path {
    Path::new("some.rec")
}

fn read(bytes: &[u8]) -> Result<Kept, RecordingFileError> {
    file::from_bytes(bytes, here())
}

/// A leak of 20 blocks, and a site whose blocks come and go.
fn sample() -> Kept {
    let stack = |function: &str| vec![Frame { function: Some(function.to_owned()), ..Frame::default() }];
    let one = |index: u64, stack: usize| KeptSample {
        tid: 7,
        at_us: index * 10,
        address: 0x7f00_0000 + index * 112,
        size_bytes: 112,
        stack,
        weight: 1.5,
        is_old: true,
        type_index: (stack == 0).then_some(1),
        allocator: (stack == 0).then(|| "jemalloc".to_owned()),
        shard: (stack == 0).then_some(3),
        ..KeptSample::default()
    };
    let row = Row { size_bytes: 112, delta_blocks: 20, delta_bytes: 2240, ..Row::default() };
    Kept {
        schema: SCHEMA.to_owned(),
        seconds: 30.0,
        cost: Cost { hits: 60, ..Cost::default() },
        growth: Growth { rows: vec![row], total_delta_bytes: 2240, ..Growth::default() },
        types: vec!["0 int".to_owned(), "ptr ptr".to_owned()],
        grown: vec![KeptGrown { size_bytes: 112, type_index: 1, delta_blocks: 20.0 }],
        stacks: vec![stack("leak"), stack("churn")],
        threads: BTreeMap::from([(7, "worker".to_owned())]),
        samples: (0..30).map(|index| one(index, 0)).chain((30..90).map(|index| one(index, 1))).collect(),
        ..Kept::default()
    }
}

/// The file of some text, with every checksum as it must be.
fn file_of(text: &[u8], claimed_bytes: u64) -> Vec<u8> {
    let encoded = zstd::bulk::compress(text, 1).unwrap();
    let mut bytes = b"\x89heaprec".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(claimed_bytes.to_le_bytes());
    bytes.extend((encoded.len() as u64).to_le_bytes());
    bytes.extend(crc(&encoded).to_le_bytes());
    bytes.extend(crc(&bytes).to_le_bytes());
    bytes.extend(encoded);
    bytes
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

#[test]
fn what_was_written_is_read_and_attributed_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rec");
    file::write(&sample(), &path, false).unwrap();
    let kept = file::read(&path).unwrap();
    assert_eq!(kept, sample());
    let recording = kept.attribute();
    assert_eq!(recording.sites.len(), 1);
    let site = &recording.sites[0];
    assert_eq!((site.delta_blocks, site.delta_bytes, site.type_name.as_str()), (20, 2240, "ptr ptr"));
    assert_eq!(site.frames[0].function.as_deref(), Some("leak"));
    assert_eq!((site.threads.as_slice(), site.shards.as_slice()), (&["worker".to_owned()][..], &[3][..]));
    assert_eq!(recording.unattributed_bytes, 0);
}

#[test]
fn copies_of_one_line_are_one_site_and_nameless_places_are_not() {
    let at = |line, address| Frame {
        function: Some("serve".to_owned()),
        file: Some("main.rs".to_owned()),
        line: Some(line),
        address: Some(address),
        ..Frame::default()
    };
    let nameless = |address| Frame { address: Some(address), ..Frame::default() };
    let mut kept = sample();
    kept.stacks = vec![
        vec![at(7, 1)],
        vec![at(7, 2)],
        vec![at(8, 3)],
        vec![nameless(4)],
        vec![nameless(5)],
        vec![nameless(4)],
    ];
    for (sample, stack) in kept.samples.iter_mut().zip((0..6).cycle()) {
        sample.stack = stack;
    }
    kept.join_alike();
    assert_eq!(kept.stacks, [vec![at(7, 1)], vec![at(8, 3)], vec![nameless(4)], vec![nameless(5)]]);
    let stacks: Vec<usize> = kept.samples.iter().take(6).map(|sample| sample.stack).collect();
    assert_eq!(stacks, [0, 0, 1, 2, 3, 2]);
}

#[test]
fn a_file_by_the_description_is_read() {
    let text = serde_json::to_vec(&sample()).unwrap();
    assert_eq!(read(&file_of(&text, text.len() as u64)).unwrap(), sample());
}

#[test]
fn only_recordings_and_empty_files_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rec");
    std::fs::write(&path, "").unwrap();
    file::write(&sample(), &path, false).unwrap();
    file::write(&sample(), &path, false).unwrap();
    std::fs::write(&path, "precious").unwrap();
    let refused = file::write(&sample(), &path, false).unwrap_err();
    assert!(matches!(refused, RecordingFileError::Occupied { .. }) && refused.hint().is_some());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    file::write(&sample(), &path, true).unwrap();
    assert!(file::write(&sample(), folder.path(), true).is_err(), "a folder is not replaced");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn what_cannot_be_is_refused() {
    let damaged = |change: &dyn Fn(&mut Kept)| {
        let mut kept = sample();
        change(&mut kept);
        let text = serde_json::to_vec(&kept).unwrap();
        read(&file_of(&text, text.len() as u64)).unwrap_err().to_string()
    };
    assert!(damaged(&|kept| kept.schema.clear()).contains("schema"));
    assert!(damaged(&|kept| kept.samples[4].stack = 2).contains("sample 4 has stack 2 of 2"));
    assert!(damaged(&|kept| kept.samples[5].type_index = Some(9)).contains("sample 5"));
    assert!(damaged(&|kept| kept.samples[6].weight = -1.0).contains("weight"));
    assert!(damaged(&|kept| kept.grown[0].type_index = usize::MAX).contains("growth"));
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    assert!(matches!(read(&file_of(&nested, nested.len() as u64)), Err(RecordingFileError::Corrupt { .. })));
    for claimed in [0, 5, 1 << 29, 1 << 40, u64::MAX] {
        assert!(
            matches!(read(&file_of(b"{}", claimed)), Err(RecordingFileError::Corrupt { .. })),
            "{claimed}"
        );
    }
    // A few bytes that would become very many.
    let bomb = vec![b' '; 64 << 20];
    assert!(matches!(read(&file_of(&bomb, 10)), Err(RecordingFileError::Corrupt { .. })));
}

#[test]
fn other_files_and_later_formats_are_told() {
    assert!(matches!(read(b""), Err(RecordingFileError::NotRecording { .. })));
    assert!(matches!(read(b"\x89heaptap\x01\0\0\0"), Err(RecordingFileError::NotRecording { .. })));
    assert!(matches!(read(b"\x7fELF"), Err(RecordingFileError::NotRecording { .. })));
    let mut later = file_of(b"{}", 2);
    later[8] = 2;
    let sum = crc(&later[..36]).to_le_bytes();
    later[36..40].copy_from_slice(&sum);
    assert!(matches!(read(&later), Err(RecordingFileError::Newer { version: 2, .. })));
}

#[test]
fn files_that_end_early_or_late_are_told() {
    let whole = file::to_bytes(&sample()).unwrap();
    for len in 8..whole.len() {
        let Err(error) = read(&whole[..len]) else { panic!("{len} of {} bytes", whole.len()) };
        assert!(matches!(error, RecordingFileError::Truncated { .. }), "{len}: {error}");
    }
    let longer = [whole, vec![0]].concat();
    assert!(matches!(read(&longer), Err(RecordingFileError::Corrupt { .. })));
}

proptest! {
    #[test]
    fn no_flipped_bit_is_believed(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let mut bytes = file::to_bytes(&sample()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn any_text_inside_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = read(&file_of(text.as_bytes(), text.len() as u64));
    }
}
