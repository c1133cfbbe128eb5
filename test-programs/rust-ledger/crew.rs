//! The threads: each has a shelf and is parked in a condition wait unless it has an order.

use crate::control;
use crate::shelf::{Exchange, Shelf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What a thread can be told to do.
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// Fill the shelf.
    Fill,
    /// Keep so many more blocks of this size.
    Grow(usize, usize),
    /// Drop so many blocks of this size.
    Shrink(usize, usize),
    /// Allocate and drop until the churn is over.
    Churn,
    /// Drop what the churn left.
    Settle,
    /// Empty the thread cache.
    Flush,
}

#[derive(Debug, Default)]
struct Desk {
    order: Option<Order>,
    parked: bool,
    done: usize,
}

/// What the main thread and one other share. Neither side allocates when it uses this.
#[derive(Debug, Default)]
struct Post {
    desk: Mutex<Desk>,
    changed: Condvar,
}

impl Post {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, desk: MutexGuard<'a, Desk>) -> MutexGuard<'a, Desk> {
        self.changed.wait(desk).unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, order: Order) {
        let mut desk = self.desk();
        desk.parked = false;
        desk.order = Some(order);
        self.changed.notify_all();
    }

    /// Waits until the thread has nothing to do, and returns what it did last.
    fn await_parked(&self) -> usize {
        let mut desk = self.desk();
        while !desk.parked {
            desk = self.wait(desk);
        }
        desk.done
    }

    /// Waits for the next order.
    fn park(&self, done: usize) -> Order {
        let mut desk = self.desk();
        desk.done = done;
        loop {
            if let Some(order) = desk.order.take() {
                return order;
            }
            desk.parked = true;
            self.changed.notify_all();
            desk = self.wait(desk);
        }
    }
}

/// All threads but the main one. The first has number 1.
#[derive(Debug)]
pub struct Crew {
    seed: u64,
    posts: Vec<Arc<Post>>,
    exchange: Arc<Exchange>,
    churning: Arc<AtomicBool>,
}

impl Crew {
    /// No threads yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            posts: Vec::new(),
            exchange: Arc::new(Exchange::new(64)),
            churning: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Threads, the main one included.
    pub fn count(&self) -> usize {
        self.posts.len() + 1
    }

    /// Starts so many threads and waits until they are parked. False if there is no room.
    pub fn add(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let post = Arc::new(Post::default());
            let shelf = Shelf::new(self.seed * 1000 + self.count() as u64);
            let theirs = (Arc::clone(&post), Arc::clone(&self.exchange), Arc::clone(&self.churning));
            let body = move || live(&theirs.0, shelf, &theirs.1, &theirs.2);
            if thread::Builder::new().stack_size(256 << 10).spawn(body).is_err() {
                return false;
            }
            post.await_parked();
            self.posts.push(post);
        }
        true
    }

    /// Has one thread carry out an order; none if there is no such thread.
    pub fn run(&self, number: usize, order: Order) -> Option<usize> {
        let post = self.posts.get(number.checked_sub(1)?)?;
        post.give(order);
        Some(post.await_parked())
    }

    /// Has all threads carry out an order at the same time; returns the sum of what they did.
    pub fn run_all(&self, order: Order) -> usize {
        self.posts.iter().for_each(|post| post.give(order));
        self.posts.iter().map(|post| post.await_parked()).sum()
    }

    /// Whether the threads are churning.
    pub fn churning(&self) -> bool {
        self.churning.load(Ordering::Relaxed)
    }

    /// Lets all threads allocate and drop until [`Crew::settle`].
    pub fn churn(&self) {
        self.churning.store(true, Ordering::Relaxed);
        self.posts.iter().for_each(|post| post.give(Order::Churn));
    }

    /// Ends the churn, waits for the threads and returns the number of buffers that came and went.
    pub fn settle(&self) -> usize {
        self.churning.store(false, Ordering::Relaxed);
        let done = self.posts.iter().map(|post| post.await_parked()).sum();
        self.run_all(Order::Settle);
        self.exchange.clear();
        done
    }
}

fn live(post: &Post, mut shelf: Shelf, exchange: &Exchange, churning: &AtomicBool) {
    let mut done = 0;
    loop {
        let order = post.park(done);
        done = match order {
            Order::Fill => {
                shelf.fill(exchange);
                0
            }
            Order::Grow(count, size) => shelf.grow(count, size),
            Order::Shrink(count, size) => shelf.shrink(count, size),
            Order::Churn => {
                let mut done = 0;
                while churning.load(Ordering::Relaxed) {
                    done += shelf.churn(exchange);
                }
                done
            }
            Order::Settle => {
                shelf.settle();
                0
            }
            Order::Flush => {
                control::flush_cache();
                0
            }
        };
    }
}
