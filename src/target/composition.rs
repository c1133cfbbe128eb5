//! What the live blocks of each class are, of one moment: names of types, no byte of data.

use super::Captured;
use crate::census::Walked;
use crate::content::Typer;
use crate::memory::Memory;
use crate::recording::compositions;
use crate::snapshot::schema::TypeRow;
use std::collections::BTreeMap;

/// Blocks of each class that are read at most.
const READ_MAX: u64 = 5_000;

/// The types of all classes of all allocators, by what `memory` shows of their blocks.
pub(super) fn types(captured: &Captured, walked: &[Walked], memory: &dyn Memory) -> Vec<TypeRow> {
    let typer = Typer::new(&captured.modules, &captured.mappings, memory);
    let mut rows = Vec::new();
    for (allocator, walk) in (0_u32..).zip(walked) {
        let tables = std::slice::from_ref(&walk.liveness);
        for (size_bytes, class) in compositions(memory, tables, READ_MAX, &|class| class > 0, &typer) {
            let mut names: BTreeMap<String, u64> = BTreeMap::new();
            for (shape, blocks) in &class.shapes {
                *names.entry(typer.name(*shape)).or_default() += blocks;
            }
            let (live_blocks, read_blocks) = (class.live_blocks, class.read);
            let row = |(type_name, blocks)| TypeRow {
                allocator,
                size_bytes,
                live_blocks,
                read_blocks,
                type_name,
                blocks,
            };
            rows.extend(names.into_iter().map(row));
        }
    }
    rows
}
