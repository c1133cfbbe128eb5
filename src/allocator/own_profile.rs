//! What an allocator has sampled itself, while the program ran: blocks in use, each with the stack that allocated it.

/// An allocator's own profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnProfile {
    /// Stacks that have a sampled block in use.
    pub stacks: Vec<SampledStack>,
    /// Bytes that are allocated between two samples on the average; `None` where that is not known.
    pub period_bytes: Option<u64>,
    /// Sampled blocks whose stack could not be read, or contradicts itself.
    pub broken: u64,
    /// Counters of the allocator that were compared with the blocks found.
    pub counters_compared: u64,
    /// Of those, how many differed.
    pub counters_differing: u64,
}

/// One stack that the allocator kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampledStack {
    /// Return addresses, the newest first.
    pub return_addresses: Vec<u64>,
    /// The sampled blocks in use that it allocated.
    pub blocks: Vec<SampledBlock>,
}

/// One sampled block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SampledBlock {
    /// Its address.
    pub address: u64,
    /// Its usable bytes.
    pub usable_bytes: u64,
    /// The shard that owns it.
    pub shard: u32,
}
