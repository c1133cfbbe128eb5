//! Headers and notes of cores: the input is the file. Opening it gives a core or an error, whatever it holds.

#![no_main]

use heaptap::capture::core_file;
use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = core_file::from_bytes(bytes.to_vec(), Path::new("fuzzed.core")) {
        assert!(error.to_string().contains("fuzzed.core"), "{error}");
    }
});
