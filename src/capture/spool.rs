//! All private memory of a process, read around the stop into a file of its own.
//!
//! A process may have more memory than the machine has left, and than a stop can copy: so it is read while the process
//! runs, into a file without a name. What changes between two reads is read in the stop, as far as there is time; what has
//! changed by a third read after it, and was not read in the stop, is told. Absent pages are never read.

use super::window::CaptureError;
use super::{CapturedMemory, LiveMemory, Segment, Store};
use crate::memory::Memory;
use heaptap_platform::{AddressRange, BulkRead, MappedFile, Mapping, MappingKind, merge_ranges};
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

/// Bytes read at a time: longer reads would hold the target's address space for longer.
const STEP_BYTES: u64 = 1 << 20;
/// Changes are told by pages of this size.
const PAGE_BYTES: usize = 4096;
/// Absent stretches up to this length are kept as zeros, which they are: readers need not be told apart what was written.
const ZEROS_BYTES_MAX: u64 = 1 << 20;

/// Which memory of a process belongs to it alone.
#[derive(Debug, Clone, Default)]
pub struct Private {
    /// What is in memory.
    pub present: Vec<AddressRange>,
    /// What was never written, in short stretches: zeros.
    pub zeros: Vec<AddressRange>,
    /// Bytes that are in swap: they are not read.
    pub swapped_bytes: u64,
}

impl Private {
    /// All that can be written, pages of other private mappings that have been, and the code that the kernel offers.
    pub fn of(live: &LiveMemory, mappings: &[Mapping]) -> Self {
        let mut private = Self::default();
        for mapping in mappings.iter().filter(|mapping| mapping.readable && !mapping.shared) {
            match mapping.kind {
                MappingKind::Vvar | MappingKind::Vsyscall => {}
                MappingKind::Vdso => private.present.extend(live.present(mapping.range)),
                _ => private.add(live, mapping),
            }
        }
        private.present = merge_ranges(private.present, 0);
        private
    }

    fn add(&mut self, live: &LiveMemory, mapping: &Mapping) {
        let mut end = mapping.range.start;
        for run in live.page_runs(mapping.range) {
            let Some(part) = run.range.intersection(&mapping.range) else { continue };
            self.add_zeros(mapping, AddressRange { start: end, end: part.start });
            end = part.end;
            if run.state.swapped && !run.state.present {
                self.swapped_bytes += part.len_bytes();
            } else if mapping.writable || !run.state.file_or_shared {
                self.present.push(part);
            }
        }
        self.add_zeros(mapping, AddressRange { start: end, end: mapping.range.end });
    }

    fn add_zeros(&mut self, mapping: &Mapping, range: AddressRange) {
        let is_short = !range.is_empty() && range.len_bytes() <= ZEROS_BYTES_MAX;
        if is_short && mapping.writable && mapping.is_private_anonymous() {
            self.zeros.push(range);
        }
    }
}

/// Memory in a file.
#[derive(Debug)]
pub struct Spool {
    file: File,
    /// Where each stretch is in the file.
    segments: Vec<Segment>,
    len_bytes: u64,
    private: Private,
    /// What changed between the first two reads.
    hot: Vec<AddressRange>,
    /// What has changed since, and was not read in the stop.
    changed: Vec<AddressRange>,
}

impl Spool {
    /// Reads all private memory twice, into a file in `folder` that has no name.
    ///
    /// # Errors
    /// The file cannot be written, or the target is gone.
    pub fn read(live: &LiveMemory, mappings: &[Mapping], folder: &Path) -> Result<Self, CaptureError> {
        let mut spool = Self {
            file: tempfile::tempfile_in(folder).map_err(CaptureError::Spool)?,
            segments: Vec::new(),
            len_bytes: 0,
            private: Private::of(live, mappings),
            hot: Vec::new(),
            changed: Vec::new(),
        };
        let mut scratch = Vec::new();
        for range in spool.private.present.clone() {
            for piece in pieces(range) {
                let holes = copy(live, piece, &mut scratch)?;
                spool.push(piece, &holes, &scratch)?;
            }
        }
        spool.hot = spool.changes(live, None, true)?;
        Ok(spool)
    }

    /// What is to be read in the stop, what matters more first.
    pub fn wishes(&self) -> Vec<AddressRange> {
        let whole = self.private.present.iter().copied();
        self.hot.iter().copied().chain(whole).collect()
    }

    /// Bytes that were read.
    pub const fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Compares with the target as it is after the stop; what the stop has read is as it was in it.
    ///
    /// # Errors
    /// The target is gone.
    pub fn compare(&mut self, live: &LiveMemory, stopped: &CapturedMemory) -> Result<(), CaptureError> {
        self.changed = self.changes(live, Some(stopped), false)?;
        Ok(())
    }

    /// Pages that changed after they were read and before they could be read in the stop, or after it.
    pub fn changed(&self) -> &[AddressRange] {
        &self.changed
    }

    /// What is to be told of it.
    pub fn notes(&self) -> Vec<String> {
        let changed_bytes: u64 = self.changed.iter().map(AddressRange::len_bytes).sum();
        let mut notes = vec![format!(
            "{} bytes of private memory were read around the stop; {changed_bytes} of them have changed meanwhile, and are \
             not those of the stop",
            self.len_bytes
        )];
        if self.private.swapped_bytes > 0 {
            notes.push(format!("{} bytes are in swap and were left there", self.private.swapped_bytes));
        }
        notes
    }

    /// All ranges that it has, zeros too.
    pub fn ranges(&self) -> Vec<AddressRange> {
        [self.private.present.clone(), self.private.zeros.clone()].concat()
    }

    /// What was read in the stop, and in its gaps what was read around it.
    ///
    /// # Errors
    /// The file cannot be written or mapped.
    pub fn complete(mut self, stopped: &CapturedMemory) -> Result<CapturedMemory, CaptureError> {
        let around = std::mem::take(&mut self.segments);
        for range in stopped.ranges_apart() {
            let len_bytes = usize::try_from(range.len_bytes()).unwrap_or(0);
            if let Some(bytes) = stopped.slice(range.start, len_bytes) {
                self.push(range, &[], bytes)?;
            }
        }
        let offset = usize::try_from(self.len_bytes).unwrap_or(usize::MAX);
        self.file.set_len(self.len_bytes + ZEROS_BYTES_MAX).map_err(CaptureError::Spool)?;
        for segment in around {
            let range = AddressRange { start: segment.start, end: segment.end() };
            for gap in stopped.gaps(range) {
                let skipped = usize::try_from(gap.start - segment.start).unwrap_or(0);
                let len_bytes = usize::try_from(gap.len_bytes()).unwrap_or(0);
                self.segments.push(Segment { start: gap.start, len_bytes, offset: segment.offset + skipped });
            }
        }
        for gap in self.private.zeros.iter().flat_map(|range| stopped.gaps(*range)) {
            let len_bytes = usize::try_from(gap.len_bytes()).unwrap_or(0);
            self.segments.push(Segment { start: gap.start, len_bytes, offset });
        }
        let map = MappedFile::map(&self.file).map_err(CaptureError::Spool)?;
        let mut memory = CapturedMemory::of(Store::File(Arc::new(map)), self.segments);
        memory.preread.clone_from(&stopped.preread);
        memory.anonymous.clone_from(&stopped.anonymous);
        Ok(memory)
    }

    /// Appends what lies at `range`, but for `holes`.
    fn push(
        &mut self,
        range: AddressRange,
        holes: &[AddressRange],
        bytes: &[u8],
    ) -> Result<(), CaptureError> {
        let whole = CapturedMemory { segments: Vec::new(), ..CapturedMemory::default() };
        let mut index = whole;
        index.used = usize::try_from(self.len_bytes).unwrap_or(usize::MAX);
        index.index(&[range], holes);
        self.segments.extend(index.segments);
        self.file.write_all(bytes).map_err(CaptureError::Spool)?;
        self.len_bytes += bytes.len() as u64;
        Ok(())
    }

    /// The pages that differ in the target from what was read, but for those that `known` has; `takes_over` brings the
    /// file up to date.
    fn changes(
        &mut self,
        live: &LiveMemory,
        known: Option<&CapturedMemory>,
        takes_over: bool,
    ) -> Result<Vec<AddressRange>, CaptureError> {
        if self.len_bytes == 0 {
            return Ok(Vec::new());
        }
        let map = MappedFile::map(&self.file).map_err(CaptureError::Spool)?;
        let mut changed = Vec::new();
        let mut scratch = Vec::new();
        for segment in &self.segments {
            let range = AddressRange { start: segment.start, end: segment.end() };
            // Pages of the stop itself need no comparison.
            let is_known = |page: AddressRange| {
                known.is_some_and(|known| known.is_of_the_moment(page.start) && known.gaps(page).is_empty())
            };
            if known.is_some_and(Memory::is_of_one_moment) && is_known(range) {
                continue;
            }
            // What is gone now is not read again: it may have been given back.
            let holes = copy(live, range, &mut scratch)?;
            let before = map.bytes().get(segment.offset..segment.offset + segment.len_bytes);
            let pages = scratch.chunks(PAGE_BYTES).zip(before.unwrap_or_default().chunks(PAGE_BYTES));
            for (start, (now, then)) in (range.start..).step_by(PAGE_BYTES).zip(pages) {
                let page = AddressRange { start, end: start + now.len() as u64 };
                let is_hole = holes.iter().any(|hole| hole.intersection(&page).is_some());
                if now == then || is_hole || is_known(page) {
                    continue;
                }
                changed.push(page);
                if takes_over {
                    let at = segment.offset as u64 + (start - range.start);
                    self.file.seek(SeekFrom::Start(at)).map_err(CaptureError::Spool)?;
                    self.file.write_all(now).map_err(CaptureError::Spool)?;
                }
            }
        }
        self.file.seek(SeekFrom::Start(self.len_bytes)).map_err(CaptureError::Spool)?;
        Ok(merge_ranges(changed, 0))
    }
}

/// A range in pieces that are read at a time.
fn pieces(range: AddressRange) -> impl Iterator<Item = AddressRange> {
    let starts = (range.start..range.end).step_by(usize::try_from(STEP_BYTES).unwrap_or(usize::MAX));
    starts.map(move |start| AddressRange { start, end: range.end.min(start.saturating_add(STEP_BYTES)) })
}

/// Copies one piece, as far as it is still in memory; the rest is told as holes.
fn copy(
    live: &LiveMemory,
    piece: AddressRange,
    scratch: &mut Vec<u8>,
) -> Result<Vec<AddressRange>, CaptureError> {
    scratch.clear();
    scratch.resize(usize::try_from(piece.len_bytes()).unwrap_or(0), 0);
    let mut holes = Vec::new();
    let mut end = piece.start;
    for part in live.present(piece) {
        if part.start > end {
            holes.push(AddressRange { start: end, end: part.start });
        }
        end = part.end;
        let start = usize::try_from(part.start - piece.start).unwrap_or(0);
        let len_bytes = usize::try_from(part.len_bytes()).unwrap_or(0);
        let mut outcome = BulkRead::default();
        if let Some(bytes) = scratch.get_mut(start..start + len_bytes) {
            live.process().read_ranges(&[part], bytes, None, &mut outcome)?;
        }
        holes.extend(outcome.holes);
    }
    if end < piece.end {
        holes.push(AddressRange { start: end, end: piece.end });
    }
    Ok(holes)
}
