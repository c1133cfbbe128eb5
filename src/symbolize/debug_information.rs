//! Functions, inlined calls and source lines by DWARF.

use super::files::UnpackedSections;
use super::split::SplitFiles;
use super::{DebugFiles, Name, demangle};
use crate::module::{Image, Module};
use addr2line::{Context, LookupContinuation, LookupResult};
use gimli::{Dwarf, EndianSlice, LittleEndian, SectionId};
use std::fmt;

/// Inlined calls at one address at most.
const INLINED_MAX: usize = 1000;

/// Sections that name code.
pub(super) const SECTIONS: [SectionId; 11] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

pub(super) type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// The debug information of one module. Damaged parts of it count as absent.
pub struct DebugInformation<'a> {
    context: Context<Reader<'a>>,
    split: &'a SplitFiles,
}

impl fmt::Debug for DebugInformation<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DebugInformation").finish_non_exhaustive()
    }
}

impl<'a> DebugInformation<'a> {
    /// That of a module, if any of its files has some.
    pub fn of(files: &'a DebugFiles, module: &'a Module) -> Option<Self> {
        let image = files.with_debug_information(module)?;
        let mut dwarf = load(image, files.unpacked.get_or_init(|| UnpackedSections::of(image, &SECTIONS)))?;
        if let Some(shared) = files.shared() {
            let unpacked = files.unpacked_shared.get_or_init(|| UnpackedSections::of(shared, &SECTIONS));
            dwarf.set_sup(load(shared, unpacked)?);
        }
        Context::from_dwarf(dwarf).ok().map(|context| Self { context, split: &files.split })
    }

    /// The names at an address of the file, inlined functions first; none where nothing is said of it.
    pub fn names(&self, address: u64) -> Vec<Name> {
        let mut lookup = self.context.find_frames(address);
        let found = loop {
            match lookup {
                LookupResult::Output(found) => break found,
                LookupResult::Load { load, continuation } => {
                    lookup = continuation.resume(self.split.unit(load.dwo_id, &load.parent));
                }
            }
        };
        let Ok(mut frames) = found else { return Vec::new() };
        let mut names: Vec<Name> = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let function = frame.function.as_ref().and_then(|name| name.raw_name().ok());
            let location = frame.location;
            names.push(Name {
                function: function.map(|name| demangle::demangle(&name)),
                file: location.as_ref().and_then(|place| place.file).map(str::to_owned),
                line: location.and_then(|place| place.line).filter(|line| *line > 0),
                is_inlined: true,
            });
            if names.len() == INLINED_MAX {
                break;
            }
        }
        if let Some(outermost) = names.last_mut() {
            outermost.is_inlined = false;
        }
        names
    }
}

pub(super) fn load<'a>(image: &'a Image, unpacked: &'a UnpackedSections) -> Option<Dwarf<Reader<'a>>> {
    Dwarf::load(|id| {
        let bytes = if SECTIONS.contains(&id) { unpacked.section(image, id) } else { &[] };
        Ok::<_, gimli::Error>(EndianSlice::new(bytes, LittleEndian))
    })
    .ok()
}
