//! Finding gperftools tcmalloc in a target, without symbols and in static programs too.
//!
//! Its table of size classes has a shape that nothing else has. From there each root leads to the next and must fit
//! it: the central lists carry the numbers of the classes, their spans must be named by the page map, and thread
//! caches repeat the sizes. The layout is believed under which the thread caches form a chain.

use super::central::CentralLists;
use super::counters::Counters;
use super::layout::{Layout, Version};
use super::page_map::PageMap;
use super::size_map::SizeMap;
use super::thread_cache::{self, ThreadCaches};
use super::{Tcmalloc, version};
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::{Memory, MemoryExt};
use crate::module::{Module, Symbol};
use heaptap_platform::AddressRange;

/// The lock of the page heap, where it stands alone.
const PAGE_HEAP_LOCK: &str = "_ZN8tcmalloc6Static14pageheap_lock_E";

/// A tcmalloc that cannot be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{module}: tcmalloc {version} with its size classes at {sizes:#x} cannot be walked: {why}")]
pub struct Refusal {
    /// The module's file name.
    pub module: String,
    /// The version, or that it is not known.
    pub version: String,
    /// Where its table of sizes is.
    pub sizes: u64,
    /// What did not fit.
    pub why: String,
}

/// What was found in a target.
#[derive(Debug, Default)]
pub struct Findings {
    /// Allocators that can be walked.
    pub found: Vec<Tcmalloc>,
    /// Those that cannot.
    pub refused: Vec<Refusal>,
}

/// Looks for it in all modules. One that was never used has no size classes yet and is not found.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Findings {
    let mut findings = Findings::default();
    for module in space.modules {
        let data = Data::read(memory, space, &module.writable);
        for sizes in SizeMap::all(&data, memory) {
            let version = version_of(module);
            let at = sizes.address;
            match resolve(&Candidate { module, space, memory, version, sizes }) {
                Ok(found) => findings.found.push(found),
                Err(why) => findings.refused.push(Refusal {
                    module: module.name(),
                    version: version
                        .map_or_else(|| "of unknown version".to_owned(), |version| version.to_string()),
                    sizes: at,
                    why,
                }),
            }
        }
    }
    findings
}

/// Whether a module's file has tcmalloc in it.
pub fn is_candidate(module: &Module) -> bool {
    version_of(module).is_some()
}

fn version_of(module: &Module) -> Option<Version> {
    module.image.as_ref()?.read_only().iter().find_map(|(_, bytes)| version::find(bytes))
}

/// Finds the roots. What a running target shows may change between two reads, so a failure counts only if it repeats.
fn resolve(candidate: &Candidate<'_>) -> Result<Tcmalloc, String> {
    const LOOKS: usize = 5;
    let mut outcome = candidate.resolve();
    for _ in 1..LOOKS {
        if outcome.is_ok() {
            break;
        }
        outcome = candidate.resolve();
    }
    outcome
}

struct Candidate<'a> {
    module: &'a Module,
    space: AddressSpace<'a>,
    memory: &'a dyn Memory,
    version: Option<Version>,
    sizes: SizeMap,
}

impl Candidate<'_> {
    fn resolve(&self) -> Result<Tcmalloc, String> {
        let Self { module, space, memory, version, sizes } = self;
        let layouts = Layout::candidates(*version);
        if layouts.is_empty() {
            return Err("releases from 2.10 on are supported".to_owned());
        }
        let data = Data::read(*memory, *space, &module.writable);
        let geometry = sizes.geometry().ok_or("the size of its pages could not be told")?;
        let central = CentralLists::find(&data, *memory, sizes).ok_or("its central lists were not found")?;
        let known = central.some_spans(*memory);
        if known.is_empty() {
            return Err("its central lists have no span yet".to_owned());
        }
        let page_map = PageMap::find(&data, *space, *memory, geometry, &known)
            .ok_or("no page map names the spans of its central lists")?;
        if Counters::read(*memory, &page_map).is_none() {
            return Err("what lies behind its page map are not the page heap's counters".to_owned());
        }
        let (layout, cache_slots, caches) = self.caches(&data, &layouts)?;
        let symbols = module.symbols();
        let by_symbol = symbols
            .iter()
            .any(|symbol| symbol.name.contains("tcmalloc") && symbol.address == central.address);
        let page_heap_lock = self.page_heap_lock(&page_map, &layout, &symbols);
        Ok(Tcmalloc {
            module: module.path.display().to_string(),
            version: *version,
            layout,
            provenance: if by_symbol { Provenance::Symbols } else { Provenance::Probed },
            evidence: self.evidence(&central, &page_map, &layout, &caches),
            sizes: sizes.clone(),
            central,
            page_map,
            cache_slots,
            page_heap_lock,
            code: code(module, &symbols),
        })
    }

    /// The layout under which most thread caches hang together, and where the module points to some.
    fn caches(&self, data: &Data, layouts: &[Layout]) -> Result<(Layout, Vec<u64>, ThreadCaches), String> {
        let mut best: Option<(Layout, Vec<u64>, ThreadCaches)> = None;
        for layout in layouts {
            let slots = thread_cache::slots(data, self.space, self.memory, layout, &self.sizes);
            let caches = ThreadCaches::gather(self.memory, layout, &self.sizes, &slots);
            let score = |caches: &ThreadCaches| (caches.whole, caches.list.len());
            if best.as_ref().is_none_or(|(_, _, most)| score(most) < score(&caches)) {
                best = Some((*layout, slots, caches));
            }
        }
        let (layout, slots, caches) = best.ok_or("no layout is known")?;
        if caches.list.is_empty() {
            return Err("no thread cache was found".to_owned());
        }
        if !caches.whole {
            return Err(format!("its thread caches form no chain under the layout of {}", layout.table));
        }
        Ok((layout, slots, caches))
    }

    fn page_heap_lock(&self, page_map: &PageMap, layout: &Layout, symbols: &[Symbol]) -> Option<u64> {
        const SMALLEST_SPAN_PAGES_MAX: u64 = 1 << 8;
        let is_lock = |lock: &u64| self.memory.read_u32(*lock).is_ok_and(|word| word <= 2);
        if !layout.page_heap_has_lock {
            let alone = symbols.iter().find(|symbol| symbol.name == PAGE_HEAP_LOCK);
            return alone.map(|symbol| symbol.address).filter(is_lock);
        }
        let lock = page_map.root.checked_sub(page_map.geometry.lock_to_root())?;
        let smallest = self.memory.read_u64(lock.checked_sub(8)?).ok()?;
        Some(lock).filter(|lock| (1..=SMALLEST_SPAN_PAGES_MAX).contains(&smallest) && is_lock(lock))
    }

    fn evidence(
        &self,
        central: &CentralLists,
        page_map: &PageMap,
        layout: &Layout,
        caches: &ThreadCaches,
    ) -> Vec<String> {
        let mut evidence = vec![
            format!(
                "{} size classes at {:#x} found by their shape, their central lists at {:#x}",
                self.sizes.classes.len() - 1,
                self.sizes.address,
                central.address
            ),
            format!(
                "the page map at {:#x} names their spans, of pages of {} bytes",
                page_map.root,
                page_map.geometry.page_bytes()
            ),
            format!("{} thread caches form a chain under the layout of {}", caches.list.len(), layout.table),
        ];
        if self.version.is_none() {
            evidence.push("no text tells the version: the layout is the newest of those that fit".to_owned());
        }
        evidence
    }
}

/// The allocator's code: all of a library of its own, else what lies around its functions where they have names.
fn code(module: &Module, symbols: &[Symbol]) -> Option<AddressRange> {
    const CODE_MARGIN_BYTES: u64 = 0x4000;
    if module.name().starts_with("libtcmalloc") {
        return Some(module.range);
    }
    let own =
        symbols.iter().filter(|symbol| symbol.name.starts_with("_ZN8tcmalloc") || symbol.name == "tc_malloc");
    let executable = own.filter(|symbol| module.range.contains(symbol.address));
    let code: Vec<u64> =
        executable.filter(|symbol| !in_data(module, symbol.address)).map(|symbol| symbol.address).collect();
    let start = code.iter().min()?.saturating_sub(CODE_MARGIN_BYTES);
    AddressRange::new(start, code.iter().max()?.saturating_add(CODE_MARGIN_BYTES))
}

fn in_data(module: &Module, address: u64) -> bool {
    module.writable.iter().any(|range| range.contains(address))
}
