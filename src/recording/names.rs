//! Names of the functions that stacks lead through, from the symbol tables of the modules.

use crate::module::{Module, Symbol};
use crate::unwind::Frame;

/// One frame, named as far as it can be.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct NamedFrame {
    /// Its function, demangled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// File name of its module.
    pub module: String,
    /// Address in the module's file.
    pub offset: u64,
    /// The module's build id, hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// How the frame was found: see docs/report-format.md.
    pub trust: String,
}

impl NamedFrame {
    /// What a reader calls it.
    pub fn label(&self) -> String {
        match &self.function {
            Some(function) => function.clone(),
            None => format!("{}+{:#x}", self.module, self.offset),
        }
    }
}

/// The symbols of all modules, ordered by address.
#[derive(Debug)]
pub struct Names<'a> {
    modules: Vec<(&'a Module, Vec<Symbol>)>,
}

impl<'a> Names<'a> {
    /// Reads the symbol tables.
    pub fn of(modules: &'a [Module]) -> Self {
        let modules = modules.iter().map(|module| {
            let mut symbols = module.symbols();
            symbols.sort_by_key(|symbol| symbol.address);
            (module, symbols)
        });
        Self { modules: modules.collect() }
    }

    /// Names a frame.
    pub fn name(&self, frame: &Frame) -> NamedFrame {
        let address = frame.lookup_address();
        let trust = frame.trust.name().to_owned();
        let Some((module, symbols)) = self.modules.iter().find(|(module, _)| module.range.contains(address))
        else {
            return NamedFrame { offset: address, trust, ..NamedFrame::default() };
        };
        let build_id = module.image.as_ref().and_then(|image| image.build_id());
        NamedFrame {
            function: function_at(symbols, address),
            module: module.name(),
            offset: address.wrapping_sub(module.bias),
            build_id,
            trust,
        }
    }
}

fn function_at(symbols: &[Symbol], address: u64) -> Option<String> {
    let covers = |base: u64| {
        let inside = address.wrapping_sub(base);
        let after = symbols.partition_point(|symbol| symbol.address <= inside);
        let before = symbols.get(..after)?.iter().rev().take(16);
        before.into_iter().find(|symbol| inside < symbol.address.saturating_add(symbol.size_bytes))
    };
    covers(0).map(|symbol| demangled(&symbol.name))
}

/// The name as it stands in the source, as far as its mangling is known.
fn demangled(name: &str) -> String {
    if let Ok(symbol) = rustc_demangle::try_demangle(name) {
        return format!("{symbol:#}");
    }
    cpp_demangle::Symbol::new(name)
        .ok()
        .and_then(|symbol| symbol.demangle().ok())
        .unwrap_or_else(|| name.to_owned())
}
