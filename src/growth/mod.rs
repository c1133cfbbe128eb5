//! Growth: the difference of two or more snapshots, exact per size class, arena and large block.

pub mod schema;

pub use schema::{Growth, Row};
