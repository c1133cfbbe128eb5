//! What can be wrong between the blocks of a moment and its summary.

use crate::allocator::RunClass;

/// A contradiction within one moment. It is a fault of the walk or of a file, never of the target alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// A class of runs that no run can have.
    #[error("run class {index} cannot be: {} blocks of {} bytes", class.blocks, class.block_bytes)]
    RunClass {
        /// Its index.
        index: usize,
        /// What it says.
        class: RunClass,
    },
    /// The columns of the run table belong to different numbers of runs.
    #[error("the columns of the run table differ in length")]
    Columns,
    /// More than one table takes.
    #[error("{count} runs and large blocks were left out because the table was full")]
    LeftOut {
        /// How many.
        count: u64,
    },
    /// Two runs or two large blocks at one address, or a table that is not sorted.
    #[error("{address:#x} follows an address that is not lower")]
    Order {
        /// The second one.
        address: u64,
    },
    /// A run of a class that is not listed.
    #[error("the run at {address:#x} is of class {class}, which is not listed")]
    UnknownClass {
        /// Its first block.
        address: u64,
        /// Its class index.
        class: u16,
    },
    /// A run whose live bits are not those of its class.
    #[error("the run at {address:#x} has live bits that its class has no blocks for")]
    Words {
        /// Its first block.
        address: u64,
    },
    /// Cached blocks that are listed twice or not in order.
    #[error("the list of cached blocks is not in order")]
    CachedOrder,
    /// A cached block that lies in no run.
    #[error("cached block {block} of a run at {address:#x} does not exist")]
    CachedNowhere {
        /// The run's first block.
        address: u64,
        /// Index in the run.
        block: u32,
    },
    /// A block that is in use and in a thread cache.
    #[error("block {block} of the run at {address:#x} is both live and cached")]
    CachedAndLive {
        /// The run's first block.
        address: u64,
        /// Index in the run.
        block: u32,
    },
    /// Sizes that no address space can hold.
    #[error("blocks add up to {bytes} bytes, more than an address space has")]
    Sum {
        /// The sum.
        bytes: u128,
    },
    /// A summary that says something else than its blocks.
    #[error("{figure}: the summary says {summary}, the blocks add up to {blocks}")]
    Total {
        /// Which figure.
        figure: String,
        /// The summary's value.
        summary: u64,
        /// The sum over blocks.
        blocks: u64,
    },
    /// Not one table of blocks for each allocator.
    #[error("{summaries} allocators are summarised, {tables} have tables of blocks")]
    Allocators {
        /// Allocators in the summary.
        summaries: usize,
        /// Tables of blocks.
        tables: usize,
    },
    /// One of the above, in the named allocator.
    #[error("{allocator}: {fault}")]
    In {
        /// The allocator's name.
        allocator: String,
        /// What is wrong.
        #[source]
        fault: Box<Self>,
    },
}

impl Inconsistency {
    /// The next thing to do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::LeftOut { .. } | Self::Sum { .. } => "the heap is beyond what one snapshot takes",
            Self::In { fault, .. } => return fault.hint(),
            _ => {
                "take the snapshot anew; if it happens again, report it as a defect with the output of `heaptap info`"
            }
        };
        Some(hint.to_owned())
    }
}
