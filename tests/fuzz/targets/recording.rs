//! Recording files. An input that begins as one is the file; any other is the text that one holds, with right checksums.

#![no_main]

use heaptap::recording::file;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

const MAGIC: &[u8] = b"\x89heaprec";

/// The file of some text, as the description of the format says.
fn file_of(text: &[u8]) -> Vec<u8> {
    let encoded = zstd::bulk::compress(text, 1).expect("it is compressed in memory");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend((encoded.len() as u64).to_le_bytes());
    bytes.extend(crc32fast::hash(&encoded).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(encoded);
    bytes
}

fuzz_target!(|input: &[u8]| {
    let bytes = if input.starts_with(MAGIC) { input.to_vec() } else { file_of(input) };
    if let Ok(kept) = file::from_bytes(&bytes, Path::new("fuzzed.rec")) {
        file::to_bytes(&kept).expect("what was read can be written");
    }
});
