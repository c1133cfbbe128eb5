//! Python objects: a count of references, then a pointer to the type, which has a name.
//!
//! Layout: Python 3.8 to 3.13, `Include/object.h` and `Include/cpython/object.h`: `ob_refcnt`, `ob_type`, and of a type object
//! `ob_size`, `tp_name`. Objects of the garbage collector have two words in front.

use super::vtable::Tables;
use crate::memory::{Memory, MemoryExt};

/// The type of every type is its own type; metaclasses stand between, few of them.
const METACLASSES_MAX: usize = 4;
/// Where a type object has the pointer to its name.
const NAME_OFFSET: u64 = 24;

/// The type's name of a Python object whose first words are `words`.
pub(super) fn type_name<M: Memory + ?Sized>(tables: &Tables<'_, M>, words: &[u64]) -> Option<String> {
    // Fewer references than anybody has; the immortal ones have a count with all of the upper bits of 32.
    let is_count = |count: u64| (1..=0xffff_ffff).contains(&count);
    let plain = words.first().filter(|count| is_count(**count)).and(words.get(1));
    let collected = words.get(2).filter(|count| is_count(**count)).and(words.get(3));
    [plain, collected].into_iter().flatten().find_map(|object_type| name_of_type(tables, *object_type))
}

fn name_of_type<M: Memory + ?Sized>(tables: &Tables<'_, M>, object_type: u64) -> Option<String> {
    if object_type < 4096 || !object_type.is_multiple_of(8) {
        return None;
    }
    let mut meta = object_type;
    for _ in 0..METACLASSES_MAX {
        let next = tables.memory.read_u64(meta.wrapping_add(8)).ok()?;
        if next == meta {
            let name = tables.memory.read_u64(object_type.wrapping_add(NAME_OFFSET)).ok()?;
            return tables.text(name);
        }
        meta = next;
    }
    None
}
