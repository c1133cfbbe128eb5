//! Where an allocator's records lie in memory that is mostly its users': words of 8 bytes, page by page.

use crate::memory::u64_at;
use heaptap_platform::AddressRange;

/// Pages are told apart at this size, whatever the machine's own is.
pub const PAGE_BYTES: u64 = 4096;

/// The record words of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRecords {
    /// Where the page begins.
    pub page: u64,
    /// One bit a word, lowest first.
    words: [u64; 8],
    /// Links of lists are among them: such pages change more often than others.
    pub has_links: bool,
}

impl PageRecords {
    /// The whole page.
    pub const fn range(&self) -> AddressRange {
        AddressRange { start: self.page, end: self.page + PAGE_BYTES }
    }

    /// Whether all record words are the same in two states of the page.
    pub fn agree(&self, before: &[u8], after: &[u8]) -> bool {
        self.words.iter().enumerate().all(|(index, bits)| {
            let mut bits = *bits;
            while bits != 0 {
                let offset = (index * 64 + bits.trailing_zeros() as usize) * 8;
                if u64_at(before, offset) != u64_at(after, offset) {
                    return false;
                }
                bits &= bits - 1;
            }
            true
        })
    }
}

/// The record words of all pages that have any.
#[derive(Debug, Clone, Default)]
pub struct RecordMap {
    pages: Vec<PageRecords>,
}

impl RecordMap {
    /// Marks the word at `address`.
    pub fn mark(&mut self, address: u64, is_link: bool) {
        let page = address & !(PAGE_BYTES - 1);
        if self.pages.last().is_none_or(|last| last.page != page) {
            self.pages.push(PageRecords { page, words: [0; 8], has_links: false });
        }
        let word = usize::try_from((address - page) / 8).unwrap_or(0);
        if let Some(last) = self.pages.last_mut() {
            if let Some(bits) = last.words.get_mut(word / 64) {
                *bits |= 1 << (word % 64);
            }
            last.has_links |= is_link;
        }
    }

    /// Notes a page that has no records yet and may get some.
    pub fn note_page(&mut self, page: u64) {
        self.pages.push(PageRecords { page, words: [0; 8], has_links: true });
    }

    /// Takes the marks of another map.
    pub fn extend(&mut self, other: Self) {
        self.pages.extend(other.pages);
    }

    /// All pages in address order, each once.
    pub fn into_pages(mut self) -> Vec<PageRecords> {
        self.pages.sort_unstable_by_key(|page| page.page);
        self.pages.dedup_by(|next, last| {
            if next.page != last.page {
                return false;
            }
            last.words.iter_mut().zip(next.words).for_each(|(bits, more)| *bits |= more);
            last.has_links |= next.has_links;
            true
        });
        self.pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_words_count() {
        let mut map = RecordMap::default();
        map.mark(0x5008, false);
        map.mark(0x4ff8, true);
        map.mark(0x5010, false);
        let pages = map.into_pages();
        assert_eq!(
            pages.iter().map(|page| (page.page, page.has_links)).collect::<Vec<_>>(),
            [(0x4000, true), (0x5000, false)]
        );
        let before = [0_u8; 4096];
        let mut after = before;
        after[0x20] = 1;
        assert!(pages[1].agree(&before, &after));
        after[0x10] = 1;
        assert!(!pages[1].agree(&before, &after));
        after = before;
        after[4095] = 1;
        assert!(!pages[0].agree(&before, &after));
    }
}
