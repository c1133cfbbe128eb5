//! The call frame information of one module: finding the function that an address belongs to.
//!
//! `.eh_frame` is searched through `.eh_frame_hdr`, where a linker made one; else, and for `.debug_frame`, an index
//! is made on first use.

use crate::arch::Cpu;
use crate::module::Image;
use crate::module::call_frames::{CallFrameSections, Section};
use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EhFrameHdr, EndianSlice, FrameDescriptionEntry,
    LittleEndian, ParsedEhFrameHdr, UnwindOffset, UnwindSection,
};
use heaptap_platform::Architecture;
use std::borrow::Cow;
use std::cell::OnceCell;

/// Bytes of a section.
pub type Reader<'a> = EndianSlice<'a, LittleEndian>;
/// What a section says of one function.
pub type Fde<'a> = FrameDescriptionEntry<Reader<'a>>;

const ADDRESS_BYTES: u8 = 8;
/// Functions in the index of one section at most.
const FUNCTIONS_MAX: usize = 8_000_000;
/// Instructions of one function, in bytes, at most: the longest met in real programs has some ten thousand.
const FUNCTION_BYTES_MAX: usize = 1 << 20;

/// The call frame information of one file.
#[derive(Debug)]
pub struct CallFrameTable<'m> {
    sections: CallFrameSections<'m>,
    bases: BaseAddresses,
    vendor: gimli::Vendor,
    /// By start: where the functions of a section are described, made where there is no other way to search.
    eh_index: OnceCell<Vec<IndexEntry>>,
    debug_index: OnceCell<Vec<IndexEntry>>,
}

#[derive(Debug, Clone, Copy)]
struct IndexEntry {
    start: u64,
    end: u64,
    offset: usize,
}

/// The section in which a function was found, as gimli reads it.
#[derive(Debug)]
pub enum Found<'a> {
    /// In `.eh_frame`.
    Eh(EhFrame<Reader<'a>>, Fde<'a>),
    /// In `.debug_frame`.
    Debug(DebugFrame<Reader<'a>>, Fde<'a>),
}

impl<'m> CallFrameTable<'m> {
    /// The tables of an image, whose addresses are those of the file.
    pub fn of(image: &'m Image, cpu: &Cpu) -> Self {
        let mut sections = image.call_frame_sections();
        if sections.eh_frame.is_none() {
            sections.eh_frame = sections.eh_frame_hdr.as_ref().and_then(|hdr| eh_frame_by_hdr(image, hdr));
        }
        Self::new(sections, cpu)
    }

    /// The tables of a file with debug information, if there is one: it has no bytes for what is loaded.
    pub fn of_debug_file(image: Option<&'m Image>, cpu: &Cpu) -> Self {
        let all = image.map(Image::call_frame_sections).unwrap_or_default();
        Self::new(CallFrameSections { eh_frame: None, eh_frame_hdr: None, ..all }, cpu)
    }

    fn new(sections: CallFrameSections<'m>, cpu: &Cpu) -> Self {
        let address = |section: &Option<Section<'_>>| section.as_ref().map_or(0, |(address, _)| *address);
        let bases = BaseAddresses::default()
            .set_eh_frame(address(&sections.eh_frame))
            .set_eh_frame_hdr(address(&sections.eh_frame_hdr))
            .set_text(sections.text)
            .set_got(sections.got);
        let vendor = match cpu.architecture {
            Architecture::Aarch64 => gimli::Vendor::AArch64,
            Architecture::X86_64 => gimli::Vendor::Default,
        };
        Self { sections, bases, vendor, eh_index: OnceCell::new(), debug_index: OnceCell::new() }
    }

    /// What addresses in the sections are relative to.
    pub const fn bases(&self) -> &BaseAddresses {
        &self.bases
    }

    /// What is said of the function at an address of the file.
    pub fn find(&self, address: u64) -> Option<Found<'_>> {
        self.find_in_eh_frame(address).or_else(|| self.find_in_debug_frame(address))
    }

    fn find_in_eh_frame(&self, address: u64) -> Option<Found<'_>> {
        let section = self.eh_frame()?;
        let offset = match self.search_hdr(address) {
            Searched::Found(offset) => offset,
            Searched::Nothing => return None,
            Searched::NoTable => {
                find_in(self.eh_index.get_or_init(|| index(&section, &self.bases)), address)?
            }
        };
        let fde = fde_at(&section, &self.bases, offset, address)?;
        Some(Found::Eh(section, fde))
    }

    fn find_in_debug_frame(&self, address: u64) -> Option<Found<'_>> {
        let (_, bytes) = self.sections.debug_frame.as_ref()?;
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(ADDRESS_BYTES);
        section.set_vendor(self.vendor);
        let index = self.debug_index.get_or_init(|| index(&section, &self.bases));
        let fde = fde_at(&section, &self.bases, find_in(index, address)?, address)?;
        Some(Found::Debug(section, fde))
    }

    fn eh_frame(&self) -> Option<EhFrame<Reader<'_>>> {
        let (_, bytes) = self.sections.eh_frame.as_ref()?;
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(ADDRESS_BYTES);
        section.set_vendor(self.vendor);
        Some(section)
    }

    fn search_hdr(&self, address: u64) -> Searched {
        let Some((_, bytes)) = &self.sections.eh_frame_hdr else { return Searched::NoTable };
        let Some(hdr) = parse_hdr(bytes, &self.bases) else { return Searched::NoTable };
        let Some(table) = hdr.table() else { return Searched::NoTable };
        let eh_frame = self.sections.eh_frame.as_ref().map_or(0, |(address, _)| *address);
        let found = table.lookup(address, &self.bases).ok().and_then(|pointer| pointer.direct().ok());
        match found.and_then(|fde| usize::try_from(fde.checked_sub(eh_frame)?).ok()) {
            Some(offset) => Searched::Found(offset),
            None => Searched::Nothing,
        }
    }
}

enum Searched {
    /// The entry nearest below the address; it may end before it.
    Found(usize),
    /// The table has none.
    Nothing,
    /// There is no table that can be searched.
    NoTable,
}

fn parse_hdr<'a>(bytes: &'a [u8], bases: &BaseAddresses) -> Option<ParsedEhFrameHdr<Reader<'a>>> {
    EhFrameHdr::new(bytes, LittleEndian).parse(bases, ADDRESS_BYTES).ok()
}

/// `.eh_frame` of a file without section headers: from where its table says to the end of the segment.
fn eh_frame_by_hdr<'m>(image: &'m Image, hdr: &Section<'m>) -> Option<Section<'m>> {
    let bases = BaseAddresses::default().set_eh_frame_hdr(hdr.0);
    let address = parse_hdr(&hdr.1, &bases)?.eh_frame_ptr().direct().ok()?;
    Some((address, Cow::Borrowed(image.loaded_from(address)?)))
}

/// All functions of a section, by their addresses. What follows an entry that cannot be read is lost.
fn index<'a, S: UnwindSection<Reader<'a>>>(section: &S, bases: &BaseAddresses) -> Vec<IndexEntry> {
    let mut entries = section.entries(bases);
    let mut index = Vec::new();
    let mut last_cie = None;
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else { continue };
        let parsed = partial.parse(|section, bases, offset| match &last_cie {
            Some((known, cie)) if *known == offset => Ok(gimli::CommonInformationEntry::clone(cie)),
            _ => {
                let cie = section.cie_from_offset(bases, offset)?;
                last_cie = Some((offset, cie.clone()));
                Ok(cie)
            }
        });
        let Ok(fde) = parsed else { continue };
        let Some(end) = fde.initial_address().checked_add(fde.len()) else { continue };
        // Functions that the linker dropped are left at address 0.
        if fde.initial_address() == 0 || fde.len() == 0 {
            continue;
        }
        index.push(IndexEntry { start: fde.initial_address(), end, offset: fde.offset() });
        if index.len() == FUNCTIONS_MAX {
            break;
        }
    }
    index.sort_unstable_by_key(|entry| entry.start);
    index
}

fn find_in(index: &[IndexEntry], address: u64) -> Option<usize> {
    let after = index.partition_point(|entry| entry.start <= address);
    let entry = index.get(after.checked_sub(1)?)?;
    if address < entry.end { Some(entry.offset) } else { None }
}

/// The entry at an offset, if it is about the address.
fn fde_at<'a, S>(section: &S, bases: &BaseAddresses, offset: usize, address: u64) -> Option<Fde<'a>>
where
    S: UnwindSection<Reader<'a>>,
    S::Offset: UnwindOffset<usize> + From<usize>,
{
    if offset >= section.section().len() {
        return None;
    }
    let fde = section.fde_from_offset(bases, S::Offset::from(offset), S::cie_from_offset).ok()?;
    if fde.entry_len() > FUNCTION_BYTES_MAX || fde.cie().entry_len() > FUNCTION_BYTES_MAX {
        return None;
    }
    fde.contains(address).then_some(fde)
}
