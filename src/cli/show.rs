//! `heaptap show`: what lies at an address, or what blocks of a size class look like.

use super::exit::Exit;
use super::failure::Failure;
use super::progress::Progress;
use super::setting::Setting;
use crate::inspection::schema::Inspection;
use crate::inspection::{AddressRequest, ClassRequest, SHOWN_BYTES_MAX};
use crate::report::{json, show};
use crate::snapshot::{self, Snapshot};
use crate::target::{Inspected, Options, Target};
use clap::Args;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// Show what lies at an address, or what the blocks of a size class look like
///
/// With an address: the block that it is in (arena, size class, live, cached or
/// free, its place in its run, its neighbours), its type where that can be told,
/// and its bytes, pointers named by what they point to. Addresses outside of
/// blocks are explained too: stacks, data of modules, other mappings. With
/// --referrers writable memory is searched for words that point into the block.
///
/// With --class: random live blocks of that size class one under the other, how
/// many are of which type, and which words they have in common. --new-since
/// takes only blocks whose place was not live in a snapshot: what has come
/// since. Types are those of C++ (by vtable, also in stripped programs) and
/// Python; of other blocks it tells text, and the kinds of the first words.
///
///   $ heaptap show 4121 0x7f60a1c45030
///   $ heaptap show 4121 --class 112 --new-since before.heaptap
///   $ heaptap show 4121.core --class 48 --arena 3 --sample 5 --seed 1
///
/// The target is stopped once, for milliseconds, and the pause is printed.
/// Which blocks there are is of that moment, and so are bytes near an address
/// that was given; other bytes are read after it, while the target runs.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ShowArgs {
    /// Process id, capture or core
    #[arg(value_name = "PID")]
    target: String,
    /// An address, hexadecimal with or without 0x
    #[arg(value_name = "ADDRESS", value_parser = address, required_unless_present = "class", conflicts_with = "class")]
    address: Option<u64>,
    /// Show so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u64).range(8..=SHOWN_BYTES_MAX))]
    length: u64,
    /// Search for words that point into the block
    #[arg(long, conflicts_with = "class")]
    referrers: bool,
    /// Show blocks of this size class, in bytes
    #[arg(long, value_name = "BYTES")]
    class: Option<u64>,
    /// Take blocks of this arena only
    #[arg(long, value_name = "N", requires = "class")]
    arena: Option<u32>,
    /// Show so many of them
    #[arg(long, value_name = "N", default_value_t = 20, requires = "class", value_parser = clap::value_parser!(u16).range(1..=1000))]
    sample: u16,
    /// Take only blocks whose place was not live in this snapshot
    #[arg(long, value_name = "SNAPSHOT", requires = "class")]
    new_since: Option<PathBuf>,
    /// Choose the same blocks again
    #[arg(long, value_name = "N", requires = "class")]
    seed: Option<u64>,
}

fn address(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).map_err(|_| "it must be a hexadecimal number".to_owned())
}

impl ShowArgs {
    /// Reports what is there.
    pub(super) fn run(self, setting: &Setting, out: &mut dyn Write) -> Result<Exit, Failure> {
        let inspection = {
            let _progress = Progress::begin(format!("reading {}", self.target));
            let before = self.new_since.as_deref().map(snapshot::read).transpose()?;
            let target = Target::open(&self.target)?.below(&setting.sysroot);
            let begun = Instant::now();
            let inspected = target.inspect(&Options { at: self.address, ..setting.options() })?;
            setting.tell_time(&format!("find the blocks of {}", self.target), begun.elapsed());
            let begun = Instant::now();
            let inspection = self.inspection(&inspected, before.as_ref())?;
            setting.tell_time("look at them", begun.elapsed());
            inspection
        };
        if setting.json {
            json::write(out, &inspection)
        } else {
            show::write(out, &setting.page, &inspection, Some(setting.budget_ms()))
        }
        .map_err(Failure::Report)?;
        Ok(exit_after(&inspection))
    }

    fn inspection(&self, inspected: &Inspected, before: Option<&Snapshot>) -> Result<Inspection, Failure> {
        if let Some(address) = self.address {
            let request = AddressRequest { address, shown_bytes: self.length, referrers: self.referrers };
            return Ok(inspected.completed(inspected.look(|subject| subject.at_address(&request))));
        }
        let size_bytes = self.class.unwrap_or_default();
        if let Some(before) = before {
            inspected.check_since(before, &self.since_name())?;
        }
        let since = self.since_name();
        let request = ClassRequest {
            size_bytes,
            shard: self.arena,
            count: usize::from(self.sample),
            seed: self.seed.unwrap_or_else(seed_of_now),
            new_since: before.map(|snapshot| (since.as_str(), snapshot)),
        };
        match inspected.look(|subject| subject.of_class(&request)) {
            Some(inspection) => Ok(inspected.completed(inspection)),
            None => Err(no_such_class(inspected, size_bytes)),
        }
    }

    fn since_name(&self) -> String {
        self.new_since.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// A seed that differs from call to call; it is printed, so that it can be given again.
fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos())
}

fn no_such_class(inspected: &Inspected, size_bytes: u64) -> Failure {
    let classes = inspected.look(|subject| subject.classes());
    let below = classes.range(..size_bytes).next_back();
    let above = classes.range(size_bytes..).next();
    let nearest: Vec<String> = [below, above].into_iter().flatten().map(u64::to_string).collect();
    Failure::WrongUse {
        what: format!("no allocator of the target has blocks of a size class of {size_bytes} bytes"),
        hint: format!("the nearest are {}; `heaptap snap` lists all", nearest.join(" and ")),
    }
}

/// How a command ends that has reported this: without a block or a mapping the answer is no.
fn exit_after(inspection: &Inspection) -> Exit {
    let is_mapped = inspection.place.as_ref().is_none_or(|place| place.kind != "unmapped");
    let has_blocks = inspection.sample.as_ref().is_none_or(|sample| sample.live_blocks > 0);
    if is_mapped && has_blocks && inspection.missing.is_empty() { Exit::Done } else { Exit::Partial }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_hexadecimal() {
        assert_eq!(address("0x7f00"), Ok(0x7f00));
        assert_eq!(address("7f00"), Ok(0x7f00));
        assert!(address("0x").is_err() && address("7g").is_err() && address("-1").is_err());
    }
}
