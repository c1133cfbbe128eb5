//! Small objects: which of a span's are free, by the lists that run through the free ones.
//!
//! A free object's first word is the link to the next. A list is believed as far as each object lies in a span of the
//! right class, at a place where an object begins, and is met for the first time.

use super::size_map::SizeMap;
use super::span::{Span, Spans};
use crate::memory::{Memory, MemoryExt, u64_at};
use std::cell::RefCell;
use std::collections::HashMap;

/// Pages are read and kept at this size.
const PAGE_BYTES: u64 = 4096;

/// The objects of one span.
#[derive(Debug, Clone)]
pub struct SmallSpan {
    /// The span's place in the list of all.
    pub span: usize,
    /// Its first byte.
    pub address: u64,
    /// The size class.
    pub class: u64,
    /// Bytes of each object.
    pub size_bytes: u64,
    /// Objects that fit.
    pub blocks: u64,
    /// One bit an object: in the central list.
    pub free: Vec<u64>,
    /// One bit an object: in a thread cache or the transfer cache.
    pub cached: Vec<u64>,
}

/// Which list an object is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The span's own, in the central list.
    Free,
    /// A thread cache's or the transfer cache's.
    Cached,
}

/// A list, followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// Objects on it that can be believed.
    pub count: u64,
    /// Those among them whose link may be of another moment.
    pub doubtful: u64,
    /// Where it broke off, and the last object that could be believed (0 for the head).
    pub broken: Option<(u64, u64)>,
}

/// All small objects of a moment.
pub struct Objects<'a> {
    links: Links<'a>,
    spans: &'a Spans,
    /// In address order.
    pub small: Vec<SmallSpan>,
    /// By place in the list of all spans: place among the small ones.
    places: Vec<Option<u32>>,
    /// Spans whose class is none, by place in the list of all.
    pub strange: Vec<usize>,
}

impl<'a> Objects<'a> {
    /// The objects of all `spans`, none of them free yet.
    pub fn of(memory: &'a dyn Memory, spans: &'a Spans, sizes: &SizeMap) -> Self {
        let mut objects = Self {
            links: Links { memory, pages: RefCell::default() },
            spans,
            small: Vec::new(),
            places: vec![None; spans.list.len()],
            strange: Vec::new(),
        };
        for (index, span) in spans.list.iter().enumerate().filter(|(_, span)| span.is_small()) {
            let Some(small) = small(index, span, spans.page_shift, sizes) else {
                objects.strange.push(index);
                continue;
            };
            if let Some(place) = objects.places.get_mut(index) {
                *place = u32::try_from(objects.small.len()).ok();
            }
            objects.small.push(small);
        }
        objects
    }

    /// Follows the list from `first` on, up to `limit` objects, marks them, and names each to `visit`.
    pub fn follow(
        &mut self,
        first: u64,
        limit: u64,
        class: u64,
        kept: Kept,
        visit: &mut dyn FnMut(u64),
    ) -> Followed {
        let mut followed = Followed::default();
        let (mut object, mut last_good) = (first, 0);
        while object != 0 {
            if followed.count >= limit || !self.mark(object, class, kept) {
                followed.broken = Some((object, last_good));
                break;
            }
            followed.count += 1;
            visit(object);
            followed.doubtful += u64::from(!self.links.memory.is_certain(object));
            last_good = object;
            let Some(next) = self.links.next(object) else {
                followed.broken = Some((object, last_good));
                break;
            };
            object = next;
        }
        followed
    }

    /// Marks an object; whether it is one of that class, not met before.
    fn mark(&mut self, object: u64, class: u64, kept: Kept) -> bool {
        let place = self.spans.holding(object).and_then(|span| self.places.get(span).copied().flatten());
        let small = place.and_then(|place| self.small.get_mut(usize::try_from(place).ok()?));
        let Some(small) = small.filter(|small| small.class == class) else { return false };
        let offset = object - small.address;
        let number = offset / small.size_bytes;
        if !offset.is_multiple_of(small.size_bytes) || number >= small.blocks {
            return false;
        }
        let (Ok(word), bit) = (usize::try_from(number / 64), 1 << (number % 64)) else { return false };
        let is_new = |bits: &[u64]| bits.get(word).is_some_and(|word| word & bit == 0);
        if !is_new(&small.free) || !is_new(&small.cached) {
            return false;
        }
        let bits = if kept == Kept::Free { &mut small.free } else { &mut small.cached };
        bits.get_mut(word).is_some_and(|word| {
            *word |= bit;
            true
        })
    }
}

fn small(index: usize, span: &Span, page_shift: u32, sizes: &SizeMap) -> Option<SmallSpan> {
    let class = sizes.class(span.class).filter(|class| class.pages == span.length)?;
    let range = span.range(page_shift);
    let blocks = range.len_bytes() / class.size_bytes;
    let words = usize::try_from(blocks.div_ceil(64)).ok()?;
    Some(SmallSpan {
        span: index,
        address: range.start,
        class: span.class,
        size_bytes: class.size_bytes,
        blocks,
        free: vec![0; words],
        cached: vec![0; words],
    })
}

/// Reads links, of a running target page by page.
struct Links<'a> {
    memory: &'a dyn Memory,
    pages: RefCell<HashMap<u64, Option<Vec<u8>>>>,
}

impl Links<'_> {
    fn next(&self, object: u64) -> Option<u64> {
        if let Some(bytes) = self.memory.slice(object, 8) {
            return u64_at(bytes, 0);
        }
        let page = object & !(PAGE_BYTES - 1);
        let mut pages = self.pages.borrow_mut();
        let bytes = pages
            .entry(page)
            .or_insert_with(|| self.memory.read_vec(page, usize::try_from(PAGE_BYTES).unwrap_or(0)).ok());
        match bytes {
            Some(bytes) => u64_at(bytes, usize::try_from(object - page).ok()?),
            // Captures hold pages in part.
            None => self.memory.read_u64(object).ok(),
        }
    }
}
