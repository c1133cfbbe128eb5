//! Which rule holds at an address, remembered in a table of fixed size.

use super::rule::RuleId;

/// What is known of an address of code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// This rule holds.
    Rule(RuleId),
    /// No rule does: its code says nothing of itself.
    Nothing,
}

/// Places in the table: stacks of a process go through some thousand addresses.
const SLOTS: usize = 1 << 14;

/// The last answer for each slot; an address has one slot, and a newer one with the same slot takes its place.
#[derive(Debug)]
pub struct RuleCache {
    slots: Vec<Option<(u64, Known)>>,
    hits: u64,
    misses: u64,
}

impl Default for RuleCache {
    fn default() -> Self {
        Self { slots: vec![None; SLOTS], hits: 0, misses: 0 }
    }
}

impl RuleCache {
    /// What was found out about the address before, if it is still remembered.
    #[inline]
    pub fn get(&mut self, address: u64) -> Option<Known> {
        match self.slots.get(slot(address)) {
            Some(Some((known, answer))) if *known == address => {
                self.hits += 1;
                Some(*answer)
            }
            _ => {
                self.misses += 1;
                None
            }
        }
    }

    /// Remembers what was found out.
    pub fn put(&mut self, address: u64, answer: Known) {
        if let Some(slot) = self.slots.get_mut(slot(address)) {
            *slot = Some((address, answer));
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots.fill(None);
    }

    /// Questions answered and not answered so far.
    pub const fn hits_and_misses(&self) -> (u64, u64) {
        (self.hits, self.misses)
    }
}

#[inline]
const fn slot(address: u64) -> usize {
    // The golden ratio spreads neighbours; its high bits depend on all bits of the address.
    (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.trailing_zeros())) as usize
}
