//! Compressed cores: the first byte of the input names the compression, the rest follows its first bytes in a file.

#![no_main]

use heaptap::capture::core_file;
use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;

/// What files of zstd, gzip, xz and lz4 begin with. A part of a file that has no such beginning is read as a core.
const BEGINNINGS: [&[u8]; 4] = [
    &[0x28, 0xb5, 0x2f, 0xfd],
    &[0x1f, 0x8b],
    &[0xfd, b'7', b'z', b'X', b'Z', 0],
    &[0x04, 0x22, 0x4d, 0x18],
];

fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let beginning = BEGINNINGS[usize::from(*kind) % BEGINNINGS.len()];
    // A stream that is whole is not given a second beginning.
    let bytes = if rest.starts_with(beginning) { rest.to_vec() } else { [beginning, rest].concat() };
    let path = PathBuf::from(format!("/dev/shm/heaptap-fuzz-{}.core", std::process::id()));
    std::fs::write(&path, bytes).expect("there is room in memory");
    if let Err(error) = core_file::open(&path) {
        assert!(error.to_string().contains("heaptap-fuzz"), "{error}");
    }
});
