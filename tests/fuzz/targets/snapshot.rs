//! Snapshot files. An input that begins as one is the file; any other is a list of changes to what the sections of a
//! real snapshot decode to, with right lengths and checksums.
//!
//! `HEAPTAP_FUZZ_SNAPSHOT` is the path of that snapshot. A change is twelve bytes: the section (one, modulo their
//! number), where (three, modulo its length), and the word to put there (eight).

#![no_main]

use heaptap::snapshot;
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;

const MAGIC: &[u8] = b"\x89heaptap";
const HEADER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 32;
const CHANGE_BYTES: usize = 12;

/// A section: kind, allocator and group as they are in its entry, and what it decodes to.
type Section = ([u8; 8], Vec<u8>);

fn sections() -> &'static [Section] {
    static SECTIONS: OnceLock<Vec<Section>> = OnceLock::new();
    SECTIONS.get_or_init(|| {
        let path = std::env::var_os("HEAPTAP_FUZZ_SNAPSHOT").expect("HEAPTAP_FUZZ_SNAPSHOT names a snapshot");
        decoded(&std::fs::read(path).expect("HEAPTAP_FUZZ_SNAPSHOT can be read"))
    })
}

fn decoded(file: &[u8]) -> Vec<Section> {
    let count = u32::from_le_bytes(file[12..16].try_into().expect("four bytes")) as usize;
    let mut start = HEADER_BYTES + count * ENTRY_BYTES;
    let entries = file[HEADER_BYTES..start].chunks_exact(ENTRY_BYTES);
    let section = |entry: &[u8]| {
        let len_bytes = u64::from_le_bytes(entry[8..16].try_into().expect("eight bytes")) as usize;
        let encoded = &file[start..start + len_bytes];
        start += len_bytes;
        (entry[..8].try_into().expect("eight bytes"), zstd::decode_all(encoded).expect("it is whole"))
    };
    entries.map(section).collect()
}

fn encoded(sections: &[Section]) -> Vec<u8> {
    let (mut directory, mut body) = (Vec::new(), Vec::new());
    for (key, content) in sections {
        let packed = zstd::bulk::compress(content, 1).expect("it is compressed in memory");
        directory.extend(key);
        directory.extend((packed.len() as u64).to_le_bytes());
        directory.extend((content.len() as u64).to_le_bytes());
        directory.extend(crc32fast::hash(&packed).to_le_bytes());
        directory.extend([0; 4]);
        body.extend(packed);
    }
    let mut file = MAGIC.to_vec();
    file.extend(1_u32.to_le_bytes());
    file.extend((sections.len() as u32).to_le_bytes());
    file.extend(((HEADER_BYTES + directory.len() + body.len()) as u64).to_le_bytes());
    file.extend(crc32fast::hash(&directory).to_le_bytes());
    file.extend(crc32fast::hash(&file).to_le_bytes());
    [file, directory, body].concat()
}

fn changed(input: &[u8]) -> Vec<u8> {
    let mut sections = sections().to_vec();
    for change in input.chunks_exact(CHANGE_BYTES) {
        let index = usize::from(change[0]) % sections.len();
        let content = &mut sections[index].1;
        let place = change[1..4].iter().rev().fold(0, |place, byte| place << 8 | usize::from(*byte));
        let len_bytes = content.len().min(8);
        let start = place % (content.len() - len_bytes + 1);
        content[start..start + len_bytes].copy_from_slice(&change[4..4 + len_bytes]);
    }
    encoded(&sections)
}

fuzz_target!(|input: &[u8]| {
    let bytes = if input.starts_with(MAGIC) { input.to_vec() } else { changed(input) };
    let read = snapshot::from_bytes(&bytes, Path::new("fuzzed.heap"));
    // No change at all must be read: else nothing is tested but the frame.
    assert!(read.is_ok() || !input.is_empty(), "{:?}", read.err());
});
