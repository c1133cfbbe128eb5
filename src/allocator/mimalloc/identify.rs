//! Finding mimalloc in a target, without symbols and in static programs too.
//!
//! A heap has a queue of pages for each size class, with the size of its blocks: no other data looks like that. The
//! main heap lies in the module's data, and so the module is known. Which layout is around the queues is then found
//! by trying: under the right one all segments carry the main heap's cookie (1.x, 2.x), or a word of the module's data
//! leads to a map of pages (3.x), and all pages keep their invariants. Version numbers are compared here and in
//! `layout.rs` only.

use super::heap::{self, Queues};
use super::inventory::Inventory;
use super::layout::{HeapFields, Layout};
use super::proof::Proof;
use super::{Mimalloc, Root, page_map};
use crate::allocator::address_space::anonymous;
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::{Memory, MemoryExt};
use crate::module::Module;
use heaptap_platform::AddressRange;

/// Looks at a running target before a failure counts: what it shows may change between two reads.
const LOOKS: usize = 5;

/// A mimalloc that cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{module}: mimalloc with its queues of pages at {queues:#x} cannot be walked: {why}")]
pub struct Refusal {
    /// The module's file name.
    pub module: String,
    /// Where the queues of its main heap are.
    pub queues: u64,
    /// What did not fit.
    pub why: String,
}

/// What was found in a target.
#[derive(Debug, Default)]
pub struct Findings {
    /// Allocators that can be walked.
    pub found: Vec<Mimalloc>,
    /// Those that cannot.
    pub refused: Vec<Refusal>,
}

/// Looks for it in all modules. One that was never used has no pages and is not found.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Findings {
    let mut findings = Findings::default();
    let mut regions = None;
    for module in space.modules {
        let data = Data::read(memory, space, &module.writable);
        let queues = heap::queues(&data);
        if queues.is_empty() {
            continue;
        }
        let regions = regions.get_or_insert_with(|| anonymous(space.mappings));
        let candidate = Candidate { module, space, memory, data: &data, regions, queues: &queues };
        candidate.settle(&mut findings);
    }
    findings
}

/// A module with queues of pages, while the layout around them is looked for.
struct Candidate<'a> {
    module: &'a Module,
    space: AddressSpace<'a>,
    memory: &'a dyn Memory,
    data: &'a Data,
    regions: &'a [AddressRange],
    queues: &'a [Queues],
}

impl Candidate<'_> {
    fn settle(&self, findings: &mut Findings) {
        let mut why = None;
        for _ in 0..LOOKS {
            why = None;
            for queues in self.queues {
                for layout in Layout::candidates(queues.stride_bytes) {
                    let known = findings.found.len();
                    for root in self.roots(queues, &layout) {
                        match self.fit(queues, &layout, root) {
                            Ok(found) => findings.found.push(found),
                            Err(Some(reason)) => {
                                why.get_or_insert((queues.address, reason));
                            }
                            Err(None) => {}
                        }
                    }
                    // A module has one, but for copies that were linked into it under other names.
                    if findings.found.len() > known {
                        return;
                    }
                }
            }
        }
        findings.refused.extend(why.map(|(queues, why)| Refusal { module: self.module.name(), queues, why }));
    }

    /// Where all else may be found from, if `layout` is around `queues`.
    fn roots(&self, queues: &Queues, layout: &Layout) -> Vec<Root> {
        if let Some(fields) = &layout.heap {
            return self.heap(queues, fields).into_iter().collect();
        }
        let roots = page_map::roots(self.data, self.space, self.memory, self.regions);
        roots.into_iter().map(|(at, root)| Root::Map { at, root }).collect()
    }

    /// The main heap, once it has been used: the one for threads without a heap has no cookie.
    fn heap(&self, queues: &Queues, fields: &HeapFields) -> Option<Root> {
        let main = queues.address.checked_sub(fields.queues)?;
        let cookie = self.memory.read_u64(main.checked_add(fields.cookie)?).ok()?;
        (cookie != 0).then_some(Root::Heap { main, cookie })
    }

    /// The allocator if all fits; else why not, if there was anything to look at.
    fn fit(&self, queues: &Queues, layout: &Layout, root: Root) -> Result<Mimalloc, Option<String>> {
        let mut mimalloc = Mimalloc {
            module: self.module.path.display().to_string(),
            layout: *layout,
            provenance: Provenance::Probed,
            root,
            signs: self.signs(queues),
            regions: self.regions.to_vec(),
            evidence: Vec::new(),
        };
        let inventory = Inventory::of(self.memory, &mimalloc);
        let proof = Proof::of(self.memory, layout, &inventory);
        if proof.checked == 0 {
            return Err(None);
        }
        let is_owned = inventory.heaps.iter().all(|heap| self.space.holds_records(*heap));
        let has_owner = !inventory.heaps.is_empty();
        if !proof.holds() || !is_owned || !has_owner {
            let first = proof.first_failure.unwrap_or_else(|| "the owner of a page is no heap".to_owned());
            return Err(Some(format!("the layout of {} does not fit: {first}", layout.table)));
        }
        let by_symbol = self.is_named(root);
        mimalloc.provenance = if by_symbol { Provenance::Symbols } else { Provenance::Probed };
        mimalloc.evidence = evidence(queues, layout, root, by_symbol, &inventory, &proof);
        Ok(mimalloc)
    }

    /// What a reader without the module's file needs to find it again.
    fn signs(&self, queues: &Queues) -> Vec<AddressRange> {
        const QUEUES: u64 = 75;
        AddressRange::with_len(queues.address, QUEUES * queues.stride_bytes).into_iter().collect()
    }

    /// Whether the symbol table has the root under its name.
    fn is_named(&self, root: Root) -> bool {
        let (address, name) = match root {
            Root::Heap { main, .. } => (main, "_mi_heap_main"),
            Root::Map { at, .. } => (at, "_mi_page_map"),
        };
        let symbols = self.module.symbols();
        symbols.iter().any(|symbol| symbol.address == address && symbol.name.ends_with(name))
    }
}

fn evidence(
    queues: &Queues,
    layout: &Layout,
    root: Root,
    by_symbol: bool,
    inventory: &Inventory,
    proof: &Proof,
) -> Vec<String> {
    let named = if by_symbol { " and named so by the symbol table" } else { "" };
    let mut sentences = vec![match root {
        Root::Heap { main, .. } => format!(
            "main heap at {main:#x} found by the sizes in its queues of pages{named}; {} segments carry its cookie",
            inventory.segments.len()
        ),
        Root::Map { root, .. } => format!(
            "queues of pages at {:#x} found by the sizes in them, the map of pages at {root:#x} by what it leads to{named}",
            queues.address
        ),
    }];
    sentences.push(format!(
        "{} of {} sampled pages kept every invariant of the layout of {}, {} of them with lists of free blocks",
        proof.kept, proof.checked, layout.table, proof.with_lists
    ));
    if layout.encoded {
        sentences.push(
            "it is a secure build: its lists are encoded and were decoded, and the size of a block may include padding"
                .to_owned(),
        );
    }
    sentences
}
