//! The record of live blocks: a global allocator that passes every request on and notes it.
//!
//! So the program knows every block that any Rust code in it owns, the standard library's included. The record lies in
//! a mapping of its own and never allocates. It does not know what the allocator and the C library keep for themselves,
//! so the program is to be built on a prefixed jemalloc, which the C library does not use.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Slots of the open-addressing table; the program ends when it is full.
const SLOTS: usize = 1 << 22;
/// Consecutive slots for the blocks of one page, so that neighbours in the heap are neighbours in the record.
const SLOTS_PER_PAGE: usize = 1 << 8;

const EMPTY: usize = 0;
/// A slot that is being filled; no block has this address.
const TAKEN: usize = 1;

#[derive(Debug)]
struct Slot {
    address: AtomicUsize,
    size: AtomicUsize,
}

/// One live block as the program requested it.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// Where it begins.
    pub address: usize,
    /// Requested bytes.
    pub size: usize,
}

/// An allocator whose every block is recorded.
#[derive(Debug)]
pub struct Recorded<A>(pub A);

fn slots() -> &'static [Slot] {
    static TABLE: OnceLock<&'static [Slot]> = OnceLock::new();
    TABLE.get_or_init(|| {
        let bytes = SLOTS * size_of::<Slot>();
        // SAFETY: a new private mapping touches no memory that anyone uses.
        let pages = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if pages == libc::MAP_FAILED {
            std::process::abort();
        }
        // SAFETY: the mapping is that large, page-aligned, zeroed, never unmapped, and zero is a valid slot.
        unsafe { std::slice::from_raw_parts(pages.cast::<Slot>(), SLOTS) }
    })
}

/// The slots in which a block at this address may stand, best first.
fn candidates(address: usize) -> impl Iterator<Item = &'static Slot> {
    let page = (address >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let first = page * SLOTS_PER_PAGE + (address >> 4) % SLOTS_PER_PAGE;
    let slots = slots();
    (0..SLOTS).map(move |distance| &slots[(first + distance) % SLOTS])
}

fn note(address: usize, size: usize) {
    for slot in candidates(address) {
        let free = slot.address.compare_exchange(EMPTY, TAKEN, Ordering::Relaxed, Ordering::Relaxed);
        if free.is_ok() {
            slot.size.store(size, Ordering::Relaxed);
            slot.address.store(address, Ordering::Release);
            return;
        }
    }
    std::process::abort();
}

/// The size under which the block stood. A block that is not in the record ends the program: the record would be a lie.
fn strike(address: usize) -> usize {
    for slot in candidates(address) {
        if slot.address.load(Ordering::Acquire) == address {
            let size = slot.size.load(Ordering::Relaxed);
            slot.address.store(EMPTY, Ordering::Release);
            return size;
        }
    }
    std::process::abort();
}

/// All live blocks. Exact only while no other thread allocates.
pub fn blocks() -> impl Iterator<Item = Block> {
    slots().iter().filter_map(|slot| {
        let address = slot.address.load(Ordering::Acquire);
        let size = slot.size.load(Ordering::Relaxed);
        (address != EMPTY).then_some(Block { address, size })
    })
}

// SAFETY: every request goes to the inner allocator unchanged; blocks are struck before they are given back, so that
// another thread that gets the same address can note it.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Recorded<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let block = unsafe { self.0.alloc(layout) };
        if !block.is_null() {
            note(block as usize, layout.size());
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised by the caller.
        let block = unsafe { self.0.alloc_zeroed(layout) };
        if !block.is_null() {
            note(block as usize, layout.size());
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        strike(block as usize);
        // SAFETY: as promised by the caller.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let before = strike(block as usize);
        // SAFETY: as promised by the caller.
        let moved = unsafe { self.0.realloc(block, layout, size) };
        if moved.is_null() {
            note(block as usize, before);
        } else {
            note(moved as usize, size);
        }
        moved
    }
}
