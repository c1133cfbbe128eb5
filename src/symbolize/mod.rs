//! Names for addresses: functions, source lines, calls that the compiler inlined.
//!
//! A [`Symbolizer`] asks, for each module, its debug information first, then its symbol tables, the module's own
//! and those of a file apart. It opens a file when it is asked for an address in it. What has no name stays module
//! and offset, with the build id by which [`later`] finds the name on another machine. It refuses to know stacks.

mod debug_information;
mod debuginfod;
pub mod demangle;
pub mod files;
pub mod later;
mod mini_debug;
mod split;
mod symbols;

pub use files::DebugFiles;

use crate::module::Module;
use crate::stacks::schema;
use crate::unwind::Frame;
use debug_information::DebugInformation;
use std::cell::OnceCell;
use symbols::SymbolTable;

/// The names of one place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Name {
    /// The function, demangled.
    pub function: Option<String>,
    /// Its source file.
    pub file: Option<String>,
    /// The line, from 1 on.
    pub line: Option<u32>,
    /// It is part of the next one.
    pub is_inlined: bool,
}

impl Name {
    /// The frame, with this name.
    pub fn given_to(self, frame: schema::Frame) -> schema::Frame {
        schema::Frame {
            function: self.function,
            file: self.file,
            line: self.line,
            inlined: self.is_inlined,
            ..frame
        }
    }
}

/// Names addresses of some modules.
#[derive(Debug)]
pub struct Symbolizer<'m> {
    modules: Vec<NamedModule<'m>>,
}

/// One module with its tables, made when they are first asked for.
#[derive(Debug)]
struct NamedModule<'m> {
    module: &'m Module,
    files: &'m DebugFiles,
    build_id: OnceCell<Option<String>>,
    symbols: OnceCell<SymbolTable>,
    data: OnceCell<SymbolTable>,
    debug: OnceCell<Option<DebugInformation<'m>>>,
}

impl<'m> Symbolizer<'m> {
    /// A symbolizer for `modules`, each with the files that belong to it: [`DebugFiles::find`].
    pub fn new(modules: &'m [Module], files: &'m [DebugFiles]) -> Self {
        let named = |(module, files): (&'m Module, &'m DebugFiles)| NamedModule {
            module,
            files,
            build_id: OnceCell::new(),
            symbols: OnceCell::new(),
            data: OnceCell::new(),
            debug: OnceCell::new(),
        };
        let mut modules: Vec<NamedModule<'m>> = modules.iter().zip(files).map(named).collect();
        modules.sort_by_key(|named| named.module.range.start);
        Self { modules }
    }

    fn module_at(&self, address: u64) -> Option<&NamedModule<'m>> {
        let after = self.modules.partition_point(|named| named.module.range.start <= address);
        let named = self.modules.get(after.checked_sub(1)?)?;
        if address < named.module.range.end { Some(named) } else { None }
    }

    /// The frame with its names; functions that were inlined there come first, as frames of their own.
    pub fn frames(&self, frame: &Frame) -> Vec<schema::Frame> {
        let trust = Some(frame.trust.name().to_owned());
        let bare = schema::Frame { address: Some(frame.program_counter), trust, ..Default::default() };
        let Some(named) = self.module_at(frame.lookup_address()) else { return vec![bare] };
        let stated = frame.lookup_address().wrapping_sub(named.module.bias);
        let placed = schema::Frame {
            module: Some(named.module.path.display().to_string()),
            offset: Some(stated),
            build_id: named.build_id().cloned(),
            ..bare
        };
        named.names(stated).into_iter().map(|name| name.given_to(placed.clone())).collect()
    }

    /// The symbol at an address, of a function or of data, demangled, and how far the address is from its start.
    pub fn symbol(&self, address: u64) -> Option<(String, u64)> {
        let named = self.module_at(address)?;
        let stated = address.wrapping_sub(named.module.bias);
        let images = || named.files.images(named.module);
        let functions = named.symbols.get_or_init(|| SymbolTable::of(images()));
        let data = || named.data.get_or_init(|| SymbolTable::of_data(images())).at(stated);
        let (name, offset) = functions.at(stated).or_else(data)?;
        Some((demangle::demangle(name), offset))
    }

    /// The module at an address, and the address in its file.
    pub fn module_offset(&self, address: u64) -> Option<(&'m Module, u64)> {
        let module = self.module_at(address)?.module;
        Some((module, address.wrapping_sub(module.bias)))
    }

    /// The names at an address of the first module's file.
    fn names_in_first(&self, stated: u64) -> Vec<Name> {
        self.modules.first().map(|named| named.names(stated)).unwrap_or_default()
    }
}

impl NamedModule<'_> {
    fn build_id(&self) -> Option<&String> {
        let read = || self.module.image.as_ref().and_then(|image| image.build_id());
        self.build_id.get_or_init(read).as_ref()
    }

    /// The names at an address of the file, inlined functions first; there is always one, which may be empty.
    fn names(&self, address: u64) -> Vec<Name> {
        let debug = self.debug.get_or_init(|| DebugInformation::of(self.files, self.module));
        let mut names = debug.as_ref().map(|debug| debug.names(address)).unwrap_or_default();
        if names.is_empty() {
            names.push(Name::default());
        }
        if let Some(outermost) = names.last_mut()
            && outermost.function.as_deref().is_none_or(is_bare)
        {
            let symbols = self.symbols.get_or_init(|| SymbolTable::of(self.files.images(self.module)));
            let symbol = symbols.name_at(address).map(demangle::demangle);
            let whole = symbol.clone().filter(|name| !is_bare(name));
            outermost.function = whole.or_else(|| outermost.function.take()).or(symbol);
        }
        names
    }
}

/// Whether a function's name lacks its namespaces: compilers give functions of one file no other in debug
/// information, while the symbol table has the whole.
fn is_bare(function: &str) -> bool {
    !function.contains("::") && !function.contains('(')
}
