//! The central lists: for each size class its spans, and the transfer cache in front of them.

use super::layout::central;
use super::size_map::SizeMap;
use super::span::Span;
use crate::allocator::Data;
use crate::memory::{Memory, MemoryExt, u32_at, u64_at};
use heaptap_platform::AddressRange;

/// All central lists of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CentralLists {
    /// Where that of class 0 is.
    pub address: u64,
    /// Number of classes, the first of which is none.
    pub classes: u64,
}

/// One class's list at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CentralList {
    /// Where it is.
    pub address: u64,
    /// Its size class.
    pub class: u64,
    /// Spans on its lists by its own count.
    pub spans: u64,
    /// Free objects in those by its own count.
    pub free: u64,
    /// The first objects of the chains in its transfer cache.
    pub chains: Vec<u64>,
}

impl CentralLists {
    /// Looks for the array in a module's data: at equal distances each list has the number of its class.
    pub fn find(data: &Data, memory: &dyn Memory, sizes: &SizeMap) -> Option<Self> {
        let classes = sizes.classes.len() as u64;
        let is_array = |lists: &Self| {
            lists.numbers().skip(1).all(|(class, list)| {
                let at = list.checked_add(central::CLASS);
                at.is_some_and(|at| memory.read_u64(at).is_ok_and(|number| number == class))
            })
        };
        let ones = data.words().filter(|(_, word)| *word == 1);
        let lists = ones.filter_map(|(address, _)| {
            let address = address.checked_sub(central::CLASS + central::STRIDE)?;
            Some(Self { address, classes })
        });
        let mut lists = lists.filter(|lists| data.has_room(lists.address, lists.range().len_bytes()));
        lists.find(is_array)
    }

    /// The array.
    pub fn range(&self) -> AddressRange {
        let len_bytes = self.classes.saturating_mul(central::STRIDE);
        AddressRange { start: self.address, end: self.address.saturating_add(len_bytes) }
    }

    /// Class numbers and where their lists are, class 0 too.
    fn numbers(&self) -> impl Iterator<Item = (u64, u64)> {
        let address = self.address;
        (0..self.classes).map(move |class| (class, address.saturating_add(class * central::STRIDE)))
    }

    /// The locks of all lists.
    pub fn locks(&self) -> impl Iterator<Item = u64> {
        self.numbers().map(|(_, list)| list)
    }

    /// All lists but that of class 0.
    pub fn all(&self, memory: &dyn Memory) -> Vec<CentralList> {
        let range = self.range();
        let bytes = memory.read_vec_sparse(range.start, usize::try_from(range.len_bytes()).unwrap_or(0));
        let list = |(class, address): (u64, u64)| {
            let start = usize::try_from(address - self.address).ok()?;
            CentralList::parse(class, address, bytes.get(start..)?)
        };
        self.numbers().skip(1).filter_map(list).collect()
    }

    /// Some spans of different classes that are on lists.
    pub fn some_spans(&self, memory: &dyn Memory) -> Vec<Span> {
        const SPANS_MAX: usize = 8;
        let heads = self.numbers().skip(1).flat_map(|(class, list)| {
            [central::NONEMPTY, central::EMPTY].map(|head| (class, list.saturating_add(head)))
        });
        let first = |(class, head): (u64, u64)| {
            let next = memory.read_u64(head.checked_add(super::layout::span::NEXT as u64)?).ok()?;
            let span = if next == head { None } else { Span::read(memory, next) };
            span.filter(|span| span.is_small() && span.class == class && span.length > 0)
        };
        heads.filter_map(first).take(SPANS_MAX).collect()
    }
}

impl CentralList {
    fn parse(class: u64, address: u64, bytes: &[u8]) -> Option<Self> {
        let word = |offset: u64| u64_at(bytes, usize::try_from(offset).ok()?);
        let used = u32_at(bytes, usize::try_from(central::SLOTS_USED).ok()?)?;
        let chains =
            (0..u64::from(used).min(central::SLOTS_MAX)).filter_map(|slot| word(central::SLOTS + slot * 16));
        Some(Self {
            address,
            class,
            spans: word(central::SPANS)?,
            free: word(central::FREE)?,
            chains: chains.collect(),
        })
    }
}
