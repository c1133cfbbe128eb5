//! Recording: which calls allocate what stays, learnt from a bounded number of sampled allocations.
//!
//! The thread caches of an allocator have a word that moves with each allocation and each free of one size class by
//! one thread. A [`Recorder`] watches such words of the classes that grow, one thread at a time and never for longer
//! than the budget allows; each hit gives the block and the stack. What became of the block is read later. It knows
//! places, contents and stacks, and refuses to know what leaks: [`crate::attribution`] decides that.

mod arm;
pub mod attendant;
mod attributed;
pub mod base;
mod budget;
mod composition;
pub mod file;
pub mod kept;
mod large;
mod places;
mod recorder;
pub mod schema;
pub mod session;
mod store;
mod touches;
mod watch;

pub use arm::{HitKind, PcTable};
pub use budget::Budget;
pub use composition::{ClassComposition, compositions};
pub use kept::Kept;
pub use recorder::{Recorder, RecordingError, STACK_LEN_BYTES, Sample, Tally};
pub use touches::{Touch, Touches};
