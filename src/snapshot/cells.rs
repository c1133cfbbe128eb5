//! A value for each (shard, class) pair, found without hashing as long as runs of one shard follow each other.

use std::collections::HashMap;

/// Values by shard and class index, in the order in which shards are met.
#[derive(Debug, Clone)]
pub(crate) struct CellTable<T> {
    classes: usize,
    shards: Vec<u32>,
    rows: HashMap<u32, usize>,
    last: Option<(u32, usize)>,
    values: Vec<T>,
}

impl<T: Clone + Default> CellTable<T> {
    /// An empty table for class indices below `classes`.
    pub(crate) fn new(classes: usize) -> Self {
        Self { classes, shards: Vec::new(), rows: HashMap::new(), last: None, values: Vec::new() }
    }

    /// The value of a cell, or `None` where the class is out of range.
    #[inline]
    pub(crate) fn at(&mut self, shard: u32, class: usize) -> Option<&mut T> {
        if class >= self.classes {
            return None;
        }
        let start = match self.last {
            Some((last, start)) if last == shard => start,
            _ => self.start_of(shard),
        };
        self.values.get_mut(start + class)
    }

    fn start_of(&mut self, shard: u32) -> usize {
        let start = *self.rows.entry(shard).or_insert_with(|| {
            self.shards.push(shard);
            self.values.resize(self.values.len() + self.classes, T::default());
            self.values.len() - self.classes
        });
        self.last = Some((shard, start));
        start
    }

    /// Every cell of every shard met: shard, class index, value.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, usize, &T)> {
        let rows = self.shards.iter().zip(self.values.chunks(self.classes.max(1)));
        rows.flat_map(|(&shard, row)| row.iter().enumerate().map(move |(class, value)| (shard, class, value)))
    }
}
