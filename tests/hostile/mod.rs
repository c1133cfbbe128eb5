//! A captured heap as it never was: with flipped bits, missing pages, pages of zeros and words of other places.

use heaptap::capture::CapturedMemory;
use heaptap::memory::{Fault, Memory};
use heaptap_platform::AddressRange;

/// What is wrong with the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fashion {
    /// One bit of so many words is flipped.
    Flipped(u64),
    /// One of so many pages cannot be read.
    Absent(u64),
    /// One of so many pages reads as zeros.
    Zeroed(u64),
    /// One of so many words is that of another place.
    Moved(u64),
}

/// Memory that is wrong in the same way at every read.
pub struct Hostile<'a> {
    pub truth: &'a CapturedMemory,
    pub fashion: Fashion,
    pub seed: u64,
}

impl Hostile<'_> {
    /// A number that depends on the place and the seed alone.
    fn draw(&self, place: u64) -> u64 {
        let mut random = (place ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        random ^= random >> 32;
        random.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
    }

    fn word(&self, address: u64) -> Result<[u8; 8], Fault> {
        let mut word = [0; 8];
        self.truth.read(address, &mut word)?;
        let (page, draw) = (self.draw(address >> 12), self.draw(address));
        match self.fashion {
            Fashion::Flipped(rarity) if draw.is_multiple_of(rarity) => {
                word[(draw >> 20) as usize % 8] ^= 1 << (draw >> 30 & 7)
            }
            Fashion::Absent(rarity) if page.is_multiple_of(rarity) => return Err(Fault { address }),
            Fashion::Zeroed(rarity) if page.is_multiple_of(rarity) => word = [0; 8],
            Fashion::Moved(rarity) if draw.is_multiple_of(rarity) => {
                self.truth.read(address ^ 0x40, &mut word).unwrap_or(())
            }
            _ => {}
        }
        Ok(word)
    }
}

impl Memory for Hostile<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let mut at = address;
        let mut rest = bytes;
        while !rest.is_empty() {
            // Words at the edge of the capture are not whole.
            let (word, first) = (self.word(at & !7)?, (at & 7) as usize);
            let count = rest.len().min(8 - first);
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(count);
            part.copy_from_slice(&word[first..first + count]);
            at += count as u64;
            rest = behind;
        }
        Ok(())
    }

    fn present(&self, range: AddressRange) -> Vec<AddressRange> {
        self.truth.present(range)
    }
}
