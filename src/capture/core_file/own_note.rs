//! heaptap's own notes in a capture: what a core file has no place for.
//!
//! One note is JSON and describes the capture; the other is the list of mappings in the form of Linux's
//! `/proc/PID/maps`, which every tool can read.

use super::{ModuleNote, Origin};
use crate::capture::{Capture, Moments};
use heaptap_platform::{AddressRange, Architecture, Pause, merge_ranges};
use serde::{Deserialize, Serialize};

/// Owner of both notes.
pub const OWNER: &[u8] = b"heaptap";
/// Type of the note that describes the capture. Small numbers mean registers to debuggers, whoever the owner is.
pub const NT_CAPTURE: u32 = 0x4854_0001;
/// Type of the note that lists the mappings.
pub const NT_MAPPINGS: u32 = 0x4854_0002;

/// The value of [`CaptureNote::schema`].
pub const SCHEMA: &str = "heaptap/capture/1";

/// What a capture says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureNote {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// What the file holds, as sentences.
    pub holds: Vec<String>,
    /// Process id.
    pub pid: i32,
    /// Name of the process.
    pub name: String,
    /// Executable as the target names it.
    pub exe: String,
    /// Operating system.
    pub os: String,
    /// Start time in clock ticks since boot.
    pub start_ticks: Option<u64>,
    /// The machine's boot id.
    pub boot_id: Option<String>,
    /// Build id of the executable.
    pub build_id: Option<String>,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Wall-clock time of the stop, seconds since 1970.
    pub taken_at: f64,
    /// How long each stop took.
    pub pauses_us: Vec<u64>,
    /// An allocator held a lock at every attempt.
    pub in_motion: bool,
    /// The time limit ended the copying early.
    pub cut_short: bool,
    /// What could not be copied, as sentences.
    pub lacks: Vec<String>,
    /// How it was taken.
    pub notes: Vec<String>,
    /// Where the heap was read around the stop: start and end of the pages that may have changed.
    pub doubtful: Option<Vec<(u64, u64)>>,
    /// The same: pages that were read in the stop.
    pub stopped: Vec<(u64, u64)>,
    /// Memory that is no allocator's records, was read around the stop and has changed meanwhile: start and end.
    pub changed: Vec<(u64, u64)>,
    /// Modules.
    pub modules: Vec<ModuleNote>,
    /// Names of threads by their ids.
    pub thread_names: Vec<(i32, String)>,
}

impl Default for CaptureNote {
    fn default() -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            holds: Vec::new(),
            pid: 0,
            name: String::new(),
            exe: String::new(),
            os: String::new(),
            start_ticks: None,
            boot_id: None,
            build_id: None,
            page_bytes: 4096,
            taken_at: 0.0,
            pauses_us: Vec::new(),
            in_motion: false,
            cut_short: false,
            lacks: Vec::new(),
            notes: Vec::new(),
            doubtful: None,
            stopped: Vec::new(),
            changed: Vec::new(),
            modules: Vec::new(),
            thread_names: Vec::new(),
        }
    }
}

impl CaptureNote {
    /// The note of a capture.
    pub fn of(origin: &Origin, capture: &Capture) -> Self {
        let pairs = |ranges: &[AddressRange]| ranges.iter().map(|range| (range.start, range.end)).collect();
        let preread = capture.memory.preread.as_ref();
        Self {
            notes: capture.notes.clone(),
            changed: pairs(&capture.changed),
            doubtful: preread.map(|moments| pairs(&moments.doubtful)),
            stopped: preread.map(|moments| pairs(&moments.stopped)).unwrap_or_default(),
            pid: origin.pid,
            name: origin.name.clone(),
            exe: origin.exe.clone(),
            os: origin.os.clone(),
            start_ticks: origin.start_ticks,
            boot_id: origin.boot_id.clone(),
            build_id: origin.build_id.clone(),
            taken_at: capture.taken_at,
            pauses_us: capture.pauses.iter().map(|pause| pause.stopped_us).collect(),
            in_motion: capture.in_motion,
            cut_short: capture.cut_short,
            lacks: capture.lacks.clone(),
            ..Self::default()
        }
    }

    /// The process that it names.
    pub fn origin(&self, architecture: Architecture) -> Origin {
        Origin {
            pid: self.pid,
            name: self.name.clone(),
            exe: self.exe.clone(),
            os: self.os.clone(),
            architecture,
            start_ticks: self.start_ticks,
            boot_id: self.boot_id.clone(),
            build_id: self.build_id.clone(),
        }
    }

    /// Tells `capture` what only the note knows.
    pub fn complete(&self, capture: &mut Capture) {
        let pause = |stopped_us: &u64| Pause { stopped_us: *stopped_us, ..Pause::default() };
        capture.taken_at = self.taken_at;
        capture.pauses = self.pauses_us.iter().map(pause).collect();
        capture.in_motion = self.in_motion;
        capture.cut_short = self.cut_short;
        capture.lacks.extend(self.lacks.iter().cloned());
        capture.notes.clone_from(&self.notes);
        let ranges = |pairs: &[(u64, u64)]| {
            let ranges = pairs.iter().filter_map(|(start, end)| AddressRange::new(*start, *end));
            merge_ranges(ranges.collect(), 0)
        };
        capture.changed = ranges(&self.changed);
        capture.memory.preread = self
            .doubtful
            .as_ref()
            .map(|doubtful| Moments { doubtful: ranges(doubtful), stopped: ranges(&self.stopped) });
    }
}
