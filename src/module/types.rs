//! C types as debug information describes them: how large they are and where their members lie.
//!
//! Members are named by a path such as `stats.lstats`. Members of structures without a name count as those of the
//! structure around them, as in C; an array on the way stands for its first element. Sizes and offsets are in bytes.

use super::dwarf::{DebugSections, Entry, Place, Unit, Units};
use gimli::{DwTag, constants as dw};
use std::collections::{HashMap, HashSet};

/// Most names that are given to one type, one behind the other.
const ALIASES_MAX: usize = 64;

/// Most dimensions of an array.
const NESTING_MAX: usize = 32;

/// The types that some sources of an image define.
#[derive(Debug)]
pub struct Types<'a> {
    units: Units<'a>,
    named: HashMap<Vec<u8>, Place>,
}

/// A type, names that are only other names for it taken off.
#[derive(Debug, Clone, Copy)]
pub struct Type<'t, 'a> {
    types: &'t Types<'a>,
    place: Place,
    tag: DwTag,
}

/// A member of a structure or a union.
#[derive(Debug, Clone, Copy)]
pub struct Member<'t, 'a> {
    /// From the start of the structure that was asked.
    pub offset_bytes: u64,
    /// What it is.
    pub of: Type<'t, 'a>,
}

impl<'a> Types<'a> {
    /// The named types of the sources whose file name is one of `sources` or ends with `_` and one of them.
    ///
    /// Of several definitions of a name the first counts, in the order of `sources`.
    pub fn of(sections: &'a DebugSections<'_>, sources: &[&str]) -> Self {
        let mut units = Units::of(sections);
        let rank = |name: &str| sources.iter().position(|source| is_source(name, source));
        let mut found = units.sources(|name| rank(name).is_some());
        found.sort_by_key(|(name, place)| (rank(name), *place));
        let mut named = HashMap::new();
        let mut visited = HashSet::new();
        for (_, place) in found {
            collect(&mut units, place, &mut named, &mut visited);
        }
        Self { units, named }
    }

    /// The structure, union or alias called `name`, the first of `names` that is defined.
    pub fn find(&self, names: &[&str]) -> Option<Type<'_, 'a>> {
        names.iter().find_map(|name| self.at(*self.named.get(name.as_bytes())?))
    }

    /// The type at `place`, with aliases and qualifiers taken off.
    fn at(&self, mut place: Place) -> Option<Type<'_, 'a>> {
        for _ in 0..ALIASES_MAX {
            let (unit, entry) = self.units.entry(place)?;
            let tag = entry.tag();
            if !is_alias(tag) {
                return Some(Type { types: self, place, tag });
            }
            place = unit.target(&entry, dw::DW_AT_type)?;
        }
        None
    }
}

impl<'t, 'a> Type<'t, 'a> {
    /// Its size; `None` where it is not told, as that of an array without an end.
    pub fn size_bytes(&self) -> Option<u64> {
        let (mut of, mut total) = (*self, 1_u64);
        for _ in 0..NESTING_MAX {
            let (_, entry) = of.types.units.entry(of.place)?;
            if let Some(size_bytes) = entry.attr_value(dw::DW_AT_byte_size) {
                return size_bytes.udata_value()?.checked_mul(total);
            }
            let (element, count) = of.elements()?;
            (of, total) = (element, total.checked_mul(count?)?);
        }
        None
    }

    /// Of an array: the type of its elements and, where it has an end, their number.
    pub fn elements(&self) -> Option<(Self, Option<u64>)> {
        if self.tag != dw::DW_TAG_array_type {
            return None;
        }
        let (unit, entry) = self.types.units.entry(self.place)?;
        let element = self.types.at(unit.target(&entry, dw::DW_AT_type)?)?;
        let mut count = Some(1_u64);
        let mut dimensions = 0;
        let subrange = |tag| tag == dw::DW_TAG_subrange_type;
        self.types.units.children(self.place, subrange, |_, _, entry| {
            dimensions += 1;
            count = count.zip(length(entry)).and_then(|(count, length)| count.checked_mul(length));
        })?;
        Some((element, count.filter(|_| dimensions > 0)))
    }

    /// The member at the end of a dotted path.
    pub fn member(&self, path: &str) -> Option<Member<'t, 'a>> {
        let mut member = Member { offset_bytes: 0, of: *self };
        for name in path.split('.') {
            let next = member.of.element().own_member(name.as_bytes())?;
            member = Member { offset_bytes: member.offset_bytes.checked_add(next.offset_bytes)?, ..next };
        }
        Some(member)
    }

    /// The offset of the member at the end of a dotted path.
    pub fn offset_bytes(&self, path: &str) -> Option<u64> {
        self.member(path).map(|member| member.offset_bytes)
    }

    /// What an array consists of, itself if it is none.
    fn element(&self) -> Self {
        let elements = |of: &Self| of.elements().map(|(element, _)| element);
        std::iter::successors(Some(*self), elements).take(NESTING_MAX).last().unwrap_or(*self)
    }

    /// A member of the structure itself or of one without a name inside it.
    fn own_member(&self, name: &[u8]) -> Option<Member<'t, 'a>> {
        let mut outer = vec![(*self, 0)];
        let mut visited = HashSet::new();
        while let Some((structure, outer_bytes)) = outer.pop() {
            // What was not in it the first time is not in it now.
            if !is_structure(structure.tag) || !visited.insert(structure.place) {
                continue;
            }
            for (own_name, place, offset_bytes) in structure.members() {
                let Some(offset_bytes) = offset_bytes.checked_add(outer_bytes) else { continue };
                match own_name {
                    Some(own_name) if own_name == name => {
                        return Some(Member { offset_bytes, of: self.types.at(place)? });
                    }
                    Some(_) => {}
                    None => outer.extend(self.types.at(place).map(|of| (of, offset_bytes))),
                }
            }
        }
        None
    }

    /// The members of a structure: name, place of the type, offset.
    fn members(&self) -> Vec<(Option<&'a [u8]>, Place, u64)> {
        let units = &self.types.units;
        let mut members = Vec::new();
        let is_member = |tag| tag == dw::DW_TAG_member;
        let visit = |unit: &Unit<'a>, _, entry: &Entry<'a>| {
            let place = unit.target(entry, dw::DW_AT_type).zip(location(entry));
            let name = units.name(unit, entry).map(|name| name.slice());
            members.extend(place.map(|(place, offset_bytes)| (name, place, offset_bytes)));
        };
        // What was met before a damaged entry holds.
        let _ = units.children(self.place, is_member, visit);
        members
    }
}

/// Whether a unit's name is that of `source`, which some builds put a prefix and `_` before.
fn is_source(name: &str, source: &str) -> bool {
    name.strip_suffix(source).is_some_and(|before| before.is_empty() || before.ends_with(['/', '_']))
}

fn is_structure(tag: DwTag) -> bool {
    matches!(tag, dw::DW_TAG_structure_type | dw::DW_TAG_union_type | dw::DW_TAG_class_type)
}

fn is_alias(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type
    )
}

/// Adds the types that the unit at `place` and those that it imports define.
fn collect<'a>(
    units: &mut Units<'a>,
    place: Place,
    named: &mut HashMap<Vec<u8>, Place>,
    visited: &mut HashSet<Place>,
) {
    let mut wanted = vec![place];
    while let Some(place) = wanted.pop() {
        if !visited.insert(place) {
            continue;
        }
        if units.read(place).is_none() {
            continue;
        }
        let units = &*units;
        let tells = |tag| is_structure(tag) || tag == dw::DW_TAG_typedef || tag == dw::DW_TAG_imported_unit;
        let visit = |unit: &Unit<'a>, place: Place, entry: &Entry<'a>| {
            if entry.tag() == dw::DW_TAG_imported_unit {
                wanted.extend(unit.target(entry, dw::DW_AT_import));
            } else if !entry.has_attr(dw::DW_AT_declaration)
                && let Some(name) = units.name(unit, entry)
            {
                named.entry(name.slice().to_vec()).or_insert(place);
            }
        };
        // What was collected before a damaged entry holds.
        let _ = units.children(place, tells, visit);
    }
}

/// Elements in one dimension of an array.
fn length(subrange: &Entry<'_>) -> Option<u64> {
    if let Some(count) = subrange.attr_value(dw::DW_AT_count) {
        return count.udata_value();
    }
    let last = subrange.attr_value(dw::DW_AT_upper_bound)?;
    match last.udata_value() {
        Some(last) => last.checked_add(1),
        // The last index of an array of no elements is -1.
        None => u64::try_from(last.sdata_value()?.checked_add(1)?).ok(),
    }
}

/// Where a member lies in its structure; the members of a union tell no place, a bit field has none in bytes.
fn location(member: &Entry<'_>) -> Option<u64> {
    if member.has_attr(dw::DW_AT_bit_size) {
        return None;
    }
    let Some(location) = member.attr_value(dw::DW_AT_data_member_location) else { return Some(0) };
    if let Some(offset_bytes) = location.udata_value() {
        return Some(offset_bytes);
    }
    // Up to DWARF 3 it is an expression that adds a constant to the structure's address.
    let expression = location.exprloc_value()?;
    let mut code = expression.0;
    let opcode = gimli::Reader::read_u8(&mut code).ok()?;
    if gimli::DwOp(opcode) != dw::DW_OP_plus_uconst {
        return None;
    }
    gimli::Reader::read_uleb128(&mut code).ok()
}
