//! Finding jemalloc in a target: which modules, which version, which layout, where its roots are.
//!
//! Symbols are used where there are any. Without them the roots are found by the shape of what they point to
//! in the module's writable data. Either way nothing is believed that `proof.rs` does not confirm. Version
//! numbers are compared here and in `layout.rs` only.

use super::Jemalloc;
use super::classes::SizeClasses;
use super::constants::{Signs, constants};
use super::dwarf;
use super::layout::{Build, Layout, Version};
use super::probe;
use super::proof::{self, Proof};
use super::rtree::{Geometry, Rtree};
use crate::allocator::{AddressSpace, Data, Provenance};
use crate::memory::{Memory, MemoryExt};
use crate::module::{Module, Symbol};
use heaptap_platform::{AddressRange, merge_ranges};

/// Extents looked at before a layout is believed.
const SAMPLE_MAX: u64 = 2000;

/// A module that has jemalloc in it, but none that can be walked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{module}: jemalloc {version} cannot be walked: {why}")]
pub struct Refusal {
    /// The module's file name.
    pub module: String,
    /// The version found, or a question mark.
    pub version: String,
    /// The step that failed and what it met.
    pub why: String,
}

/// What was found in a target.
#[derive(Debug, Default)]
pub struct Findings {
    /// Allocators that can be walked.
    pub found: Vec<Jemalloc>,
    /// Modules with jemalloc that cannot.
    pub refused: Vec<Refusal>,
}

/// Looks for jemalloc in all modules.
///
/// A module whose file cannot be had is also one where its writable data has a table of size classes; where not
/// even that shows jemalloc, versions that keep the table elsewhere are tried.
pub fn find(space: AddressSpace<'_>, memory: &dyn Memory) -> Findings {
    let mut findings = Findings::default();
    let mut fileless = Vec::new();
    for module in space.modules {
        let signs = Signs::of(module, space, memory);
        let version = signs.as_ref().and_then(|signs| signs.version);
        let is_marked = signs.is_some();
        // Before 5.0 there were chunks and runs: see `super::super::jemalloc4`.
        let is_older = version.is_some_and(|version| version.major == 4);
        if is_older || !is_marked && module.image.is_some() {
            continue;
        }
        match Candidate::new(module, signs.unwrap_or_default(), space, memory) {
            Ok(candidate) => findings.settle(module, version, candidate.resolve()),
            Err(why) if is_marked => findings.settle(module, version, Err(why)),
            // Data alone may be the heap, which is full of what looks like roots.
            Err(_) if module.writable.contains(&module.range) => {}
            Err(_) => fileless.push(module),
        }
    }
    if findings.found.is_empty() {
        let found = fileless.into_iter().filter_map(|module| by_rule(module, space, memory));
        findings.found.extend(found);
    }
    findings
}

impl Findings {
    fn settle(&mut self, module: &Module, version: Option<Version>, outcome: Result<Jemalloc, String>) {
        match outcome {
            Ok(found) => self.found.push(found),
            Err(why) => self.refused.push(Refusal {
                module: module.name(),
                version: version
                    .map_or_else(|| "of unknown version".to_owned(), |version| version.to_string()),
                why,
            }),
        }
    }
}

/// Whether a module's file has jemalloc in it.
pub fn is_candidate(module: &Module) -> bool {
    Signs::of_image(module).is_some()
}

/// jemalloc in a module without a file and without a table of size classes in its writable data.
fn by_rule(module: &Module, space: AddressSpace<'_>, memory: &dyn Memory) -> Option<Jemalloc> {
    const PAGE_BYTES: u64 = 4096;
    [16, 8].into_iter().find_map(|quantum_bytes| {
        let classes = SizeClasses::by_rule(quantum_bytes, PAGE_BYTES);
        let data = Data::read(memory, space, &module.writable);
        let signs = Signs::default();
        Candidate { module, signs, space, memory, data, symbols: Vec::new(), classes }.resolve().ok()
    })
}

/// A module with jemalloc, while its roots are looked for.
struct Candidate<'a> {
    module: &'a Module,
    signs: Signs,
    space: AddressSpace<'a>,
    memory: &'a dyn Memory,
    data: Data,
    symbols: Vec<Symbol>,
    classes: SizeClasses,
}

/// How well a layout agrees with the target beyond the extents; several releases share the form of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    /// No arenas were found where the layout has their bases.
    Extents,
    /// They were found with their bases elsewhere than in the table, as other page sizes make it.
    MovedArenas,
    /// They were found as the table has them.
    Arenas,
}

/// A tree and a layout that fit each other.
struct Fit {
    layout: Layout,
    tree: Rtree,
    proof: Proof,
    by_symbol: bool,
}

impl<'a> Candidate<'a> {
    fn new(
        module: &'a Module,
        mut signs: Signs,
        space: AddressSpace<'a>,
        memory: &'a dyn Memory,
    ) -> Result<Self, String> {
        if let Some(version) = signs.version.filter(|version| version.major < 5) {
            return Err(format!("version {version} is older than 4.0, the oldest that is supported"));
        }
        let data = Data::read(memory, space, &module.writable);
        let symbols = relevant_symbols(module);
        let (table, classes) = find_classes(module, space, memory, &symbols, &data)
            .ok_or("its table of size classes was not found, neither by symbol nor by shape")?;
        let table_bytes = classes.stride_bytes * classes.bins.len();
        signs.ranges.extend(AddressRange::with_len(table, table_bytes as u64));
        Ok(Self { module, signs, space, memory, data, symbols, classes })
    }

    fn symbol(&self, name: &str) -> Option<u64> {
        symbol(&self.symbols, name)
    }

    fn resolve(self) -> Result<Jemalloc, String> {
        let build = Build {
            nbins: self.classes.nbins(),
            nlarge: self.classes.large.len() as u64,
            lg_page: self.classes.lg_page(),
        };
        let mut layouts = self.signs.version.map_or_else(
            || {
                if self.classes.stride_bytes == 0 {
                    return vec![Layout::v5_1(build), Layout::v5_1_freebsd(build), Layout::v5_0(build)];
                }
                let all = [
                    Layout::development,
                    Layout::v5_3_1,
                    Layout::v5_3_0,
                    Layout::v5_3_0_freebsd,
                    Layout::v5_2,
                    Layout::v5_2_freebsd,
                    Layout::v5_1,
                    Layout::v5_1_freebsd,
                    Layout::v5_0,
                ];
                all.iter().map(|layout| layout(build)).collect()
            },
            |version| Layout::candidates(version, build),
        );
        if layouts.is_empty() {
            return Err("no layout of this version is known".to_owned());
        }
        dwarf::refine(self.module, &mut layouts);
        let mut failure = None;
        let mut best: Option<(Agreement, Jemalloc)> = None;
        for layout in &layouts {
            let Some(fit) = self.fit(layout, &mut failure) else { continue };
            let (agreement, found) = self.complete(fit);
            if best.as_ref().is_none_or(|(known, _)| *known < agreement) {
                best = Some((agreement, found));
            }
            if agreement == Agreement::Arenas {
                break;
            }
        }
        let no_tree = || failure.unwrap_or_else(|| "no radix tree was found in its writable data".to_owned());
        best.map(|(_, found)| found).ok_or_else(no_tree)
    }

    /// The tree that fits `layout`, by symbol or by shape.
    fn fit(&self, layout: &Layout, failure: &mut Option<String>) -> Option<Fit> {
        let named = self.symbol("extents_rtree").or_else(|| self.symbol("arena_emap_global"));
        for geometry in Geometry::known(self.classes.lg_page()) {
            let roots = match named {
                Some(tree) => vec![tree.wrapping_add(layout.rtree_root)],
                None => {
                    probe::roots(&self.data, self.space, self.memory, layout, geometry).into_iter().collect()
                }
            };
            for root in roots {
                let tree = Rtree { root, geometry };
                let proof = proof::prove(self.memory, &tree, layout, &self.classes, SAMPLE_MAX);
                if proof.holds() {
                    return Some(Fit { layout: *layout, tree, proof, by_symbol: named.is_some() });
                }
                if proof.checked > 0 {
                    *failure = proof.first_failure.map(|first| {
                        format!(
                            "layout {} with a {} does not fit: {first}",
                            layout.table,
                            geometry.describe()
                        )
                    });
                }
            }
        }
        None
    }

    /// Finds what hangs on a proved tree: arenas, the ring of threads.
    fn complete(&self, mut fit: Fit) -> (Agreement, Jemalloc) {
        let seen = &fit.proof.arenas;
        let base = probe::arena_base(&self.data, self.space, self.memory, &fit.layout, fit.tree.root, seen);
        if let Some(offset) = base {
            fit.layout = fit.layout.with_arena_base(offset);
        }
        let arenas_array = self
            .symbol("arenas")
            .filter(|array| probe::is_arena_array(self.memory, &fit.layout, *array, &fit.proof.arenas))
            .or_else(|| {
                probe::arena_array(&self.data, self.space, self.memory, &fit.layout, &fit.proof.arenas)
            });
        let ring = arenas_array.and_then(|array| {
            let (head, shift) = probe::ring(&self.data, self.space, self.memory, &fit.layout, array)?;
            fit.layout.tcache = fit.layout.tcache.shifted(shift);
            Some(head)
        });
        let provenance = match (fit.layout.provenance, fit.by_symbol) {
            (Provenance::Dwarf, _) => Provenance::Dwarf,
            (_, true) => Provenance::Symbols,
            (_, false) => Provenance::Probed,
        };
        let layout = Layout { provenance, ..fit.layout };
        let evidence = evidence(&fit, &self.classes, arenas_array);
        let agreement = match (arenas_array, base) {
            (None, _) => Agreement::Extents,
            (Some(_), Some(_)) => Agreement::MovedArenas,
            (Some(_), None) => Agreement::Arenas,
        };
        let found = Jemalloc {
            module: self.module.path.display().to_string(),
            module_range: self.module.range,
            version: self.signs.version,
            layout,
            classes: self.classes.clone(),
            tree: fit.tree,
            arenas_array,
            ring,
            thread_offset: None,
            lg_sample: self.symbol("lg_prof_sample"),
            keeps_profile: false,
            signs: self.signs.ranges.clone(),
            evidence,
        };
        (agreement, found)
    }
}

fn evidence(fit: &Fit, classes: &SizeClasses, arenas: Option<u64>) -> Vec<String> {
    let how = if fit.by_symbol { "by its symbol" } else { "by its shape" };
    let offsets = match fit.layout.provenance {
        Provenance::Dwarf => "offsets from its debug information",
        _ => "offsets from the table",
    };
    let mut sentences = vec![
        format!(
            "{} found {how} at {:#x}, {} leaves",
            fit.tree.geometry.describe(),
            fit.tree.root,
            fit.proof.leaves
        ),
        format!(
            "{} of {} sampled extents kept every invariant of layout {}, {offsets}",
            fit.proof.kept, fit.proof.checked, fit.layout.table
        ),
        format!("{} small size classes, pages of {} bytes", classes.bins.len(), classes.page_bytes),
    ];
    if arenas.is_none() {
        sentences.push("the array of arenas was not found: no counters to compare with".to_owned());
    }
    sentences
}

/// Symbols of jemalloc's roots, whatever prefix the build gave them.
fn relevant_symbols(module: &Module) -> Vec<Symbol> {
    const NAMES: [&str; 6] =
        ["extents_rtree", "arena_emap_global", "arenas", "bin_infos", "arena_bin_info", "lg_prof_sample"];
    let ends = |symbol: &Symbol| NAMES.iter().any(|name| symbol.name.ends_with(name));
    module.symbols().into_iter().filter(ends).collect()
}

/// The address of `name`, alone or behind a prefix like `je_`.
fn symbol(symbols: &[Symbol], name: &str) -> Option<u64> {
    let fits = |symbol: &&Symbol| {
        symbol.name.strip_suffix(name).is_some_and(|prefix| prefix.is_empty() || prefix.ends_with("je_"))
    };
    symbols.iter().find(fits).map(|symbol| symbol.address)
}

/// The table of size classes with its address: by symbol, in the writable data (5.2 on), among the constants
/// (before).
fn find_classes(
    module: &Module,
    space: AddressSpace<'_>,
    memory: &dyn Memory,
    symbols: &[Symbol],
    data: &Data,
) -> Option<(u64, SizeClasses)> {
    const TABLE_BYTES_MAX: u64 = 12 << 10;
    for name in ["bin_infos", "arena_bin_info"] {
        let Some(address) = symbol(symbols, name) else { continue };
        // The table may end close to the end of its segment.
        let table = AddressRange { start: address, end: address.saturating_add(TABLE_BYTES_MAX) };
        let present = space.mapped(table).into_iter().flat_map(|part| memory.present(part));
        let pieces = merge_ranges(present.collect(), 0);
        let Some(piece) = pieces.first().filter(|piece| piece.start == address) else { continue };
        let bytes = memory.read_vec(address, usize::try_from(piece.len_bytes()).unwrap_or(0));
        if let Some(parsed) = bytes.ok().and_then(|bytes| SizeClasses::parse(&bytes)) {
            return Some((address, parsed));
        }
    }
    let find = |start: u64, bytes: &[u8]| {
        let (offset, classes) = SizeClasses::find(bytes)?;
        Some((start.wrapping_add(offset as u64), classes))
    };
    let in_data = data.pieces().filter_map(|(start, bytes)| find(start, bytes));
    in_data.max_by_key(|(_, classes)| classes.bins.len()).or_else(|| {
        constants(module, space, memory).into_iter().find_map(|(start, bytes)| find(start, &bytes))
    })
}
