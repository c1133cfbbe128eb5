//! Allocators that are recognised, by the names of their modules, but not walked.

use crate::module::Module;

/// Parts of module names and what they stand for.
const NAMES: [(&str, &str); 6] = [
    ("libtcmalloc", "gperftools tcmalloc"),
    ("libsnmalloc", "snmalloc"),
    ("libhoard", "Hoard"),
    ("libscudo", "Scudo"),
    ("libtbbmalloc", "oneTBB malloc"),
    ("ld-musl", "musl malloc"),
];

/// Names of the allocators that the modules of a target bring.
pub fn recognise(modules: &[Module]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for module in modules {
        let name = module.name();
        for (part, allocator) in NAMES {
            let sentence = format!("{allocator} in {name}, which this version does not walk yet");
            if name.starts_with(part) && !found.contains(&sentence) {
                found.push(sentence);
            }
        }
    }
    found
}
