//! The paths that allocate. Each belongs to one thread, keeps what it allocates as long as it is to live, and counts it.
//! Each call allocates one block.

use crate::descent::Site;
use crate::options::Kind;
use crate::random::Random;
use crate::ring::Ring;
use crate::tally::Tallies;
use std::cell::RefCell;
use std::collections::{HashMap, LinkedList};
use std::rc::Rc;
use std::sync::Arc;

/// Blocks of these bytes are of the size class of 112.
const TEXT_BYTES: usize = 104;
const BUFFER_BYTES: usize = 104;
/// The vectors of what leaks must not grow.
const HOARD_ROOM: usize = 1 << 22;

/// What all paths of a thread share.
pub struct Shared {
    pub random: RefCell<Random>,
    pub tallies: Arc<Tallies>,
}

impl Shared {
    fn next(&self) -> u64 {
        self.random.borrow_mut().next()
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    fn text(&self, room: usize) -> String {
        self.random.borrow_mut().text(room)
    }
}

/// A path: its number, what it shares, and what it keeps.
macro_rules! site {
    ($name:ident, $index:literal, $things:ty) => {
        pub struct $name {
            pub things: $things,
            shared: Rc<Shared>,
        }

        impl $name {
            pub fn new(shared: &Rc<Shared>, things: $things) -> Self {
                Self { things, shared: Rc::clone(shared) }
            }

            #[allow(dead_code)]
            fn count(&self, born: u64, died: u64) {
                let tally = &self.shared.tallies.0[$index];
                tally.born.add(born);
                tally.died.add(died);
            }
        }

        impl Site for $name {
            fn serve(&mut self) {
                self.allocate();
            }
        }
    };
}

/// What ends with the request.
macro_rules! ends_with_request {
    ($($name:ident),*) => {$(
        impl $name {
            pub fn end_request(&mut self) {
                self.count(0, self.things.len() as u64);
                self.things.clear();
            }
        }
    )*};
}

site!(ReadHeader, 0, Vec<String>);
site!(SplitFields, 1, Vec<Vec<u64>>);
site!(LookUpUser, 2, HashMap<u64, Box<UserRecord>>);
site!(DrawImage, 3, Vec<Vec<u8>>);
site!(MakeBid, 4, Ring<Box<dyn Price>>);
site!(FormatLine, 5, Ring<String>);
site!(CountEvent, 6, Ring<Rc<Event>>);
site!(QueueTask, 7, Ring<Box<dyn Fn() -> u64>>);
site!(FetchCreative, 8, Ring<Arc<Creative>>);
site!(PackReply, 9, Ring<Box<[u8]>>);
site!(KeepSession, 10, Ring<Box<Session>>);
site!(RenderPage, 11, Ring<Vec<u8>>);
site!(ResolveHost, 12, Ring<LinkedList<[u64; 10]>>);
site!(FillCache, 13, (usize, Vec<Box<Session>>));
site!(RankResults, 14, Hoard);
site!(SpoolAudit, 15, Hoard);
ends_with_request!(ReadHeader, SplitFields, LookUpUser, DrawImage);

pub struct UserRecord {
    pub visits: u64,
    pub score: f64,
    pub country: [u8; 100],
}

pub struct Event {
    pub number: u64,
    pub times: [u64; 8],
}

pub struct Creative {
    pub id: u64,
    pub weight: f64,
    pub markup: [u8; 72],
}

#[derive(Clone, Copy)]
pub struct Session {
    pub id: u64,
    pub state: u64,
    pub hits: u64,
    pub agent: [u8; 80],
}

impl Session {
    fn new(id: u64, state: u64) -> Self {
        let mut agent = [0; 80];
        agent[..24].copy_from_slice(b"Mozilla/5.0 (X11; Linux)");
        Self { id, state, hits: 0, agent }
    }
}

pub trait Price {
    fn price(&self) -> f64;
}

struct Bid {
    campaign: u64,
    price: f64,
    slot: [u8; 180],
}

impl Price for Bid {
    fn price(&self) -> f64 {
        self.price + self.campaign as f64 + f64::from(self.slot[0])
    }
}

/// A result as a trait object.
pub trait Ranked {
    fn rank(&self) -> f64;
}

struct Advertisement {
    id: u64,
    rank: f64,
    title: [u8; 88],
}

impl Ranked for Advertisement {
    fn rank(&self) -> f64 {
        self.rank + self.id as f64 + f64::from(self.title[0])
    }
}

/// A result in a list: with its links 112 bytes.
pub struct PlainResult {
    pub id: u64,
    pub rank: f64,
    pub title: [u8; 80],
}

/// The top results that are believed to be cut to ten.
pub struct Hoard {
    kind: Kind,
    ranked: Vec<Box<dyn Ranked>>,
    plain: LinkedList<PlainResult>,
    bytes: Vec<Box<[u8]>>,
    strings: Vec<String>,
}

fn title<const N: usize>() -> [u8; N] {
    let mut title = [0; N];
    title[..19].copy_from_slice(b"a title of a result");
    title
}

impl Hoard {
    pub fn new(kind: Kind) -> Self {
        let room = |wanted| if kind == wanted { HOARD_ROOM } else { 0 };
        Self {
            kind,
            ranked: Vec::with_capacity(room(Kind::Polymorphic)),
            plain: LinkedList::new(),
            bytes: Vec::with_capacity(room(Kind::Bytes)),
            strings: Vec::with_capacity(room(Kind::Strings)),
        }
    }

    #[inline(never)]
    fn keep(&mut self, shared: &Shared) {
        match self.kind {
            Kind::Polymorphic => self.ranked.push(Box::new(Advertisement {
                id: shared.next(),
                rank: shared.below(1000) as f64,
                title: title(),
            })),
            Kind::Plain => self.plain.push_back(PlainResult {
                id: shared.next(),
                rank: shared.below(1000) as f64,
                title: title(),
            }),
            Kind::Bytes => {
                let mut bytes = vec![0; BUFFER_BYTES].into_boxed_slice();
                shared.random.borrow_mut().fill(&mut bytes);
                self.bytes.push(bytes);
            }
            Kind::Strings => self.strings.push(shared.text(TEXT_BYTES)),
        }
    }
}

impl ReadHeader {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let text = self.shared.text(2 * TEXT_BYTES);
        self.things.push(text);
        self.count(1, 0);
    }
}

impl SplitFields {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let fields = vec![self.shared.next(); 8 + self.shared.below(56) as usize];
        self.things.push(fields);
        self.count(1, 0);
    }
}

impl LookUpUser {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let mut country = [0; 100];
        country[..13].copy_from_slice(b"Liechtenstein");
        let record = Box::new(UserRecord { visits: self.shared.below(1000), score: 0.5, country });
        let replaced = self.things.insert(self.shared.next(), record);
        self.count(1, u64::from(replaced.is_some()));
    }
}

impl DrawImage {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let image = vec![b'x'; 1024 + self.shared.below(7000) as usize];
        self.things.push(image);
        self.count(1, 0);
    }
}

impl MakeBid {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let campaign = self.shared.next();
        let bid = Bid { campaign, price: self.shared.below(1000) as f64, slot: [b's'; 180] };
        let died = self.things.put(Box::new(bid));
        self.count(1, died);
    }
}

impl FormatLine {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let died = self.things.put(self.shared.text(TEXT_BYTES));
        self.count(1, died);
    }
}

impl CountEvent {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let died = self.things.put(Rc::new(Event { number: self.shared.next(), times: [7; 8] }));
        self.count(1, died);
    }
}

impl QueueTask {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let captured = [self.shared.next(), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        let died = self.things.put(Box::new(move || captured.iter().sum()));
        self.count(1, died);
    }
}

impl FetchCreative {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let mut markup = [0; 72];
        markup[..20].copy_from_slice(b"<div class=creative>");
        let died = self.things.put(Arc::new(Creative { id: self.shared.next(), weight: 1.5, markup }));
        self.count(1, died);
    }
}

impl PackReply {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let mut reply = vec![0; BUFFER_BYTES].into_boxed_slice();
        self.shared.random.borrow_mut().fill(&mut reply);
        let died = self.things.put(reply);
        self.count(1, died);
    }
}

impl KeepSession {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let died = self.things.put(Box::new(Session::new(self.shared.next(), 1)));
        self.count(1, died);
    }
}

impl RenderPage {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let died = self.things.put(vec![0; 20_480 + self.shared.below(77_824) as usize]);
        self.count(1, died);
    }
}

impl ResolveHost {
    #[inline(never)]
    pub fn allocate(&mut self) {
        let mut addresses = LinkedList::new();
        addresses.push_back([self.shared.next(); 10]);
        let died = self.things.put(addresses);
        self.count(1, died);
    }
}

impl FillCache {
    #[inline(never)]
    pub fn allocate(&mut self) {
        if self.things.1.len() >= self.things.0 {
            return;
        }
        let session = Box::new(Session::new(self.shared.next(), 7));
        self.things.1.push(session);
        self.count(1, 0);
    }
}

impl RankResults {
    #[inline(never)]
    pub fn allocate(&mut self) {
        self.things.keep(&self.shared);
        self.count(1, 0);
    }
}

impl SpoolAudit {
    #[inline(never)]
    pub fn allocate(&mut self) {
        self.things.keep(&self.shared);
        self.count(1, 0);
    }
}

