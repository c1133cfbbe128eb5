//! Reports: how summaries and growth look as text and as JSON.
//!
//! A report formats what `snapshot` and `growth` hold, growth in the order in which it comes. It knows neither allocators nor targets, and
//! it refuses to compute: the only arithmetic here is the sum of rows that are printed as one line. Whatever
//! makes a figure doubtful (partial walks, differing counters, blocks in motion) is printed before the figure.

pub mod clock;
pub mod diff;
pub mod doubt;
pub mod folded;
pub mod heading;
pub mod info;
pub mod json;
pub mod page;
pub mod pprof;
pub mod profile;
pub mod quantity;
pub mod record;
pub mod resident;
pub mod rollup;
pub mod screen;
pub mod show;
pub mod snap;
pub mod sparkline;
pub mod stacks;
pub mod table;
pub mod types;
pub mod watch;
pub mod weighed;

pub use page::{Page, Tone};
pub use quantity::Sizes;
