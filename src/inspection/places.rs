//! What an address is in, in words: a block, a thread's stack, a module, the allocator's own, or just mapped.

use super::Subject;
use super::blocks::{Blocks, Found};
use super::schema::{Block, Place};
use crate::allocator::ClaimKind;
use crate::content::{BlockType, Content, LOOK_BYTES_MAX, Typer};
use crate::memory::MemoryExt;
use crate::stacks::schema::Thread;
use crate::symbolize::Symbolizer;
use heaptap_platform::{Mapping, MappingKind, StoppedThread};

/// What lies below a stack pointer by the rules of x86-64.
const RED_ZONE_BYTES: u64 = 128;

/// Tells what addresses are in.
#[derive(Debug)]
pub(super) struct Places<'a> {
    pub subject: &'a Subject<'a>,
    pub blocks: Blocks<'a>,
    pub symbolizer: Symbolizer<'a>,
    pub typer: Typer<'a>,
}

impl<'a> Places<'a> {
    pub fn new(subject: &'a Subject<'a>) -> Self {
        Self {
            subject,
            blocks: Blocks { walked: subject.walked },
            symbolizer: Symbolizer::new(subject.modules, subject.files),
            typer: Typer::new(subject.modules, subject.mappings, subject.memory),
        }
    }

    fn mapping(&self, address: u64) -> Option<&'a Mapping> {
        let mappings = self.subject.mappings;
        let index = mappings.partition_point(|mapping| mapping.range.end <= address);
        mappings.get(index).filter(|mapping| mapping.range.contains(address))
    }

    /// What the first bytes of a block tell; nothing where they cannot be read.
    pub fn block_type(&self, address: u64, usable_bytes: u64) -> Option<BlockType> {
        let len_bytes = usize::try_from(usable_bytes.min(LOOK_BYTES_MAX)).ok()?;
        let bytes = self.subject.memory.read_vec(address, len_bytes).ok()?;
        Some(self.typer.block_type(address, &Content::new(bytes)))
    }

    /// The block with its type. What is not live may still hold what it was.
    pub fn typed(&self, block: Block) -> Block {
        let found = self.block_type(block.address, block.usable_bytes).filter(|_| block.state == "live");
        let (type_name, type_by) = found.map(|found| (found.name, found.evidence)).unzip();
        Block { type_name, type_by, ..block }
    }

    /// What `address` is in, with all that is known of it.
    pub fn place(&self, address: u64) -> Place {
        let mapping = self.mapping(address);
        let bare = Place {
            address,
            mapping_start: mapping.map(|mapping| mapping.range.start),
            mapping_end: mapping.map(|mapping| mapping.range.end),
            ..Place::default()
        };
        if let Some(Found { allocator, block }) = self.blocks.at(address) {
            let block = self.typed(block);
            let end = block.address.saturating_add(block.usable_bytes);
            let neighbour = |found: Option<Block>| found.map(|block| self.typed(block));
            return Place {
                kind: "block".to_owned(),
                what: block_words(&block, address),
                allocator: self.subject.walked.get(allocator).map(|walk| walk.name.to_owned()),
                before: neighbour(self.blocks.before(allocator, block.address)),
                after: neighbour(self.blocks.after(allocator, end)),
                block: Some(block),
                ..bare
            };
        }
        if let Some((allocator, kind)) = self.blocks.claim(address) {
            let name = self.subject.walked.get(allocator).map(|walk| walk.name.to_owned());
            return Place {
                kind: "allocator".to_owned(),
                what: claim_words(name.as_deref().unwrap_or("an allocator"), kind),
                allocator: name,
                before: self.blocks.before(allocator, address),
                after: self.blocks.after(allocator, address),
                ..bare
            };
        }
        if let Some((thread, what)) = self.stack(address) {
            let name = (self.subject.name_of)(thread.tid);
            let thread = Some(Thread { tid: thread.tid, name });
            return Place { kind: "stack".to_owned(), what, thread, ..bare };
        }
        if let Some((module, offset)) = self.symbolizer.module_offset(address) {
            let symbol = self.symbolizer.symbol(address).map(|(name, distance)| at_distance(&name, distance));
            let file = format!("{}+{offset:#x}", module.name());
            return Place {
                kind: "module".to_owned(),
                what: symbol.clone().map_or_else(|| file.clone(), |symbol| format!("{symbol} in {file}")),
                module: Some(module.path.display().to_string()),
                offset: Some(offset),
                symbol,
                ..bare
            };
        }
        match mapping {
            Some(mapping) => Place { kind: "mapping".to_owned(), what: mapping_words(mapping), ..bare },
            None => {
                let what = "not mapped".to_owned();
                Place { kind: "unmapped".to_owned(), what, ..bare }
            }
        }
    }

    /// The thread whose stack holds `address`, and where in it: the nearest one whose stack pointer is not above.
    fn stack(&self, address: u64) -> Option<(&'a StoppedThread, String)> {
        let mapping = self.mapping(address)?;
        let pointer = |thread: &&StoppedThread| thread.registers.stack_pointer;
        let inside = |thread: &&StoppedThread| mapping.range.contains(pointer(thread));
        let threads = || self.subject.threads.iter().filter(inside);
        let used = threads()
            .filter(|thread| pointer(thread).saturating_sub(RED_ZONE_BYTES) <= address)
            .max_by_key(pointer);
        // A block's mapping may hold the stack of a thread that made it itself: only its used part is told.
        if let Some(thread) = used {
            let distance = address.wrapping_sub(thread.registers.stack_pointer).cast_signed();
            let name = self.thread_words(thread.tid);
            return Some((thread, format!("stack of {name}, {distance:+} from its stack pointer")));
        }
        let unused = threads().filter(|_| mapping.kind == MappingKind::Stack).min_by_key(pointer)?;
        let name = self.thread_words(unused.tid);
        Some((unused, format!("below the stack of {name}: not in use")))
    }

    fn thread_words(&self, tid: i32) -> String {
        let name = (self.subject.name_of)(tid);
        name.map_or_else(|| format!("thread {tid}"), |name| format!("thread {tid} ({name})"))
    }

    /// What a word points to, in few words; nothing where it is no pointer.
    pub fn points_to(&self, value: u64) -> Option<String> {
        let mapping = self.mapping(value)?;
        if let Some(Found { block, .. }) = self.blocks.at(value) {
            return Some(block_words(&self.typed(block), value));
        }
        if let Some((allocator, kind)) = self.blocks.claim(value) {
            let name = self.subject.walked.get(allocator).map_or("an allocator", |walk| walk.name);
            return Some(claim_words(name, kind));
        }
        if let Some((thread, _)) = self.stack(value) {
            return Some(format!("stack of {}", self.thread_words(thread.tid)));
        }
        if let Some((module, offset)) = self.symbolizer.module_offset(value) {
            if let Some(class) = self.typer.class_at(value) {
                return Some(format!("vtable of {class}"));
            }
            let symbol = self.symbolizer.symbol(value).map(|(name, distance)| at_distance(&name, distance));
            return Some(symbol.unwrap_or_else(|| format!("{}+{offset:#x}", module.name())));
        }
        Some(mapping_words(mapping))
    }
}

/// `symbol+0x12`, or the symbol alone at its start.
pub(super) fn at_distance(name: &str, distance: u64) -> String {
    if distance == 0 { name.to_owned() } else { format!("{name}+{distance:#x}") }
}

/// `block of 48 (ads::Bid) +16`; what is not live is called so.
fn block_words(block: &Block, address: u64) -> String {
    let state = match block.state.as_str() {
        "live" => String::new(),
        "overhead" => "the allocator's own ".to_owned(),
        other => format!("{other} "),
    };
    let type_name = block.type_name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let distance = address - block.address;
    let distance = if distance == 0 { String::new() } else { format!(" +{distance}") };
    format!("{state}block of {}{type_name}{distance}", block.usable_bytes)
}

fn claim_words(allocator: &str, kind: ClaimKind) -> String {
    match kind {
        ClaimKind::InUse => format!("between the blocks of {allocator}"),
        ClaimKind::Metadata => format!("records of {allocator}"),
        ClaimKind::Dirty | ClaimKind::Muzzy | ClaimKind::Retained => format!("free memory of {allocator}"),
    }
}

fn mapping_words(mapping: &Mapping) -> String {
    let what = match &mapping.kind {
        MappingKind::File { path, .. } => path.display().to_string(),
        MappingKind::Heap => "the heap that brk grows".to_owned(),
        MappingKind::Stack => "the first thread's stack".to_owned(),
        MappingKind::Vdso => "[vdso]".to_owned(),
        MappingKind::Vvar => "[vvar]".to_owned(),
        MappingKind::Vsyscall => "[vsyscall]".to_owned(),
        MappingKind::Anonymous { name: Some(name) } => format!("memory named {name}"),
        MappingKind::Anonymous { name: None } => "memory without a file".to_owned(),
        MappingKind::Other(name) => name.clone(),
    };
    let shared = if mapping.shared { "shared " } else { "" };
    format!("{shared}{what}")
}
