//! Finding the GNU C library's malloc in a target, without symbols and in static programs too.
//!
//! The bins of an arena have a shape that nothing else has: 127 pairs of pointers, each either to its own place or
//! to chunks that point back at it. Whose record they are in is then a question of the layout: it is the one under
//! which the circle of arenas closes and everything that hangs on it makes sense. Version numbers are compared here
//! and in `layout.rs` only.

use super::arena::Arena;
use super::chunk::{Header, PREVIOUS_IN_USE};
use super::layout::{BIN_WORDS, Layout};
use super::{Glibc, heap, mmapped, parameters, version};
use crate::allocator::address_space::{anonymous, without};
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::{Memory, words};
use crate::module::Module;
use heaptap_platform::{AddressRange, MappingKind};

/// Pairs of an arena's bins.
const PAIRS: usize = BIN_WORDS as usize / 2;
/// Pairs that must be empty before the shape is looked at more closely.
const EMPTY_MIN: usize = 8;
/// Code around the exported functions that belongs to malloc too.
const CODE_MARGIN_BYTES: u64 = 0x6000;

/// A glibc malloc that cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{module}: glibc malloc at {main_arena:#x} cannot be walked: {why}")]
pub struct Refusal {
    /// The module's file name.
    pub module: String,
    /// Where its bins are.
    pub main_arena: u64,
    /// What did not fit.
    pub why: String,
}

/// What was found in a target.
#[derive(Debug, Default)]
pub struct Findings {
    /// Allocators that can be walked.
    pub found: Vec<Glibc>,
    /// Those that cannot.
    pub refused: Vec<Refusal>,
}

/// Looks for it in all modules. One that was never used has no bins and is not found.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Findings {
    let mut findings = Findings::default();
    for module in space.modules {
        let data = Data::read(memory, space, &module.writable);
        for bins in bins(&data, space) {
            match resolve(module, space, memory, &data, bins) {
                Ok(found) => findings.found.push(found),
                Err(why) => {
                    findings.refused.push(Refusal { module: module.name(), main_arena: bins, why });
                }
            }
        }
    }
    findings
}

/// Finds the layout around `bins`. What a running target shows may change between two reads, so a failure counts only
/// if it repeats.
fn resolve(
    module: &Module,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    data: &Data,
    bins: u64,
) -> Result<Glibc, String> {
    const LOOKS: usize = 20;
    let candidate = Candidate { module, space, memory, data, bins };
    let mut outcome = candidate.resolve();
    for _ in 1..LOOKS {
        if outcome.is_ok() {
            break;
        }
        outcome = candidate.resolve();
    }
    outcome
}

/// Whether a module is the C library itself; static programs are not recognised by that.
pub fn is_candidate(module: &Module) -> bool {
    let Some(image) = &module.image else { return false };
    image.read_only().iter().any(|(_, bytes)| version::find(bytes).is_some())
}

/// Where the bins of arenas may lie in a module's data: 127 pairs, some of them empty, the others of pointers into
/// memory that can hold chunks. What lies behind the last pair is a bit map and no such pair, so the end is certain.
fn bins(data: &Data, space: AddressSpace<'_>) -> Vec<u64> {
    let mut found = Vec::new();
    for (start, bytes) in data.pieces() {
        let words: Vec<u64> = words(bytes).collect();
        let address = |index: usize| start + index as u64 * 8;
        let pair = |index: usize| Some((*words.get(index)?, *words.get(index + 1)?));
        let is_empty = |index: usize| {
            let head = address(index).wrapping_sub(16);
            pair(index) == Some((head, head))
        };
        let is_link = |word: u64| word.is_multiple_of(16) && space.holds_records(word);
        let is_pair = |index: usize| {
            is_empty(index) || pair(index).is_some_and(|(first, last)| is_link(first) && is_link(last))
        };
        let mut index = 0;
        while index + 1 < words.len() {
            if !is_empty(index) {
                index += 1;
                continue;
            }
            let before =
                (1..=PAIRS).take_while(|back| index.checked_sub(back * 2).is_some_and(is_pair)).count();
            let behind = (0..PAIRS).take_while(|forward| is_pair(index + forward * 2)).count();
            let end = index + behind * 2;
            if before + behind >= PAIRS {
                let first = end - PAIRS * 2;
                let empty = (0..PAIRS).filter(|place| is_empty(first + place * 2)).count();
                if empty >= EMPTY_MIN {
                    found.push(address(first));
                }
            }
            index = end.max(index + 2);
        }
    }
    found
}

/// Bins in a module, while the layout around them is looked for.
struct Candidate<'a> {
    module: &'a Module,
    space: AddressSpace<'a>,
    memory: &'a dyn Memory,
    data: &'a Data,
    bins: u64,
}

/// What is expected of the main arena's top chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Top {
    /// A size that makes sense.
    Written,
    /// It was just moved behind a new block, and its own size is about to be written: the first word written to new memory,
    /// so a thread is often caught waiting for the page. What follows is told as partial.
    New,
}

/// A layout that fits.
struct Fit {
    layout: Layout,
    main_arena: u64,
    arenas: Vec<Arena>,
    parameters_at: Option<u64>,
}

impl Candidate<'_> {
    fn resolve(&self) -> Result<Glibc, String> {
        let image = self.module.image.as_ref();
        let version =
            image.and_then(|image| image.read_only().iter().find_map(|(_, bytes)| version::find(bytes)));
        let mut why = "no layout is known".to_owned();
        let mut fits = Vec::new();
        for top in [Top::Written, Top::New] {
            for layout in Layout::candidates(version) {
                match self.fit(layout, top) {
                    Ok(fit) => fits.push(fit),
                    Err(reason) if fits.is_empty() && why == "no layout is known" => why = reason,
                    Err(_) => {}
                }
            }
            if !fits.is_empty() {
                break;
            }
        }
        let mut fits = fits.into_iter();
        let Some(fit) = fits.next() else { return Err(why) };
        // A named version says how thread caches look; without one they must tell themselves.
        let alternatives =
            if version.is_some() { Vec::new() } else { fits.map(|other| other.layout).collect() };
        Ok(self.complete(fit, version, alternatives))
    }

    fn fit(&self, layout: Layout, expected: Top) -> Result<Fit, String> {
        let main_arena = self.bins.checked_sub(layout.bins).ok_or("its bins lie too low")?;
        let arenas = Arena::all(self.memory, &layout, main_arena).ok_or_else(|| {
            format!("its circle of arenas does not close under the layout of {}", layout.table)
        })?;
        let main = arenas.first().ok_or("it has no arena")?;
        let top = if main.has_memory(&layout) {
            self.check_top(main, expected)?;
            Some(main.top)
        } else {
            None
        };
        if let Some(stray) =
            arenas.iter().skip(1).find(|arena| !heap::holds_arena(self.memory, &layout, arena))
        {
            return Err(format!(
                "arena {:#x} has no heap around it under the layout of {}",
                stray.address, layout.table
            ));
        }
        let parameters_at = parameters::find(self.data, self.space, &layout, top)
            .ok_or_else(|| format!("its parameters were not found under the layout of {}", layout.table))?;
        Ok(Fit { layout, main_arena, arenas, parameters_at: Some(parameters_at) })
    }

    /// The top chunk ends with a page, and what lies before it is in use: free memory would be part of it.
    fn check_top(&self, main: &Arena, expected: Top) -> Result<(), String> {
        let header = Header::read(self.memory, main.top)
            .map_err(|_| format!("its top chunk {:#x} cannot be read", main.top))?;
        let end = main.top.wrapping_add(header.size_bytes());
        let is_new = header.word == 0 && self.space.holds_records(main.top);
        if header.has(PREVIOUS_IN_USE) && end.is_multiple_of(4096) || (is_new && expected == Top::New) {
            Ok(())
        } else {
            Err(format!("what should be its top chunk, at {:#x}, is none", main.top))
        }
    }

    fn complete(
        &self,
        fit: Fit,
        version: Option<super::layout::Version>,
        alternatives: Vec<Layout>,
    ) -> Glibc {
        let symbols = self.module.symbols();
        let named = symbols.iter().find(|symbol| symbol.name == "main_arena");
        let by_symbol = named.is_some_and(|symbol| symbol.address == fit.main_arena);
        let mut evidence = vec![
            format!(
                "main arena at {:#x} found by the shape of its bins{}",
                fit.main_arena,
                if by_symbol { " and named so by the symbol table" } else { "" }
            ),
            format!("{} arenas form a circle under the layout of {}", fit.arenas.len(), fit.layout.table),
        ];
        if version.is_none() {
            evidence
                .push("no banner tells the version: the layout is the newest of those that fit".to_owned());
        }
        let mut glibc = Glibc {
            module: self.module.path.display().to_string(),
            version,
            layout: fit.layout,
            alternatives,
            provenance: if by_symbol { Provenance::Symbols } else { Provenance::Probed },
            main_arena: fit.main_arena,
            parameters_at: fit.parameters_at,
            code: code(&symbols),
            brk_heap: self.brk_heap(),
            regions: anonymous(self.space.mappings),
            mmapped: Vec::new(),
            slots: None,
            evidence,
        };
        glibc.mmapped = self.mmapped(&glibc, &fit.arenas);
        glibc
    }

    fn brk_heap(&self) -> Option<AddressRange> {
        let mut heaps = self
            .space
            .mappings
            .iter()
            .filter(|mapping| mapping.kind == MappingKind::Heap)
            .map(|map| map.range);
        let first = heaps.next()?;
        Some(AddressRange { start: first.start, end: heaps.next_back().map_or(first.end, |last| last.end) })
    }

    fn mmapped(&self, glibc: &Glibc, arenas: &[Arena]) -> Vec<u64> {
        if glibc.parameters(self.memory).is_none_or(|parameters| parameters.n_mmaps == 0) {
            return Vec::new();
        }
        let others = arenas.iter().filter(|arena| arena.index != 0);
        let heaps = others.flat_map(|arena| heap::of_thread_arena(self.memory, &glibc.layout, arena).0);
        let heaps = heaptap_platform::merge_ranges(heaps.map(|piece| piece.range).collect(), 0);
        let regions = without(&glibc.regions, &heaps);
        mmapped::candidates(self.memory, &glibc.layout, &regions)
    }
}

/// The code of malloc: from the first to the last of its exported functions, and what the compiler put around them.
fn code(symbols: &[crate::module::Symbol]) -> Option<AddressRange> {
    const NAMES: [&str; 6] = ["malloc", "free", "calloc", "realloc", "mallopt", "malloc_trim"];
    let addresses =
        || symbols.iter().filter(|symbol| NAMES.contains(&symbol.name.as_str())).map(|symbol| symbol.address);
    let start = addresses().min()?.saturating_sub(CODE_MARGIN_BYTES);
    AddressRange::new(start, addresses().max()?.saturating_add(CODE_MARGIN_BYTES))
}
