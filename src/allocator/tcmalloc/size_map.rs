//! The size map: the size classes, each with its size, its span's pages and how many objects move at once.

use super::layout::{CLASSES_MAX, Geometry, SMALL_BYTES_MAX, size_map};
use crate::allocator::Data;
use crate::memory::{Memory, MemoryExt, u32_at};
use heaptap_platform::AddressRange;

/// Sizes are multiples of it.
const ALIGNMENT_BYTES: u64 = 8;
/// Fewer classes than this have never been seen; it keeps chance away.
const CLASSES_MIN: usize = 32;

/// One size class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeClass {
    /// Bytes of its objects.
    pub size_bytes: u64,
    /// Pages of its spans.
    pub pages: u64,
    /// Objects that move between a thread cache and the central list at once.
    pub moved_at_once: u64,
}

/// All size classes of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeMap {
    /// Where the table of sizes is.
    pub address: u64,
    /// By number; the first is none.
    pub classes: Vec<SizeClass>,
}

impl SizeMap {
    /// The class of that number, but for the one that is none.
    pub fn class(&self, number: u64) -> Option<&SizeClass> {
        self.classes.get(usize::try_from(number).ok()?).filter(|class| class.size_bytes > 0)
    }

    /// The classes in use, with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (u64, &SizeClass)> {
        (0..).zip(&self.classes).skip(1)
    }

    /// The shape of the page map.
    pub fn geometry(&self) -> Option<Geometry> {
        Geometry::of_largest_class(self.classes.last()?.pages)
    }

    /// The most objects that move at once.
    pub fn moved_at_once_max(&self) -> u64 {
        self.classes.iter().map(|class| class.moved_at_once).max().unwrap_or(0)
    }

    /// The tables.
    pub fn range(&self) -> AddressRange {
        AddressRange {
            start: self.address.saturating_sub(size_map::MOVES_BEFORE),
            end: size_map::pages(self.address).saturating_add(CLASSES_MAX * 8 + 16),
        }
    }

    /// The tables around the sizes at `address`.
    fn read(memory: &dyn Memory, address: u64, sizes: &[u64]) -> Option<Self> {
        let pages = size_map::pages(address);
        let counts = |distance: u64| {
            let at = pages.checked_add(distance);
            at.is_some_and(|at| memory.read_u64(at).is_ok_and(|count| count == sizes.len() as u64))
        };
        if !size_map::PAGES_TO_COUNT.into_iter().any(counts) {
            return None;
        }
        let moves = memory.read_vec(address.checked_sub(size_map::MOVES_BEFORE)?, 4 * sizes.len()).ok()?;
        let pages = memory.read_words(pages, sizes.len()).ok()?;
        let class = |(number, (size, pages)): (usize, (&u64, u64))| {
            let moved = u64::from(u32_at(&moves, number * 4)?);
            let is_sound = number == 0 || (moved > 0 && pages > 0 && pages <= SMALL_BYTES_MAX);
            is_sound.then_some(SizeClass { size_bytes: *size, pages, moved_at_once: moved })
        };
        let classes = sizes.iter().zip(pages).enumerate().map(class).collect::<Option<Vec<_>>>()?;
        Some(Self { address, classes })
    }

    /// All size maps in a module's writable data: sizes that grow from 8 to 256 KiB have no other meaning.
    pub fn all(data: &Data, memory: &dyn Memory) -> Vec<Self> {
        let beginning: Vec<u8> = [0, 8, 16].into_iter().flat_map(u32::to_le_bytes).collect();
        let mut found = Vec::new();
        for (start, bytes) in data.pieces() {
            for at in memchr::memmem::find_iter(bytes, &beginning).filter(|at| at % 4 == 0) {
                let Some(sizes) = bytes.get(at..).and_then(sizes) else { continue };
                found.extend(Self::read(memory, start + at as u64, &sizes));
            }
        }
        found
    }
}

/// The sizes at the start of `bytes`, if all that follow them in the table are zeros.
fn sizes(bytes: &[u8]) -> Option<Vec<u64>> {
    let table: Vec<u64> = (0..usize::try_from(CLASSES_MAX).ok()?)
        .map(|number| u32_at(bytes, number * 4).map(u64::from))
        .collect::<Option<_>>()?;
    let last = table.iter().position(|size| *size == SMALL_BYTES_MAX)?;
    let (used, rest) = table.split_at_checked(last + 1)?;
    let grows = used.is_sorted_by(|size, next| size < next);
    let aligned = used.iter().all(|size| size.is_multiple_of(ALIGNMENT_BYTES));
    let fits = grows && aligned && used.len() >= CLASSES_MIN && rest.iter().all(|size| *size == 0);
    fits.then(|| used.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sizes: &[u32]) -> Vec<u8> {
        let mut table = sizes.to_vec();
        table.resize(128, 0);
        table.into_iter().flat_map(u32::to_le_bytes).collect()
    }

    #[test]
    fn sizes_grow_to_256_kib_and_end_there() {
        let mut growing: Vec<u32> = (0..40).map(|number| number * 8).chain([262_144]).collect();
        assert_eq!(sizes(&table(&growing)).map(|sizes| sizes.len()), Some(41));
        growing.push(262_152);
        assert_eq!(sizes(&table(&growing)), None);
        growing.pop();
        growing[7] = 12;
        assert_eq!(sizes(&table(&growing)), None);
    }
}
