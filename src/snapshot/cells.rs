//! A value for each (shard, class) pair, found without hashing: it is looked for once a run.

use std::collections::HashMap;

/// Shards up to this number are found by index; allocators count them from 0, and have few.
const INDEXED_SHARDS: usize = 1 << 12;

/// Values by shard and class index, in the order in which shards are met.
#[derive(Debug, Clone)]
pub(crate) struct CellTable<T> {
    classes: usize,
    shards: Vec<u32>,
    /// Where the values of low shards start, plus one; 0 for those that have not been met.
    indexed: Vec<usize>,
    /// Where the values of other shards start.
    others: HashMap<u32, usize>,
    values: Vec<T>,
}

impl<T: Clone + Default> CellTable<T> {
    /// An empty table for class indices below `classes`.
    pub(crate) fn new(classes: usize) -> Self {
        Self { classes, shards: Vec::new(), indexed: Vec::new(), others: HashMap::new(), values: Vec::new() }
    }

    /// The value of a cell, or `None` where the class is out of range.
    #[inline]
    pub(crate) fn at(&mut self, shard: u32, class: usize) -> Option<&mut T> {
        if class >= self.classes {
            return None;
        }
        let start = match self.indexed.get(shard as usize) {
            Some(&after) if after > 0 => after - 1,
            _ => self.start_of(shard),
        };
        self.values.get_mut(start + class)
    }

    /// Where the values of a shard start that may not have been met.
    #[cold]
    fn start_of(&mut self, shard: u32) -> usize {
        if let Some(&start) = self.others.get(&shard) {
            return start;
        }
        let start = self.values.len();
        self.shards.push(shard);
        self.values.resize(start + self.classes, T::default());
        let index = shard as usize;
        if index < INDEXED_SHARDS {
            self.indexed.resize(self.indexed.len().max(index + 1), 0);
        }
        match self.indexed.get_mut(index) {
            Some(after) => *after = start + 1,
            None => drop(self.others.insert(shard, start)),
        }
        start
    }

    /// Every cell of every shard met: shard, class index, value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, usize, &T)> {
        let rows = self.shards.iter().zip(self.values.chunks(self.classes.max(1)));
        rows.flat_map(|(&shard, row)| row.iter().enumerate().map(move |(class, value)| (shard, class, value)))
    }
}
