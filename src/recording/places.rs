//! Where allocation functions return: places at which one register holds the block.
//!
//! Functions are found by their names, which shared libraries keep when they are stripped. Return instructions are found by
//! their byte: where that is a part of another instruction, a breakpoint is never hit.

use crate::memory::{Memory, MemoryExt};
use crate::module::Module;
use std::collections::BTreeSet;

/// Functions that return a block, without the prefixes that allocators put before them.
const NAMES: [&str; 10] = [
    "malloc",
    "calloc",
    "realloc",
    "memalign",
    "aligned_alloc",
    "valloc",
    "pvalloc",
    "mallocx",
    "rallocx",
    "reallocarray",
];
/// Prefixes that they are known by.
const PREFIXES: [&str; 7] = ["", "_rjem_", "je_", "mi_", "tc_", "__libc_", "tcmalloc_"];
/// C++ operators `new`, plain and for arrays, in all their forms.
const OPERATORS: [&str; 2] = ["_Znwm", "_Znam"];
/// Longest function that is looked at.
const FUNCTION_BYTES_MAX: u64 = 4096;
/// Most places of one function, and of all.
const PLACES_OF_FUNCTION_MAX: usize = 12;
const PLACES_MAX: usize = 128;
/// `ret`.
const RETURN: u8 = 0xc3;

/// The places in `module`; C++ operators only where they do not call one of the other functions.
pub fn return_places(module: &Module, with_operators: bool, memory: &dyn Memory) -> Vec<u64> {
    let mut places: BTreeSet<u64> = BTreeSet::new();
    for symbol in module.symbols() {
        let is_operator = OPERATORS.iter().any(|operator| symbol.name.starts_with(operator));
        if !(is_function(&symbol.name) || (with_operators && is_operator)) || symbol.size_bytes == 0 {
            continue;
        }
        let len_bytes = symbol.size_bytes.min(FUNCTION_BYTES_MAX);
        let code = memory.read_vec(symbol.address, usize::try_from(len_bytes).unwrap_or(0));
        let code = code.unwrap_or_default();
        let returns = (symbol.address..).zip(&code).filter(|(_, byte)| **byte == RETURN);
        places.extend(returns.map(|(address, _)| address).take(PLACES_OF_FUNCTION_MAX));
    }
    places.into_iter().take(PLACES_MAX).collect()
}

fn is_function(symbol: &str) -> bool {
    let name = symbol.split('@').next().unwrap_or(symbol);
    PREFIXES.iter().any(|prefix| name.strip_prefix(prefix).is_some_and(|rest| NAMES.contains(&rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_with_their_prefixes_and_versions() {
        for name in
            ["malloc", "_rjem_mallocx", "mi_calloc", "tc_memalign", "__libc_malloc", "malloc@@GLIBC_2.2.5"]
        {
            assert!(is_function(name), "{name}");
        }
        for name in ["malloc_usable_size", "free", "mymalloc", "je_mallctl"] {
            assert!(!is_function(name), "{name}");
        }
    }
}
