//! DWARF of an image: its sections, its compile units, and its entries by their place in `.debug_info`.
//!
//! Versions 2 to 5 in one file, also where `dwz` has moved common parts to partial units. It refuses to know split
//! DWARF and supplementary files. Damaged debug information counts as absent: it is help, and what it helps with
//! is proved anyhow.

use super::Image;
use gimli::{
    Abbreviations, AttributeValue, DebugAbbrev, DebugInfo, DebugInfoOffset, DebugLineStr, DebugStr,
    DebugStrOffsets, DebugStrOffsetsBase, DebuggingInformationEntry, DwarfFileType, EndianSlice, Format,
    LittleEndian, UnitHeader, UnitOffset, UnitType,
};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Most bytes that a section is decompressed to: reading more would take longer than all else that is done.
const DECOMPRESSED_BYTES_MAX: u64 = 128 << 20;

/// Most units of one file.
const UNITS_MAX: usize = 1 << 20;

pub(super) type Slice<'a> = EndianSlice<'a, LittleEndian>;
pub(super) type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// The sections that types are described in, decompressed where they are compressed.
#[derive(Debug)]
pub struct DebugSections<'a> {
    info: Cow<'a, [u8]>,
    abbreviations: Cow<'a, [u8]>,
    strings: Cow<'a, [u8]>,
    line_strings: Cow<'a, [u8]>,
    string_offsets: Cow<'a, [u8]>,
}

impl<'a> DebugSections<'a> {
    /// The sections of `image`, if it has any.
    pub fn of(image: &'a Image) -> Option<Self> {
        let section = |name| image.section(name, DECOMPRESSED_BYTES_MAX);
        Some(Self {
            info: section(".debug_info").filter(|bytes| !bytes.is_empty())?,
            abbreviations: section(".debug_abbrev")?,
            strings: section(".debug_str").unwrap_or_default(),
            line_strings: section(".debug_line_str").unwrap_or_default(),
            string_offsets: section(".debug_str_offsets").unwrap_or_default(),
        })
    }
}

/// Where an entry stands in `.debug_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(pub(super) usize);

/// A unit whose entries are read.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    header: UnitHeader<Slice<'a>>,
    abbreviations: Abbreviations,
    index: StringIndex,
    start: usize,
}

/// How a unit finds strings by their number.
#[derive(Debug, Clone, Copy)]
struct StringIndex {
    base: DebugStrOffsetsBase,
    format: Format,
}

/// All units of an image.
#[derive(Debug)]
pub(super) struct Units<'a> {
    abbreviations: DebugAbbrev<Slice<'a>>,
    strings: DebugStr<Slice<'a>>,
    line_strings: DebugLineStr<Slice<'a>>,
    string_offsets: DebugStrOffsets<Slice<'a>>,
    /// In the order of the file.
    headers: Vec<UnitHeader<Slice<'a>>>,
    /// Those that were read, by their start.
    read: BTreeMap<usize, Unit<'a>>,
}

impl<'a> Units<'a> {
    pub(super) fn of(sections: &'a DebugSections<'_>) -> Self {
        let slice = |bytes: &'a [u8]| EndianSlice::new(bytes, LittleEndian);
        let mut headers = Vec::new();
        let mut all = DebugInfo::from(slice(&sections.info)).units();
        while let (Ok(Some(header)), true) = (all.next(), headers.len() < UNITS_MAX) {
            headers.push(header);
        }
        Self {
            abbreviations: slice(&sections.abbreviations).into(),
            strings: slice(&sections.strings).into(),
            line_strings: slice(&sections.line_strings).into(),
            string_offsets: slice(&sections.string_offsets).into(),
            headers,
            read: BTreeMap::new(),
        }
    }

    /// The places of the compile units whose source's name passes `wanted`, with that name.
    pub(super) fn sources(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Place)> {
        let compile_units = self.headers.iter().filter(|header| header.type_() == UnitType::Compilation);
        compile_units
            .filter_map(|header| {
                let name = self.source(header)?;
                let name = std::str::from_utf8(name.slice()).ok()?;
                wanted(name).then_some((name.to_owned(), Place(start(header)?)))
            })
            .collect()
    }

    /// The name of a unit's source, from its root entry alone.
    fn source(&self, header: &UnitHeader<Slice<'a>>) -> Option<Slice<'a>> {
        let abbreviations = header.abbreviations(&self.abbreviations).ok()?;
        let root = header.entry(&abbreviations, header.root_offset()).ok()?;
        if root.tag() != gimli::DW_TAG_compile_unit {
            return None;
        }
        self.text(StringIndex::of(header, &root), root.attr_value(gimli::DW_AT_name)?)
    }

    /// Reads the unit in which `place` lies: only entries of units that were read are found.
    pub(super) fn read(&mut self, place: Place) -> Option<()> {
        let after =
            self.headers.partition_point(|header| start(header).is_some_and(|start| start <= place.0));
        let header = self.headers.get(after.checked_sub(1)?)?;
        let start = start(header)?;
        if !self.read.contains_key(&start) {
            let abbreviations = header.abbreviations(&self.abbreviations).ok()?;
            let root = header.entry(&abbreviations, header.root_offset()).ok()?;
            let index = StringIndex::of(header, &root);
            self.read.insert(start, Unit { header: *header, abbreviations, index, start });
        }
        Some(())
    }

    fn unit(&self, place: Place) -> Option<&Unit<'a>> {
        self.read.range(..=place.0).next_back().map(|(_, unit)| unit)
    }

    /// The entry at `place`, with the unit that it is part of.
    pub(super) fn entry(&self, place: Place) -> Option<(&Unit<'a>, Entry<'a>)> {
        let unit = self.unit(place)?;
        let entry = unit.header.entry(&unit.abbreviations, unit.offset(place)?).ok()?;
        Some((unit, entry))
    }

    /// Visits the entries directly below the one at `place` whose tag passes `wanted`.
    pub(super) fn children(
        &self,
        place: Place,
        wanted: impl Fn(gimli::DwTag) -> bool,
        mut visit: impl FnMut(&Unit<'a>, Place, &Entry<'a>),
    ) -> Option<()> {
        let unit = self.unit(place)?;
        let offset = unit.offset(place).unwrap_or_else(|| unit.header.root_offset());
        let mut rest = unit.header.entries_raw(&unit.abbreviations, Some(offset)).ok()?;
        let parent = rest.read_abbreviation().ok()??;
        rest.skip_attributes(parent.attributes()).ok()?;
        let mut entry = Entry::default();
        while rest.next_depth() > 0 && !rest.is_empty() {
            let (offset, depth) = (rest.next_offset(), rest.next_depth());
            let mut ahead = rest.clone();
            let Some(abbreviation) = rest.read_abbreviation().ok()? else { continue };
            if depth == 1 && wanted(abbreviation.tag()) {
                ahead.read_entry(&mut entry).ok()?;
                visit(unit, Place(unit.start + offset.0), &entry);
                rest = ahead;
            } else {
                rest.skip_attributes(abbreviation.attributes()).ok()?;
            }
        }
        Some(())
    }

    /// The name that an entry of `unit` bears.
    pub(super) fn name(&self, unit: &Unit<'a>, entry: &Entry<'a>) -> Option<Slice<'a>> {
        self.text(unit.index, entry.attr_value(gimli::DW_AT_name)?)
    }

    fn text(&self, index: StringIndex, value: AttributeValue<Slice<'a>>) -> Option<Slice<'a>> {
        match value {
            AttributeValue::String(text) => Some(text),
            AttributeValue::DebugStrRef(offset) => self.strings.get_str(offset).ok(),
            AttributeValue::DebugLineStrRef(offset) => self.line_strings.get_str(offset).ok(),
            AttributeValue::DebugStrOffsetsIndex(number) => {
                let offset = self.string_offsets.get_str_offset(index.format, index.base, number).ok()?;
                self.strings.get_str(offset).ok()
            }
            _ => None,
        }
    }
}

impl Unit<'_> {
    /// The entry's offset in this unit; `None` for the unit itself.
    fn offset(&self, place: Place) -> Option<UnitOffset> {
        DebugInfoOffset(place.0).to_unit_offset(&self.header)
    }

    /// The place that an attribute of an entry of this unit refers to.
    pub(super) fn target(&self, entry: &Entry<'_>, attribute: gimli::DwAt) -> Option<Place> {
        match entry.attr_value(attribute)? {
            AttributeValue::UnitRef(offset) => Some(Place(self.start.checked_add(offset.0)?)),
            AttributeValue::DebugInfoRef(offset) => Some(Place(offset.0)),
            _ => None,
        }
    }
}

fn start(header: &UnitHeader<Slice<'_>>) -> Option<usize> {
    header.debug_info_offset().map(|offset| offset.0)
}

impl StringIndex {
    fn of(header: &UnitHeader<Slice<'_>>, root: &Entry<'_>) -> Self {
        let base = match root.attr_value(gimli::DW_AT_str_offsets_base) {
            Some(AttributeValue::DebugStrOffsetsBase(base)) => base,
            _ => DebugStrOffsetsBase::default_for_encoding_and_file(header.encoding(), DwarfFileType::Main),
        };
        Self { base, format: header.format() }
    }
}
