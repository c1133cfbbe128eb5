//! Where the build script has put the C ledger that is linked with this package's jemalloc.

/// Path of the executable.
pub const LEDGER: &str = env!("LEDGER");
