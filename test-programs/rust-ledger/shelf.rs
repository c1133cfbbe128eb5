//! What one thread keeps in the heap: strings, buffers, boxes, maps, as Rust programs do.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

/// A deterministic sequence of numbers (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence depends on the seed alone.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below the limit.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(2_685_821_657_736_338_717) >> 33) as usize % limit
    }
}

/// Buffers that one thread leaves for another to drop.
#[derive(Debug)]
pub struct Exchange(Mutex<Vec<Vec<u8>>>);

impl Exchange {
    /// An exchange with so many places.
    pub fn new(places: usize) -> Self {
        Self(Mutex::new(vec![Vec::new(); places]))
    }

    /// Leaves a buffer and gets the one that lay in its place.
    fn swap(&self, place: usize, buffer: Vec<u8>) -> Vec<u8> {
        match self.0.lock() {
            Ok(mut places) => {
                let place = place % places.len();
                std::mem::replace(&mut places[place], buffer)
            }
            Err(_) => buffer,
        }
    }

    /// Drops whatever lies there.
    pub fn clear(&self) {
        if let Ok(mut places) = self.0.lock() {
            places.iter_mut().for_each(|place| *place = Vec::new());
        }
    }
}

/// The heap of one thread.
#[derive(Debug)]
pub struct Shelf {
    random: Random,
    words: Vec<String>,
    buffers: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "each node is to be a block of its own")]
    nodes: Vec<Box<[u64; 12]>>,
    index: HashMap<u64, String>,
    ordered: BTreeMap<u64, Vec<u16>>,
    shared: Vec<Arc<str>>,
    kept: Vec<Box<[u8]>>,
    churned: Vec<Vec<u8>>,
}

impl Shelf {
    /// Empty.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            words: Vec::new(),
            buffers: Vec::new(),
            nodes: Vec::new(),
            index: HashMap::new(),
            ordered: BTreeMap::new(),
            shared: Vec::new(),
            kept: Vec::new(),
            churned: Vec::new(),
        }
    }

    fn word(&mut self) -> String {
        let length = 1 + self.random.below(90);
        "LEDGER USER DATA".chars().cycle().take(length).collect()
    }

    /// Fills the shelf, then drops about a third at random, part of it through the exchange.
    pub fn fill(&mut self, exchange: &Exchange) {
        for number in 0..1500_u64 {
            let (word, other) = (self.word(), self.word());
            self.shared.push(Arc::from(other.as_str()));
            self.index.insert(number, other);
            self.words.push(word);
            self.nodes.push(Box::new([number; 12]));
            self.ordered.insert(number * 7 % 1501, vec![7; 1 + self.random.below(300)]);
            let limit = if number % 100 == 0 { 3 << 20 } else { 6000 };
            self.buffers.push(vec![0; 1 + self.random.below(limit)]);
        }
        let random = &mut self.random;
        let mut stays = || random.below(3) > 0;
        self.words.retain(|_| stays());
        self.nodes.retain(|_| stays());
        self.shared.retain(|_| stays());
        self.index.retain(|number, _| number % 3 != 0);
        self.ordered.retain(|number, _| number % 3 != 0);
        for place in 0..self.buffers.len() / 3 {
            let chosen = self.random.below(self.buffers.len());
            let leaving = self.buffers.swap_remove(chosen);
            drop(exchange.swap(place, leaving));
        }
    }

    /// Keeps so many more blocks of this size.
    pub fn grow(&mut self, count: usize, size: usize) -> usize {
        self.kept.extend((0..count).map(|_| vec![b'L'; size].into_boxed_slice()));
        count
    }

    /// Drops up to so many blocks of this size, newest first; returns how many.
    pub fn shrink(&mut self, count: usize, size: usize) -> usize {
        let mut dropped = 0;
        for position in (0..self.kept.len()).rev() {
            if dropped < count && self.kept[position].len() == size {
                drop(self.kept.swap_remove(position));
                dropped += 1;
            }
        }
        dropped
    }

    /// A few hundred buffers come and go; returns how many.
    pub fn churn(&mut self, exchange: &Exchange) -> usize {
        const STEPS: usize = 256;
        self.churned.resize(1024, Vec::new());
        for _ in 0..STEPS {
            let limit = if self.random.below(64) == 0 { 100_000 } else { 1200 };
            let fresh = Vec::with_capacity(1 + self.random.below(limit));
            let place = self.random.below(self.churned.len());
            let leaving = std::mem::replace(&mut self.churned[place], fresh);
            if self.random.below(8) == 0 {
                drop(exchange.swap(place, leaving));
            }
        }
        STEPS
    }

    /// Drops what the churn still holds.
    pub fn settle(&mut self) {
        self.churned = Vec::new();
    }
}
