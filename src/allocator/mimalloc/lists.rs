//! The lists of one page: which of its blocks are free, and which were freed by other threads.

use super::list::Links;
use super::page::Page;
use crate::memory::Memory;

/// What the lists of a page say of its blocks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// One bit a block: handed out and not freed.
    pub live: Vec<u64>,
    /// One bit a block: freed by another thread, and not yet taken back by the owner.
    pub cached: Vec<u64>,
    /// Blocks in the owner's lists.
    pub free_blocks: u64,
    /// Blocks freed by other threads.
    pub cached_blocks: u64,
    /// Blocks that lists contradict each other about.
    pub contradictory: u64,
    /// Blocks whose link may have changed between two reads.
    pub doubtful: u64,
    /// The first link that leads astray: the block that has it.
    pub broken: Option<Broken>,
}

/// A link that leads astray.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken {
    /// The block that has it; the page's record where it is the head of a list.
    pub at: u64,
    /// What is wrong with it.
    pub why: &'static str,
    /// All bytes that led there are of the moment that is asked about.
    pub is_of_the_moment: bool,
}

impl Lists {
    /// Follows all lists of `page`; `delayed` are the addresses in order of blocks that wait in lists of heaps.
    /// Addresses of blocks in lists go to `visit`.
    pub fn of(memory: &dyn Memory, page: &Page, delayed: &[u64], visit: &mut dyn FnMut(u64)) -> Self {
        let capacity = usize::try_from(page.capacity).unwrap_or(0);
        let words = capacity.div_ceil(64);
        let mut lists = Self { live: vec![u64::MAX; words], cached: vec![0; words], ..Self::default() };
        if let Some(last) = lists.live.last_mut().filter(|_| !capacity.is_multiple_of(64)) {
            *last = (1 << (capacity % 64)) - 1;
        }
        for head in page.free {
            lists.follow(memory, page, head, false, visit);
        }
        lists.follow(memory, page, page.thread_free, true, visit);
        let blocks = page.blocks();
        let first = delayed.partition_point(|block| *block < blocks.start);
        for block in delayed.iter().skip(first).take_while(|block| **block < blocks.end) {
            match page.index_of(*block) {
                Some(index) => lists.take(index, true),
                None => lists.contradictory += 1,
            }
        }
        lists
    }

    fn follow(
        &mut self,
        memory: &dyn Memory,
        page: &Page,
        head: u64,
        cached: bool,
        visit: &mut dyn FnMut(u64),
    ) {
        let links = Links { owner: page.record, keys: page.keys };
        let (mut at, mut block, mut steps) = (page.record, head, 0);
        let mut is_of_the_moment = memory.is_of_the_moment(at);
        while block != 0 {
            let why = match page.index_of(block) {
                None => Some("a list of a page leads out of its blocks"),
                Some(_) if steps >= page.reserved => Some("a list of a page comes back to itself"),
                // A page that is being made longer has new blocks in its list before it counts them.
                Some(index) => {
                    self.take(index, cached);
                    None
                }
            };
            if let Some(why) = why {
                self.broken.get_or_insert(Broken { at, why, is_of_the_moment });
                return;
            }
            visit(block);
            self.doubtful += u64::from(!memory.is_certain(block));
            is_of_the_moment &= memory.is_of_the_moment(block);
            steps += 1;
            let Some(next) = links.next(memory, block) else {
                let why = "a free block is not in the captured memory";
                self.broken.get_or_insert(Broken { at: block, why, is_of_the_moment });
                return;
            };
            (at, block) = (block, next);
        }
    }

    /// Books a block as free or freed by another thread.
    fn take(&mut self, index: u64, cached: bool) {
        let (word, bit) = (usize::try_from(index / 64).unwrap_or(usize::MAX), 1 << (index % 64));
        let is_live = self.live.get(word).is_some_and(|live| live & bit != 0);
        if !is_live {
            self.contradictory += 1;
            return;
        }
        if let Some(live) = self.live.get_mut(word) {
            *live &= !bit;
        }
        if cached {
            self.cached_blocks += 1;
            if let Some(cached) = self.cached.get_mut(word) {
                *cached |= bit;
            }
        } else {
            self.free_blocks += 1;
        }
    }

    /// By how many blocks the lists and the page's own counter differ.
    pub const fn difference(&self, page: &Page) -> u64 {
        page.used.abs_diff(page.capacity.saturating_sub(self.free_blocks))
    }
}
