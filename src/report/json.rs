//! JSON: one object a moment, on one line. The names are those of `docs/report-format.md`.

use serde::Serialize;
use std::io::{self, Write};

/// Writes a [`crate::snapshot::Summary`] or a [`crate::growth::Growth`] and a line end.
pub fn write<T: Serialize>(out: &mut dyn Write, moment: &T) -> io::Result<()> {
    serde_json::to_writer(&mut *out, moment).map_err(io::Error::from)?;
    writeln!(out)
}
