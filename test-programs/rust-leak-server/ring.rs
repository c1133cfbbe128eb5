//! Things that live until so many more have come.

use std::collections::VecDeque;

pub struct Ring<T> {
    things: VecDeque<T>,
    room: usize,
}

impl<T> Ring<T> {
    pub fn new(room: f64) -> Self {
        let room = room as usize + 1;
        Self { things: VecDeque::with_capacity(room + 1), room }
    }

    pub const fn room(&self) -> usize {
        self.room
    }

    /// Takes it in; what is too old goes, and its number is returned.
    pub fn put(&mut self, thing: T) -> u64 {
        self.things.push_back(thing);
        if self.things.len() <= self.room {
            return 0;
        }
        drop(self.things.pop_front());
        1
    }
}
