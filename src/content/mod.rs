//! What a block is: told from its first bytes and the modules of the target.
//!
//! A C++ object tells its class by its vtable, also in a stripped program: the type information in front of a vtable
//! names the class. Of what has no vtable only hints are told: Python objects, text, the kinds of the first words. It
//! knows bytes and modules and refuses to know allocators; it never writes and never makes the target read a page.

mod block_type;
mod bytes;
mod module_bytes;
mod python;
mod shape;
mod sources;
mod typer;
mod vtable;

pub use block_type::{BlockType, Evidence};
pub use bytes::{Content, LOOK_BYTES_MAX};
pub use module_bytes::ModuleBytes;
pub use shape::Shape;
pub use sources::Sources;
pub use typer::Typer;
pub use vtable::RustTable;
