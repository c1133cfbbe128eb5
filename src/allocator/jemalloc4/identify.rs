//! Finding jemalloc 4.x in a target: its tree of chunks by symbol or by shape, its table of bins by shape, its version by its
//! text. Nothing is believed that `proof.rs` does not confirm. Version numbers are compared here and in `layout.rs` only.

use super::Jemalloc4;
use super::arena::Arena;
use super::bins::Bins;
use super::chunks::{ChunkTree, TREE_BYTES};
use super::layout::Layout;
use super::proof::{self, Proof};
use super::runs::ChunkForm;
use crate::allocator::jemalloc::constants::Signs;
use crate::allocator::jemalloc::identify::Refusal;
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::Memory;
use crate::module::Module;
use heaptap_platform::AddressRange;

/// What was found in a target.
#[derive(Debug, Default)]
pub struct Findings {
    /// Allocators that can be walked.
    pub found: Vec<Jemalloc4>,
    /// Modules with jemalloc 4.x that cannot.
    pub refused: Vec<Refusal>,
}

/// Looks for jemalloc 4.x in all modules. One whose file cannot be had, and whose version is therefore not known, is one where its
/// data holds a tree of chunks that proves itself.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Findings {
    let mut findings = Findings::default();
    for module in space.modules {
        let signs = Signs::of(module, space, memory);
        let version = signs.as_ref().and_then(|signs| signs.version);
        let is_marked = version.is_some_and(|version| version.major == 4);
        let may_be = version.is_none() && (signs.is_some() || module.image.is_none());
        if !is_marked && !may_be {
            continue;
        }
        match resolve(module, signs.unwrap_or_default(), space, memory) {
            Ok(found) => findings.found.push(found),
            Err(why) if is_marked => findings.refused.push(Refusal {
                module: module.name(),
                version: version.map_or_else(|| "4".to_owned(), |version| version.to_string()),
                why,
            }),
            Err(_) => {}
        }
    }
    findings
}

fn resolve(
    module: &Module,
    signs: Signs,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
) -> Result<Jemalloc4, String> {
    let data = Data::read(memory, space, &module.writable);
    let named = named_tree(module, memory);
    let trees = if named.is_empty() { ChunkTree::find(&data) } else { named.clone() };
    if trees.is_empty() {
        return Err("no radix tree of chunks was found in its writable data".to_owned());
    }
    let mut failure = "its table of size classes was not found".to_owned();
    for layout in Layout::candidates(signs.version) {
        let Some(bins) = Bins::find(&data, &layout) else { continue };
        if bins.has_guards() {
            return Err("its regions have guard zones (opt.redzone), which is not supported".to_owned());
        }
        for tree in &trees {
            let form = ChunkForm::new(&layout, tree.chunk_bytes());
            let proof = proof::prove(memory, tree, &layout, &form, &bins);
            if proof.holds() {
                let provenance = if named.is_empty() { Provenance::Probed } else { Provenance::Symbols };
                return Ok(complete(
                    module,
                    signs,
                    &data,
                    memory,
                    (layout, bins, *tree, form),
                    &proof,
                    provenance,
                ));
            }
            if let Some(first) = proof.first_failure {
                failure = format!("layout {} does not fit: {first}", layout.table);
            }
        }
    }
    Err(failure)
}

/// The tree by its symbol, whatever prefix the build gave it.
fn named_tree(module: &Module, memory: &dyn Memory) -> Vec<ChunkTree> {
    let symbols = module.symbols();
    let named = symbols.iter().filter(|symbol| symbol.name.ends_with("chunks_rtree"));
    named.filter_map(|symbol| ChunkTree::at(memory, symbol.address)).collect()
}

fn complete(
    module: &Module,
    signs: Signs,
    data: &Data,
    memory: &dyn Memory,
    (layout, bins, tree, form): (Layout, Bins, ChunkTree, ChunkForm),
    proof: &Proof,
    provenance: Provenance,
) -> Jemalloc4 {
    let arenas_array = Arena::array(memory, data, &proof.arenas);
    let how = if provenance == Provenance::Symbols { "by its symbol" } else { "by its shape" };
    let evidence = vec![
        format!(
            "radix tree of chunks of {} KiB found {how} at {:#x}",
            tree.chunk_bytes() >> 10,
            tree.address
        ),
        format!(
            "{} of {} sampled chunks and huge blocks, and {} of {} current runs of arenas, kept every invariant of layout {}",
            proof.kept,
            proof.checked,
            proof.runs_met,
            proof.runs_met + proof.runs_missed,
            layout.table
        ),
        format!("{} small size classes", bins.bins.len()),
    ];
    let table_bytes = (layout.bin_info_bytes * bins.bins.len()) as u64;
    let mut kept = signs.ranges;
    kept.extend(AddressRange::with_len(bins.address, table_bytes));
    kept.extend(AddressRange::with_len(tree.address, TREE_BYTES));
    // Whoever reads a capture finds the array by what points to it.
    let pointers = data.words().filter(|(_, word)| Some(*word) == arenas_array);
    kept.extend(pointers.filter_map(|(place, _)| AddressRange::with_len(place, 8)));
    Jemalloc4 {
        module: module.path.display().to_string(),
        version: signs.version,
        provenance,
        layout,
        bins,
        tree,
        form,
        arenas_array,
        signs: kept,
        evidence,
    }
}
