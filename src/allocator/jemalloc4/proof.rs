//! Proof: whether a layout fits a target, by invariants that hold in every chunk and every arena.

use super::arena::Arena;
use super::bins::Bins;
use super::chunks::{ChunkTree, Node};
use super::layout::Layout;
use super::runs::{ChunkForm, Header};
use crate::memory::{Memory, MemoryExt};
use std::collections::BTreeMap;

/// Chunks looked at before a layout is believed.
const CHUNKS_MAX: usize = 64;

/// What a sample showed.
#[derive(Debug, Clone, Default)]
pub struct Proof {
    /// Chunks and huge blocks looked at.
    pub checked: u64,
    /// Those that kept every invariant.
    pub kept: u64,
    /// The first that did not, in words.
    pub first_failure: Option<String>,
    /// Chunks among them.
    pub chunks: u64,
    /// Arenas met, by their numbers.
    pub arenas: BTreeMap<u32, u64>,
    /// Bins of those arenas whose current run is one of their class.
    pub runs_met: u64,
    /// Bins whose current run is not.
    pub runs_missed: u64,
}

impl Proof {
    /// Whether the layout is believed: nine of ten, since a running target changes while it is looked at.
    pub const fn holds(&self) -> bool {
        self.chunks > 0
            && self.kept * 10 >= self.checked * 9
            && self.runs_met > 0
            && self.runs_met * 10 >= (self.runs_met + self.runs_missed) * 9
    }
}

/// Checks a sample of what `tree` files, and all arenas that it names.
pub fn prove(memory: &dyn Memory, tree: &ChunkTree, layout: &Layout, form: &ChunkForm, bins: &Bins) -> Proof {
    let filed = tree.filed(memory).filed;
    let stride = filed.len().div_ceil(CHUNKS_MAX).max(1);
    let mut proof = Proof::default();
    for filed in filed.iter().step_by(stride) {
        proof.checked += 1;
        let node = Node::read(memory, layout, filed.node).filter(|node| node.start == filed.start);
        let outcome = match node {
            None => Err("a chunk's node stands for another address"),
            Some(node) if node.is_chunk => {
                proof.chunks += 1;
                proof.arenas.extend(Arena::at(memory, node.arena).map(|arena| (arena.index, arena.address)));
                Header::read(memory, form, filed.start).visit(layout, form, bins, &mut |_, _| {})
            }
            Some(node) if node.size_bytes < form.run_bytes_max() => {
                Err("a huge block is too small to be one")
            }
            Some(_) => Ok(()),
        };
        match outcome {
            Ok(()) => proof.kept += 1,
            Err(why) => {
                proof.first_failure.get_or_insert_with(|| format!("at {:#x}, {why}", filed.start));
            }
        }
    }
    let arenas: Vec<Arena> = proof.arenas.iter().map(|(&index, &address)| Arena { index, address }).collect();
    for arena in arenas {
        current_runs(memory, layout, form, bins, &arena, &mut proof);
    }
    proof
}

fn current_runs(
    memory: &dyn Memory,
    layout: &Layout,
    form: &ChunkForm,
    bins: &Bins,
    arena: &Arena,
    proof: &mut Proof,
) {
    for index in 0..bins.bins.len() {
        let run = arena.current_run(memory, layout, index).unwrap_or(0);
        if run == 0 {
            continue;
        }
        let is_its = form.is_run_record(layout, run)
            && memory
                .read_u32(run)
                .is_ok_and(|class| usize::try_from(class).is_ok_and(|class| class == index));
        proof.runs_met += u64::from(is_its);
        proof.runs_missed += u64::from(!is_its);
        if !is_its {
            proof
                .first_failure
                .get_or_insert_with(|| format!("at {run:#x}, an arena's run is none of its class"));
        }
    }
}
