//! What each path has allocated and freed, told to the main thread.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// All paths, each with whether it leaks.
pub const SITES: [(&str, bool); 16] = [
    ("ReadHeader", false),
    ("SplitFields", false),
    ("LookUpUser", false),
    ("DrawImage", false),
    ("MakeBid", false),
    ("FormatLine", false),
    ("CountEvent", false),
    ("QueueTask", false),
    ("FetchCreative", false),
    ("PackReply", false),
    ("KeepSession", false),
    ("RenderPage", false),
    ("ResolveHost", false),
    ("FillCache", false),
    ("RankResults", true),
    ("SpoolAudit", true),
];

/// A number that one thread writes.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub struct Tally {
    pub born: Count,
    pub died: Count,
}

/// By the order of [`SITES`].
#[derive(Default)]
pub struct Tallies(pub [Tally; SITES.len()]);
