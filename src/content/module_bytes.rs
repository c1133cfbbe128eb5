//! The bytes of modules as their files have them, with the relocations of the loader applied.
//!
//! Vtables and type information lie in data that the loader relocates. A capture may not hold it, and a page that the target
//! has not touched must not be read in it: the file tells the same.

use crate::memory::{Fault, Memory};
use crate::module::{Module, relocations};
use std::cell::OnceCell;

/// The modules of a target, as files.
#[derive(Debug)]
pub struct ModuleBytes<'a> {
    /// In address order.
    modules: Vec<Loaded<'a>>,
}

#[derive(Debug)]
struct Loaded<'a> {
    module: &'a Module,
    /// Words of the file that the loader changes: address in the file, value without the bias.
    relocated: OnceCell<Vec<(u64, u64)>>,
}

impl<'a> ModuleBytes<'a> {
    /// The files of `modules`, as far as those are there.
    pub fn new(modules: &'a [Module]) -> Self {
        let mut all: Vec<Loaded<'a>> =
            modules.iter().map(|module| Loaded { module, relocated: OnceCell::new() }).collect();
        all.sort_by_key(|loaded| loaded.module.range.start);
        Self { modules: all }
    }
}

impl Memory for ModuleBytes<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let fault = Fault { address };
        let after = self.modules.partition_point(|loaded| loaded.module.range.start <= address);
        let loaded = after.checked_sub(1).and_then(|index| self.modules.get(index)).ok_or(fault)?;
        let image = loaded.module.image.as_ref().ok_or(fault)?;
        let stated = address.wrapping_sub(loaded.module.bias);
        bytes.copy_from_slice(image.loaded_bytes(stated, bytes.len()).ok_or(fault)?);
        let relocated = loaded.relocated.get_or_init(|| relocations(image));
        let first = relocated.partition_point(|(at, _)| at.saturating_add(8) <= stated);
        let end = stated.saturating_add(bytes.len() as u64);
        for (at, value) in relocated.iter().skip(first).take_while(|(at, _)| *at < end) {
            let word = value.wrapping_add(loaded.module.bias).to_le_bytes();
            for (place, byte) in (*at..).zip(word) {
                let index = place.checked_sub(stated).and_then(|index| usize::try_from(index).ok());
                if let Some(target) = index.and_then(|index| bytes.get_mut(index)) {
                    *target = byte;
                }
            }
        }
        Ok(())
    }
}
