//! Proof: whether what a layout makes of a target's pages can be true.

use super::inventory::Inventory;
use super::lists::Lists;
use crate::memory::Memory;

/// Pages looked at before a layout is believed.
const SAMPLE_MAX: usize = 2000;

/// How well a layout fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Pages looked at.
    pub checked: u64,
    /// Of those, how many kept every invariant.
    pub kept: u64,
    /// Of those, how many had a list with a block in it.
    pub with_lists: u64,
    /// The first invariant that was broken, and where.
    pub first_failure: Option<String>,
}

impl Proof {
    /// Looks at the pages of `inventory`: records, lists block by block, and the counters of both.
    pub fn of(memory: &dyn Memory, inventory: &Inventory) -> Self {
        let mut proof = Self::default();
        for page in inventory.pages.iter().take(SAMPLE_MAX) {
            proof.checked += 1;
            let why = page.contradiction().or_else(|| {
                let lists = Lists::of(memory, page, &[], &mut |_| {});
                proof.with_lists += u64::from(page.has_lists());
                let differs = lists.difference(page) > 0 || lists.contradictory > 0;
                let counters =
                    differs.then_some("the lists of a page and its counters contradict each other");
                lists.broken.map(|broken| broken.why).or(counters)
            });
            match why {
                None => proof.kept += 1,
                Some(why) => {
                    proof.first_failure.get_or_insert_with(|| format!("{why}, at {:#x}", page.record));
                }
            }
        }
        for (record, _) in inventory.broken.iter().take(SAMPLE_MAX) {
            proof.checked += 1;
            proof.first_failure.get_or_insert_with(|| format!("no page is at {record:#x}"));
        }
        proof
    }

    /// Whether the layout can be believed. The target runs: a few pages may be in the middle of a change.
    pub const fn holds(&self) -> bool {
        const CHANGING_PER_KEPT: u64 = 20;
        self.kept > 0 && (self.checked - self.kept) * CHANGING_PER_KEPT <= self.kept
    }
}
