//! The walkers over a core whose memory lies: the input is a list of changes to a real core.
//!
//! `HEAPTAP_FUZZ_CORE` is the path of that core, not compressed. A change is twelve bytes: where (four, modulo the
//! length), and the word to put there (eight). So a small input can do anything to a large heap.

#![no_main]

use heaptap::target::{Options, Target};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;

const CHANGE_BYTES: usize = 12;

fn core() -> &'static [u8] {
    static CORE: OnceLock<Vec<u8>> = OnceLock::new();
    CORE.get_or_init(|| {
        let path = std::env::var_os("HEAPTAP_FUZZ_CORE").expect("HEAPTAP_FUZZ_CORE names a core");
        std::fs::read(path).expect("HEAPTAP_FUZZ_CORE can be read")
    })
}

fn changed(input: &[u8]) -> Vec<u8> {
    let mut bytes = core().to_vec();
    for change in input.chunks_exact(CHANGE_BYTES) {
        let (place, word) = change.split_at(4);
        let place = place.iter().rev().fold(0, |place, byte| place << 8 | usize::from(*byte));
        let start = place % (bytes.len() - word.len());
        bytes[start..start + word.len()].copy_from_slice(word);
    }
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Ok(target) = Target::from_bytes(changed(input), Path::new("fuzzed.core")) else { return };
    let target = target.below(Path::new("/nowhere"));
    // That nothing can be walked, or that nothing agrees with itself, is an answer too.
    let _ = target.snapshot(&Options::default());
    let _ = target.stacks(&Options::default(), false);
});
