//! Proof: whether what a layout makes of a target's pages can be true.

use super::inventory::Inventory;
use super::layout::Layout;
use super::lists::Lists;
use super::page::Page;
use crate::memory::{Memory, MemoryExt};

/// Pages looked at before a layout is believed.
const SAMPLE_MAX: usize = 2000;
/// Looks at a page that changes while it is looked at.
const LOOKS: usize = 8;

/// How well a layout fits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// Pages looked at.
    pub checked: u64,
    /// Of those, how many kept every invariant.
    pub kept: u64,
    /// Of those, how many were never found at rest: they say nothing.
    pub changing: u64,
    /// Of those, how many had a list with a block in it.
    pub with_lists: u64,
    /// The first invariant that was broken, and where.
    pub first_failure: Option<String>,
}

impl Proof {
    /// Looks at the pages of `inventory`: records, lists block by block, and the counters of both.
    pub fn of(memory: &dyn Memory, layout: &Layout, inventory: &Inventory) -> Self {
        let mut proof = Self::default();
        for page in inventory.pages.iter().take(SAMPLE_MAX) {
            proof.checked += 1;
            proof.with_lists += u64::from(page.has_lists());
            match look(memory, layout, *page) {
                Look::Kept => proof.kept += 1,
                Look::Changing => proof.changing += 1,
                Look::Broken(why) => {
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

    /// Whether the layout can be believed. The target runs: a few pages may be in the middle of a change, and of a busy one
    /// up to half may never be found at rest.
    pub const fn holds(&self) -> bool {
        const BROKEN_PER_KEPT: u64 = 20;
        let broken = self.checked - self.kept - self.changing;
        self.kept > 0 && self.changing <= self.kept && broken * BROKEN_PER_KEPT <= self.kept
    }
}

/// What a page shows of a layout.
enum Look {
    Kept,
    Broken(&'static str),
    Changing,
}

/// Looks at a page until its record is the same before and after: what contradicts itself then is no page.
fn look(memory: &dyn Memory, layout: &Layout, mut page: Page) -> Look {
    for _ in 0..LOOKS {
        let Some(why) = contradiction(memory, &page) else { return Look::Kept };
        match again(memory, layout, &page) {
            Some(now) if now != page => page = now,
            // One that is no longer in use tells nothing either.
            None if memory.read_u64(page.record).is_ok() => return Look::Changing,
            _ => return Look::Broken(why),
        }
    }
    Look::Changing
}

fn contradiction(memory: &dyn Memory, page: &Page) -> Option<&'static str> {
    page.contradiction().or_else(|| {
        let lists = Lists::of(memory, page, &[], &mut |_| {});
        let differs = lists.difference(page) > 0 || lists.contradictory > 0;
        let counters = differs.then_some("the lists of a page and its counters contradict each other");
        lists.broken.map(|broken| broken.why).or(counters)
    })
}

/// The page as its record says now.
fn again(memory: &dyn Memory, layout: &Layout, page: &Page) -> Option<Page> {
    let bytes = memory.read_vec(page.record, usize::try_from(layout.page.bytes).ok()?).ok()?;
    Page::parse(layout, page.record, &bytes, page.area)
}
