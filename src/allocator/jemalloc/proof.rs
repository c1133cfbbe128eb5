//! Proof: whether a layout and a tree fit a target, by invariants that hold in every extent.
//!
//! A wrong offset or a wrong geometry breaks them on the first extents looked at. What is proved here on a
//! sample of a running target is proved again on every extent by the walk of a stopped one.

use super::classes::SizeClasses;
use super::extent::{ACTIVE, Bitmap, Extent};
use super::layout::Layout;
use super::rtree::{Element, Rtree};
use crate::memory::Memory;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// What a sample showed.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// Active extents looked at.
    pub checked: u64,
    /// Those that kept every invariant.
    pub kept: u64,
    /// The first that did not, in words.
    pub first_failure: Option<String>,
    /// Arenas met.
    pub arenas: BTreeSet<u32>,
    /// Leaves of the tree.
    pub leaves: usize,
}

impl Proof {
    /// Whether the layout is believed: nine of ten, since a running target changes while it is looked at.
    pub const fn holds(&self) -> bool {
        self.checked > 0 && self.kept * 10 >= self.checked * 9
    }
}

/// Checks up to `sample_max` extents of a tree; again where many fit and many do not, since a running target
/// changes between two reads.
pub fn prove(
    memory: &dyn Memory,
    tree: &Rtree,
    layout: &Layout,
    classes: &SizeClasses,
    sample_max: u64,
) -> Proof {
    const ROUNDS_MAX: usize = 4;
    let mut proof = round(memory, tree, layout, classes, sample_max);
    for _ in 1..ROUNDS_MAX {
        if proof.holds() || proof.kept * 2 < proof.checked {
            break;
        }
        proof = round(memory, tree, layout, classes, sample_max);
    }
    proof
}

fn round(
    memory: &dyn Memory,
    tree: &Rtree,
    layout: &Layout,
    classes: &SizeClasses,
    sample_max: u64,
) -> Proof {
    let (leaves, _) = tree.leaves(memory);
    let mut proof = Proof { leaves: leaves.len(), ..Proof::default() };
    let mut bitmap = Bitmap::default();
    let each = (sample_max / (leaves.len() as u64).max(1)).max(8);
    for leaf in leaves {
        let mut left = each;
        let mut last = 0;
        tree.elements(memory, layout, leaf, &mut |page, element| {
            if left == 0 || proof.checked >= sample_max {
                return ControlFlow::Break(());
            }
            if element.extent != last {
                last = element.extent;
                left -= 1;
                sample(memory, tree, layout, classes, page, element, &mut bitmap, &mut proof);
            }
            ControlFlow::Continue(())
        });
    }
    proof
}

#[expect(clippy::too_many_arguments, reason = "one step of the loop above, apart for its length")]
fn sample(
    memory: &dyn Memory,
    tree: &Rtree,
    layout: &Layout,
    classes: &SizeClasses,
    page: u64,
    element: Element,
    bitmap: &mut Bitmap,
    proof: &mut Proof,
) {
    let page_bytes = tree.geometry.page_bytes();
    let extent = match Extent::read(memory, layout, page_bytes, element.extent) {
        Ok(extent) => extent,
        Err(fault) => {
            proof.checked += 1;
            proof.first_failure.get_or_insert_with(|| format!("extent record of page {page:#x}: {fault}"));
            return;
        }
    };
    if extent.state != ACTIVE || extent.szind == classes.nsizes() {
        return;
    }
    proof.checked += 1;
    let verdict = check(memory, layout, classes, page_bytes, page, element, &extent, bitmap);
    match verdict {
        Ok(()) => {
            proof.kept += 1;
            proof.arenas.insert(extent.arena);
        }
        Err(broken) => {
            proof.first_failure.get_or_insert_with(|| format!("extent at {:#x}: {broken}", extent.record));
        }
    }
}

/// The invariants of one active extent; the sentence names the first that is broken.
#[expect(clippy::too_many_arguments, reason = "all that an invariant may speak of")]
pub fn check(
    memory: &dyn Memory,
    layout: &Layout,
    classes: &SizeClasses,
    page_bytes: u64,
    page: u64,
    element: Element,
    extent: &Extent,
    bitmap: &mut Bitmap,
) -> Result<(), &'static str> {
    if !extent.holds(page, page_bytes) {
        return Err("it does not hold the page that the radix tree files it under");
    }
    if extent.slab != element.slab || extent.szind != element.szind {
        return Err("slab flag or size class differ from the copy in the radix tree");
    }
    if element.state.is_some_and(|state| state != extent.state) {
        return Err("its state differs from the copy in the radix tree");
    }
    if extent.slab {
        check_slab(memory, layout, classes, extent, bitmap)
    } else {
        check_large(layout, classes, page_bytes, extent)
    }
}

fn check_slab(
    memory: &dyn Memory,
    layout: &Layout,
    classes: &SizeClasses,
    extent: &Extent,
    bitmap: &mut Bitmap,
) -> Result<(), &'static str> {
    let Some(bin) = classes.bin(extent.szind) else {
        return Err("a slab of no small size class");
    };
    if extent.size_bytes != bin.slab_bytes {
        return Err("its size is not that of the slabs of its class");
    }
    if extent.nfree > u64::from(bin.nregs) {
        return Err("more free regions than there are regions");
    }
    if bitmap.read_used(memory, layout, extent, bin.nregs).is_err() {
        return Err("its bitmap cannot be read");
    }
    if u64::from(bitmap.count()) + extent.nfree != u64::from(bin.nregs) {
        return Err("its bitmap and its count of free regions differ");
    }
    Ok(())
}

fn check_large(
    layout: &Layout,
    classes: &SizeClasses,
    page_bytes: u64,
    extent: &Extent,
) -> Result<(), &'static str> {
    let Some(class) = classes.size_bytes(extent.szind) else {
        return Err("its size class does not exist");
    };
    // Small blocks that the profiler sampled have an extent of their own.
    if extent.szind < classes.nbins() {
        return if extent.size_bytes >= class {
            Ok(())
        } else {
            Err("a sampled block larger than its extent")
        };
    }
    let exact = extent.size_bytes == class || extent.size_bytes == class.wrapping_add(page_bytes);
    let between = layout.large_unrounded && extent.size_bytes <= class.wrapping_add(page_bytes);
    if exact || between { Ok(()) } else { Err("its size does not fit its size class") }
}
