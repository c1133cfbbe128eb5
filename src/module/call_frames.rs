//! What an image says of its call frames: the sections, where they lie, and the bytes of its code.
//!
//! Section headers are used where there are any, else the program headers, which also a file without sections
//! has. What the sections say is for [`crate::unwind`].

use super::Image;
use heaptap_platform::AddressRange;
use object::elf;
use object::read::elf::ProgramHeader;
use object::{LittleEndian, Object, ObjectSection};
use std::borrow::Cow;

/// A section: its address in the file, and its bytes.
pub type Section<'a> = (u64, Cow<'a, [u8]>);

/// Sections with call frame information.
#[derive(Debug, Clone, Default)]
pub struct CallFrameSections<'a> {
    /// `.eh_frame`, which is loaded with the code.
    pub eh_frame: Option<Section<'a>>,
    /// `.eh_frame_hdr`, its table for searching.
    pub eh_frame_hdr: Option<Section<'a>>,
    /// `.debug_frame`, which is not loaded.
    pub debug_frame: Option<Section<'a>>,
    /// Address of `.text` in the file, to which pointers may be relative.
    pub text: u64,
    /// Address of `.got` in the file, to which pointers may be relative.
    pub got: u64,
}

/// Sections of call frames that are unpacked, at most.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

impl Image {
    /// The sections with call frame information.
    pub fn call_frame_sections(&self) -> CallFrameSections<'_> {
        let mut found = CallFrameSections::default();
        if let Some(file) = self.parsed() {
            let section = |name: &str| {
                let section = file.section_by_name(name)?;
                let data = section.compressed_data().ok()?;
                if data.uncompressed_size > UNPACKED_BYTES_MAX || data.uncompressed_size == 0 {
                    return None;
                }
                Some((section.address(), data.decompress().ok()?))
            };
            let address = |name: &str| file.section_by_name(name).map_or(0, |section| section.address());
            found = CallFrameSections {
                eh_frame: section(".eh_frame"),
                eh_frame_hdr: section(".eh_frame_hdr"),
                debug_frame: section(".debug_frame"),
                text: address(".text"),
                got: address(".got"),
            };
        }
        if found.eh_frame_hdr.is_none() {
            found.eh_frame_hdr = self.eh_frame_hdr_of_segments();
        }
        found
    }

    /// The table that the program headers name.
    fn eh_frame_hdr_of_segments(&self) -> Option<Section<'_>> {
        let header =
            self.segments().iter().find(|segment| segment.p_type(LittleEndian) == elf::PT_GNU_EH_FRAME)?;
        let bytes = header.data(LittleEndian, self.bytes()).ok()?;
        Some((header.p_vaddr(LittleEndian), Cow::Borrowed(bytes)))
    }

    /// The bytes that are loaded at an address of the file, up to the end of their segment.
    pub fn loaded_from(&self, address: u64) -> Option<&[u8]> {
        self.segments().iter().find_map(|segment| {
            let start = segment.p_vaddr(LittleEndian);
            let skipped = usize::try_from(address.checked_sub(start)?).ok()?;
            if segment.p_type(LittleEndian) != elf::PT_LOAD {
                return None;
            }
            segment.data(LittleEndian, self.bytes()).ok()?.get(skipped..).filter(|rest| !rest.is_empty())
        })
    }

    /// Where code lies, by the addresses of the file.
    pub fn code(&self) -> Vec<AddressRange> {
        self.segments()
            .iter()
            .filter(|segment| {
                segment.p_type(LittleEndian) == elf::PT_LOAD
                    && segment.p_flags(LittleEndian).0 & elf::PF_X.0 != 0
            })
            .filter_map(|segment| {
                let start = segment.p_vaddr(LittleEndian);
                Some(AddressRange { start, end: start.checked_add(segment.p_memsz(LittleEndian))? })
            })
            .collect()
    }

    /// Linkage tables, by the addresses of the file: stubs that the linker wrote.
    pub fn linkage_stubs(&self) -> Vec<AddressRange> {
        let Some(file) = self.parsed() else { return Vec::new() };
        file.sections()
            .filter(|section| {
                section.name().is_ok_and(|name| name.starts_with(".plt") || name.starts_with(".iplt"))
            })
            .filter_map(|section| {
                let start = section.address();
                Some(AddressRange { start, end: start.checked_add(section.size())? })
            })
            .collect()
    }
}
