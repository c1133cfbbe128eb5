//! Split DWARF: compilers can leave the debug information of a unit in a file of its own (`.dwo`), and `dwp` joins those of
//! a program beside it (`.dwp`). What is left in the program names the file and a number that must agree.

use super::debug_information::{Reader, load};
use super::files::UnpackedSections;
use crate::module::{Image, OpenImage};
use gimli::{Dwarf, DwarfPackage, DwoId, EndianSlice, LittleEndian, SectionId, UnitType};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Units of one program whose files are opened, at most.
const UNITS_MAX: usize = 10_000;
/// Bytes that a packed section is unpacked to, at most.
const SECTION_BYTES_MAX: u64 = 4 << 30;

/// Sections of such files.
const SECTIONS: [SectionId; 10] = [
    SectionId::DebugAbbrev,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
    SectionId::DebugCuIndex,
];

/// The files of one program, opened.
#[derive(Debug, Default)]
pub struct SplitFiles {
    package: Option<SplitFile>,
    units: Vec<(u64, SplitFile)>,
}

/// One file, with what is compressed in it unpacked.
#[derive(Debug)]
struct SplitFile {
    image: Image,
    unpacked: Vec<(SectionId, Vec<u8>)>,
}

impl SplitFiles {
    /// Opens the files that the units of `main` name; the program's own path is `program`.
    pub fn find(main: &Image, program: &Path, open: &dyn OpenImage) -> Self {
        // Every unit whose rest is elsewhere has its addresses in this section.
        if main.section(".debug_addr", SECTION_BYTES_MAX).is_none_or(|bytes| bytes.is_empty()) {
            return Self::default();
        }
        let unpacked = UnpackedSections::of(main, &super::debug_information::SECTIONS);
        let wanted = load(main, &unpacked).map(|dwarf| named(&dwarf)).unwrap_or_default();
        if wanted.is_empty() {
            return Self::default();
        }
        let mut beside = program.as_os_str().to_owned();
        beside.push(".dwp");
        let package = open.open_in_root(Path::new(&beside)).map(SplitFile::new);
        let mut units = Vec::new();
        if package.is_none() {
            for (id, path) in wanted {
                units.extend(open.open_in_root(&path).map(|image| (id, SplitFile::new(image))));
            }
        }
        Self { package, units }
    }

    /// The rest of the unit with this number.
    pub fn unit<'a>(&'a self, id: DwoId, parent: &Dwarf<Reader<'a>>) -> Option<Arc<Dwarf<Reader<'a>>>> {
        let empty = EndianSlice::new(&[], LittleEndian);
        if let Some(file) = &self.package {
            let package = DwarfPackage::load(|id| Ok::<_, gimli::Error>(file.section(id)), empty).ok()?;
            return package.find_cu(id, parent).ok()?.map(Arc::new);
        }
        let (_, file) = self.units.iter().find(|(known, _)| *known == id.0)?;
        let mut dwarf = Dwarf::load(|id| Ok::<_, gimli::Error>(file.section(id))).ok()?;
        dwarf.make_dwo(parent);
        // The file may be of another build.
        let header = dwarf.units().next().ok()??;
        let found = dwarf.unit(header).ok()?.dwo_id;
        (found == Some(id)).then(|| Arc::new(dwarf))
    }
}

impl SplitFile {
    fn new(image: Image) -> Self {
        let unpacked = |id: &SectionId| match image.section(name(*id)?, SECTION_BYTES_MAX)? {
            Cow::Owned(bytes) => Some((*id, bytes)),
            Cow::Borrowed(_) => None,
        };
        let unpacked = SECTIONS.iter().filter_map(unpacked).collect();
        Self { image, unpacked }
    }

    fn section(&self, id: SectionId) -> Reader<'_> {
        let packed = self.unpacked.iter().find(|(known, _)| *known == id);
        let bytes = packed.map_or_else(
            || match name(id).and_then(|name| self.image.section(name, SECTION_BYTES_MAX)) {
                Some(Cow::Borrowed(bytes)) => bytes,
                _ => &[],
            },
            |(_, bytes)| bytes.as_slice(),
        );
        EndianSlice::new(bytes, LittleEndian)
    }
}

fn name(id: SectionId) -> Option<&'static str> {
    if id == SectionId::DebugCuIndex { Some(id.name()) } else { id.dwo_name() }
}

/// Numbers and files of all units whose rest is elsewhere.
fn named(dwarf: &Dwarf<Reader<'_>>) -> Vec<(u64, PathBuf)> {
    let mut found = Vec::new();
    let mut units = dwarf.units();
    while let Ok(Some(header)) = units.next() {
        // Before DWARF 5 a unit does not tell by its header.
        let may_be = matches!(header.type_(), UnitType::Skeleton(_)) || header.version() < 5;
        if !may_be || found.len() == UNITS_MAX {
            continue;
        }
        let Ok(unit) = dwarf.unit(header) else { continue };
        let Some(id) = unit.dwo_id else { continue };
        let file = unit.dwo_name().ok().flatten().and_then(|name| dwarf.attr_string(&unit, name).ok());
        let Some(file) = file else { continue };
        let folder = unit.comp_dir.map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((id.0, Path::new(&folder).join(&*file.to_string_lossy())));
    }
    found
}
