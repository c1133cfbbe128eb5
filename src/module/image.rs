//! Images: the bytes of an ELF file and the few things that are asked of them.

use heaptap_platform::{AddressRange, MappedFile, Mapping};
use object::elf::{self, FileHeader64};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol};
use std::path::{Path, PathBuf};

/// A symbol with an address; names are as in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Its address: in the file, or in the process once a bias has been added.
    pub address: u64,
    /// Its size in bytes, 0 where the table does not say.
    pub size_bytes: u64,
}

/// The bytes of one file.
#[derive(Debug)]
pub struct Image {
    bytes: ImageBytes,
}

#[derive(Debug)]
enum ImageBytes {
    File(MappedFile),
    /// The image has no file, or was unpacked from another one.
    Copied(Vec<u8>),
}

/// Most symbols that are taken from one file.
const SYMBOLS_MAX: usize = 8_000_000;

impl Image {
    /// Takes over the bytes of a file.
    pub const fn new(file: MappedFile) -> Self {
        Self { bytes: ImageBytes::File(file) }
    }

    /// Takes over bytes that are no file: the code that the kernel offers to a process, for one.
    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { bytes: ImageBytes::Copied(bytes) }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            ImageBytes::File(file) => file.bytes(),
            ImageBytes::Copied(bytes) => bytes,
        }
    }

    /// Whether the file is an ELF file for 64-bit little-endian processes.
    pub fn is_elf(&self) -> bool {
        self.header().is_some()
    }

    fn header(&self) -> Option<&FileHeader64<LittleEndian>> {
        FileHeader64::<LittleEndian>::parse(self.bytes()).ok()
    }

    pub(super) fn segments(&self) -> &[elf::ProgramHeader64<LittleEndian>] {
        self.header()
            .and_then(|header| header.program_headers(LittleEndian, self.bytes()).ok())
            .unwrap_or_default()
    }

    pub(super) fn parsed(&self) -> Option<ElfFile64<'_, LittleEndian>> {
        ElfFile64::parse(self.bytes()).ok()
    }

    /// What must be added to the file's addresses to get those of the process that has `mapping` of it.
    pub fn bias(&self, mapping: &Mapping) -> Option<u64> {
        let map_end = mapping.file_offset.saturating_add(mapping.range.len_bytes());
        let holds = |segment: &&elf::ProgramHeader64<LittleEndian>| {
            let start = segment.p_offset(LittleEndian);
            let end = start.saturating_add(segment.p_filesz(LittleEndian));
            segment.p_type(LittleEndian) == elf::PT_LOAD && start < map_end && end > mapping.file_offset
        };
        let segment = self.segments().iter().find(holds)?;
        let svma = segment
            .p_vaddr(LittleEndian)
            .wrapping_sub(segment.p_offset(LittleEndian))
            .wrapping_add(mapping.file_offset);
        Some(mapping.range.start.wrapping_sub(svma))
    }

    /// Writable segments in the process, whole pages, with their zero-filled part.
    pub fn writable_segments(&self, bias: u64) -> Vec<AddressRange> {
        let writable = |segment: &&elf::ProgramHeader64<LittleEndian>| {
            segment.p_type(LittleEndian) == elf::PT_LOAD && is_writable(segment)
        };
        let range = |segment: &elf::ProgramHeader64<LittleEndian>| {
            let start = segment.p_vaddr(LittleEndian).wrapping_add(bias);
            let end = start.checked_add(segment.p_memsz(LittleEndian))?.checked_add(0xfff)?;
            Some(AddressRange { start: start & !0xfff, end: end & !0xfff })
        };
        self.segments().iter().filter(writable).filter_map(range).collect()
    }

    /// Read-only bytes of the file with their address in it: where string literals and constant tables lie.
    ///
    /// Sections tell it finer; a file without section headers gives its whole read-only segments.
    pub fn read_only(&self) -> Vec<(u64, &[u8])> {
        let sections: Vec<(u64, &[u8])> = self
            .parsed()
            .map(|file| {
                file.sections()
                    .filter(|section| {
                        matches!(
                            section.kind(),
                            object::SectionKind::ReadOnlyData | object::SectionKind::ReadOnlyString
                        ) && section.size() > 0
                    })
                    .filter_map(|section| Some((section.address(), section.data().ok()?)))
                    .filter(|(address, _)| *address != 0)
                    .collect()
            })
            .unwrap_or_default();
        if !sections.is_empty() {
            return sections;
        }
        self.segments()
            .iter()
            .filter(|segment| segment.p_type(LittleEndian) == elf::PT_LOAD && !is_writable(segment))
            .filter_map(|segment| {
                Some((segment.p_vaddr(LittleEndian), segment.data(LittleEndian, self.bytes()).ok()?))
            })
            .collect()
    }

    /// Whether the file's own address `address` is in a segment that is executed; nothing where it is in none.
    pub fn is_executed(&self, address: u64) -> Option<bool> {
        let holds = |segment: &&elf::ProgramHeader64<LittleEndian>| {
            let start = segment.p_vaddr(LittleEndian);
            segment.p_type(LittleEndian) == elf::PT_LOAD
                && address >= start
                && address - start < segment.p_memsz(LittleEndian)
        };
        let segment = self.segments().iter().find(holds)?;
        Some(segment.p_flags(LittleEndian).0 & elf::PF_X.0 != 0)
    }

    /// The bytes that the file has for its own address `address`, before any relocation.
    pub fn loaded_bytes(&self, address: u64, len_bytes: usize) -> Option<&[u8]> {
        let holds = |segment: &&elf::ProgramHeader64<LittleEndian>| {
            let start = segment.p_vaddr(LittleEndian);
            segment.p_type(LittleEndian) == elf::PT_LOAD
                && address >= start
                && address - start < segment.p_filesz(LittleEndian)
        };
        let segment = self.segments().iter().find(holds)?;
        let start = usize::try_from(address - segment.p_vaddr(LittleEndian)).ok()?;
        let data = segment.data(LittleEndian, self.bytes()).ok()?;
        data.get(start..start.checked_add(len_bytes)?)
    }

    /// Thread-local storage: size and alignment of the module's block.
    pub fn thread_local_bytes(&self) -> Option<(u64, u64)> {
        let segment = self.segments().iter().find(|segment| segment.p_type(LittleEndian) == elf::PT_TLS)?;
        Some((segment.p_memsz(LittleEndian), segment.p_align(LittleEndian)))
    }

    /// The build id, hexadecimal.
    pub fn build_id(&self) -> Option<String> {
        let id = self.parsed()?.build_id().ok()??.to_vec();
        Some(id.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether the file carries DWARF.
    pub fn has_debug_info(&self) -> bool {
        self.parsed()
            .is_some_and(|file| file.section_by_name(".debug_info").is_some_and(|section| section.size() > 0))
    }

    /// Where a file with this one's debug information may lie, the usual places first.
    pub fn debug_paths(&self, own: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if let Some(id) = self.build_id()
            && let Some((folder, file)) = id.split_at_checked(2)
        {
            paths.push(PathBuf::from(format!("/usr/lib/debug/.build-id/{folder}/{file}.debug")));
        }
        let link = self.parsed().and_then(|file| {
            let (name, _) = file.gnu_debuglink().ok()??;
            Some(PathBuf::from(String::from_utf8_lossy(name).into_owned()))
        });
        if let (Some(link), Some(folder)) = (link, own.parent()) {
            paths.push(folder.join(&link));
            paths.push(folder.join(".debug").join(&link));
            let below = folder.strip_prefix("/").unwrap_or(folder);
            paths.push(Path::new("/usr/lib/debug").join(below).join(&link));
        }
        paths
    }

    /// Defined symbols of both tables.
    pub fn symbols(&self) -> Vec<Symbol> {
        let Some(file) = self.parsed() else { return Vec::new() };
        file.symbols()
            .chain(file.dynamic_symbols())
            .filter(|symbol| symbol.is_definition())
            .filter_map(|symbol| {
                Some(Symbol {
                    name: symbol.name().ok()?.to_owned(),
                    address: symbol.address(),
                    size_bytes: symbol.size(),
                })
            })
            .take(SYMBOLS_MAX)
            .collect()
    }

    /// A section, decompressed where it is compressed; none that would have more than `bytes_max` then.
    pub fn section(&self, name: &str, bytes_max: u64) -> Option<std::borrow::Cow<'_, [u8]>> {
        let data = self.parsed()?.section_by_name(name)?.compressed_data().ok()?;
        let is_compressed = data.format != object::CompressionFormat::None;
        if is_compressed && data.uncompressed_size > bytes_max { None } else { data.decompress().ok() }
    }
}

/// A file of this machine.
pub fn open_here(path: &Path) -> Option<Image> {
    let file = std::fs::File::open(path).ok().filter(|file| file.metadata().is_ok_and(|it| it.is_file()))?;
    MappedFile::map(&file).ok().map(Image::new).filter(Image::is_elf)
}

fn is_writable(segment: &elf::ProgramHeader64<LittleEndian>) -> bool {
    segment.p_flags(LittleEndian).0 & elf::PF_W.0 != 0
}
