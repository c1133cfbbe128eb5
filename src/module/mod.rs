//! Modules: the ELF files that are mapped into a target, with their bytes where they can be had.
//!
//! A module knows where its segments lie in the process and what its file says: symbols, read-only data, debug
//! information. It refuses to know what any of it means to an allocator.

pub mod call_frames;
pub mod dwarf;
pub mod image;
pub mod loaded;
mod relocation;
pub mod types;

pub use image::{Image, Symbol};
pub use relocation::relocations;

use heaptap_platform::{AddressRange, Mapping, MappingKind, merge_ranges};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Mappings without a file behind a module's own that may be its data.
const ADJOINING_MAX: usize = 3;

/// One ELF file as the target has it mapped.
#[derive(Debug, Clone)]
pub struct Module {
    /// Path as the target sees it.
    pub path: PathBuf,
    /// Difference between an address in the process and the same address in the file.
    pub bias: u64,
    /// Everything mapped from the file, without gaps between.
    pub range: AddressRange,
    /// Data segments, with the zero-filled part that no file backs.
    pub writable: Vec<AddressRange>,
    /// The file's bytes; absent where it could not be opened.
    pub image: Option<Arc<Image>>,
    /// A separate file with symbols or debug information, where one was found.
    pub debug: Option<Arc<Image>>,
}

/// Opens the files behind mappings; the target knows how.
pub trait OpenImage {
    /// The file that `mapping` maps.
    fn open_module(&self, mapping: &Mapping) -> Option<Image>;
    /// A file below the target's own root.
    fn open_in_root(&self, path: &Path) -> Option<Image>;
    /// A file of this machine, as heaptap itself sees it.
    fn open_here(&self, path: &Path) -> Option<Image> {
        image::open_here(path)
    }
}

impl Module {
    /// The code that the kernel offers to the process; it has no file, so `bytes` are those of its memory.
    pub fn of_kernel(mapping: &Mapping, bytes: Vec<u8>) -> Option<Self> {
        let image = Some(Image::from_bytes(bytes)).filter(Image::is_elf)?;
        Some(Self {
            path: PathBuf::from("[vdso]"),
            bias: image.bias(mapping)?,
            range: mapping.range,
            writable: Vec::new(),
            image: Some(Arc::new(image)),
            debug: None,
        })
    }

    /// All modules of a process, in address order.
    pub fn all(mappings: &[Mapping], open: &dyn OpenImage) -> Vec<Self> {
        let mut modules = Vec::new();
        let mut rest = mappings;
        while let Some((first, tail)) = rest.split_first() {
            let MappingKind::File { path, .. } = &first.kind else {
                rest = tail;
                continue;
            };
            let count = 1 + tail.iter().take_while(|next| belongs(first, next)).count();
            let (group, others) = rest.split_at(count);
            modules.extend(Self::of(path, group, others, open));
            rest = others;
        }
        modules
    }

    /// The module of a group of mappings of one file, or `None` if that file is not an ELF module.
    fn of(path: &Path, group: &[Mapping], others: &[Mapping], open: &dyn OpenImage) -> Option<Self> {
        let (first, last) = (group.first()?, group.last()?);
        if first.shared || !group.iter().any(|mapping| mapping.executable) {
            return None;
        }
        let range = AddressRange { start: first.range.start, end: last.range.end };
        let image = open.open_module(first).filter(Image::is_elf).map(Arc::new);
        let bias = image.as_ref().and_then(|image| image.bias(first)).unwrap_or(first.range.start);
        let mut module =
            Self { path: path.to_owned(), bias, range, writable: Vec::new(), image, debug: None };
        module.writable = module.data_ranges(group, others);
        Some(module)
    }

    /// The data segments as the target has them: from the file's headers, else from the mappings alone.
    fn data_ranges(&self, group: &[Mapping], others: &[Mapping]) -> Vec<AddressRange> {
        if let Some(image) = &self.image {
            return image.writable_segments(self.bias);
        }
        let mut ranges: Vec<AddressRange> =
            group.iter().filter(|mapping| mapping.writable).map(|mapping| mapping.range).collect();
        // What is zero at first has no file. FreeBSD forgets the file of data too, once all of its pages are copies.
        let mut end = self.range.end;
        for next in others.iter().take(ADJOINING_MAX) {
            if next.range.start != end || !matches!(next.kind, MappingKind::Anonymous { .. }) || next.shared {
                break;
            }
            end = next.range.end;
            ranges.extend(next.writable.then_some(next.range));
        }
        merge_ranges(ranges, 0)
    }

    /// Runs of writable memory as modules, for targets whose modules are not known: an allocator's roots are in one.
    pub fn unnamed(mappings: &[Mapping]) -> Vec<Self> {
        const DATA_BYTES_MAX: u64 = 64 << 20;
        let is_data = |mapping: &&Mapping| mapping.readable && mapping.writable && !mapping.shared;
        let data = merge_ranges(mappings.iter().filter(is_data).map(|mapping| mapping.range).collect(), 0);
        data.into_iter()
            .filter(|range| range.len_bytes() <= DATA_BYTES_MAX)
            .map(|range| Self {
                path: PathBuf::from(format!("data at {:#x}", range.start)),
                bias: range.start,
                range,
                writable: vec![range],
                image: None,
                debug: None,
            })
            .collect()
    }

    /// Looks for a file with the debug information that the module itself lacks, below the target's root.
    pub fn find_debug(&mut self, open: &dyn OpenImage) {
        let Some(image) = &self.image else { return };
        if image.has_debug_info() {
            return;
        }
        let found = image
            .debug_paths(&self.path)
            .into_iter()
            .filter_map(|path| open.open_in_root(&path))
            .find(|debug| debug.build_id().is_some() && debug.build_id() == image.build_id());
        self.debug = found.map(Arc::new);
    }

    /// The symbol table that names the most: that of the debug file, else the module's own.
    pub fn symbols(&self) -> Vec<Symbol> {
        let own = self.image.as_ref().map(|image| image.symbols()).unwrap_or_default();
        let apart = self.debug.as_ref().map(|image| image.symbols()).unwrap_or_default();
        let mut all = if apart.len() > own.len() { apart } else { own };
        for symbol in &mut all {
            symbol.address = symbol.address.wrapping_add(self.bias);
        }
        all
    }

    /// File name without its folders.
    pub fn name(&self) -> String {
        self.path.file_name().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned())
    }
}

/// Whether `next` continues the module that starts with `first`.
fn belongs(first: &Mapping, next: &Mapping) -> bool {
    match &next.kind {
        MappingKind::File { .. } => {
            next.inode == first.inode && next.device == first.device && next.file_offset > 0
        }
        _ => false,
    }
}
