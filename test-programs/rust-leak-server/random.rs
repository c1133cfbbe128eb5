//! A small generator of random numbers (xorshift64*).

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// Words as servers have them, exactly so many bytes of room.
    pub fn text(&mut self, room: usize) -> String {
        const WORDS: [&str; 8] =
            ["query ", "banner ", "click ", "agent=", "/index.html ", "utm_source=", "de ", "page "];
        let mut text = String::with_capacity(room);
        while text.len() + 20 < room {
            text.push_str(WORDS[self.below(8) as usize]);
            let mut value = self.below(100_000);
            while value > 0 {
                text.push(char::from(b'0' + (value % 10) as u8));
                value /= 10;
            }
        }
        text
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes());
        }
    }
}
