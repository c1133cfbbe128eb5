//! Does a look leave the target's memory as it was? A page that is read comes into memory, in the target: so nothing may be
//! read that is not there yet.
//!
//! What the kernel says of a target at rest is compared before and after each command: its sums, each mapping's resident
//! bytes, the bytes of its page tables, and for each page whether it is in memory, in swap, and whose it is. `Pss` as a
//! whole is left out, since the library pages in it count by how many other processes use them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod exactness;
mod ledger;
mod outside;

use exactness::assert_exact;
use heaptap_test_programs::LEDGER;
use ledger::Ledger;
use outside::{Folder, JEMALLOC, assert_runs, await_that, heaptap, states};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const PAGE_BYTES: u64 = 4096;

/// What `areas` of the ledger maps at a time.
const AREA_BYTES: u64 = 16 << 20;

/// Lines of `smaps_rollup` that depend on the target alone.
const SUMS: [&str; 10] = [
    "Rss",
    "Pss_Anon",
    "Pss_Shmem",
    "Anonymous",
    "LazyFree",
    "AnonHugePages",
    "Swap",
    "SwapPss",
    "ShmemPmdMapped",
    "Locked",
];

/// A line of `/proc/PID/smaps` that begins a mapping.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    start: u64,
    end: u64,
    line: String,
}

/// What the kernel says of a process's memory.
#[derive(Debug, PartialEq, Eq)]
struct Footprint {
    /// By name; kB, as the kernel writes it.
    sums: BTreeMap<String, String>,
    resident: BTreeMap<Place, String>,
    /// Of each page of each mapping, the bits of its pagemap entry: present, swapped, file or shared.
    pages: BTreeMap<Place, Vec<u8>>,
}

impl Footprint {
    /// Once all threads wait; the ledger has answered, and is about to read the next command.
    fn of(ledger: &Ledger) -> Self {
        let pid = ledger.pid();
        await_that("it is at rest", || states(pid).iter().all(|(_, letter, _)| *letter == 'S'));
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        let mut resident = BTreeMap::new();
        let mut place = None;
        for line in smaps.lines() {
            place = Place::parse(line).or(place);
            if let Some(value) = line.strip_prefix("Rss:") {
                resident.insert(place.clone().unwrap(), value.trim().to_owned());
            }
        }
        let pagemap = File::open(format!("/proc/{pid}/pagemap")).unwrap();
        let pages = resident.keys().map(|place| (place.clone(), place.pages(&pagemap))).collect();
        Self { sums: sums(pid), resident, pages }
    }

    fn present(&self, place: &Place) -> usize {
        self.pages[place].iter().filter(|bits| **bits & 0b100 != 0).count()
    }

    /// What differs, in words.
    fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in &self.sums {
            let now = later.sums.get(name);
            if now != Some(value) {
                found.push(format!("{name}: {value}, then {now:?}"));
            }
        }
        for (place, value) in &self.resident {
            let now = later.resident.get(place);
            if now != Some(value) {
                found.push(format!("Rss of {}: {value}, then {now:?}", place.line));
            }
        }
        for (place, before) in &self.pages {
            let Some(now) = later.pages.get(place) else {
                found.push(format!("{} is gone", place.line));
                continue;
            };
            let changed = (0..before.len()).filter(|index| before.get(*index) != now.get(*index));
            found.extend(changed.map(|index| {
                let page = place.start + index as u64 * PAGE_BYTES;
                format!("page {page:#x} of {}: {:03b}, then {:03b}", place.line, before[index], now[index])
            }));
        }
        let new = later.resident.keys().filter(|place| !self.resident.contains_key(place));
        found.extend(new.map(|place| format!("{} is new", place.line)));
        found
    }
}

fn sums(pid: u32) -> BTreeMap<String, String> {
    let pairs = |name: &str| -> BTreeMap<String, String> {
        let text = fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
        let pair =
            |line: &str| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        text.lines().filter_map(pair).collect()
    };
    let mut sums = pairs("smaps_rollup");
    sums.retain(|key, _| SUMS.contains(&key.as_str()));
    assert!(["Rss", "Anonymous", "Swap"].iter().all(|key| sums.contains_key(*key)), "{sums:?}");
    sums.insert("VmPTE".to_owned(), pairs("status")["VmPTE"].clone());
    sums
}

impl Place {
    fn parse(line: &str) -> Option<Self> {
        let (start, rest) = line.split_once('-')?;
        let end = rest.split(' ').next()?;
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        Some(Self { start: number(start)?, end: number(end)?, line: line.to_owned() })
    }

    /// Nothing where the kernel keeps no account, which is so for its own page at the end of the address space.
    fn pages(&self, pagemap: &File) -> Vec<u8> {
        let mut entries = vec![0; usize::try_from((self.end - self.start) / PAGE_BYTES * 8).unwrap()];
        let count = pagemap.read_at(&mut entries, self.start / PAGE_BYTES * 8).unwrap();
        assert!(count == entries.len() || self.line.ends_with("[vsyscall]"), "{count} bytes: {}", self.line);
        // Bits 61 to 63 of each entry.
        entries.chunks_exact(8).map(|entry| entry[7] >> 5).collect()
    }

    fn has_permissions(&self, wanted: &str) -> bool {
        self.line.split(' ').nth(1) == Some(wanted)
    }
}

/// Areas, large blocks of which one page was touched, a block that cannot be read.
fn prepare(ledger: &mut Ledger) {
    ledger.command("areas");
    ledger.command("grow 6 20000000");
    ledger.command("grow 6 3000000 2");
    ledger.command("protect 300000");
    ledger.command("protect 3000000");
    // A mapping in the middle of the heap that brk grows, if that is what the allocator uses.
    ledger.command("protect 90000");
    ledger.command("shrink 2 20000000");
}

/// Checks that there is something to be touched, of each kind.
fn assert_has_absent_pages(footprint: &Footprint) {
    for permissions in ["rw-p", "r--p", "---p", "rw-s", "r--s", "---s"] {
        let places = footprint.pages.iter().filter(|(place, _)| place.has_permissions(permissions));
        let all: Vec<(usize, usize)> =
            places.map(|(place, pages)| (footprint.present(place), pages.len())).collect();
        let absent: usize = all.iter().map(|(present, pages)| pages - present).sum();
        assert!(absent >= 4096, "{permissions}: {all:?}");
        assert!(all.iter().any(|(present, pages)| *present > 0 && present < pages), "{permissions}: {all:?}");
    }
}

/// Looks at it in every way and compares after each.
fn assert_untouched(ledger: &Ledger) {
    let before = Footprint::of(ledger);
    assert_has_absent_pages(&before);
    let folder = Folder::new();
    let pid = ledger.pid().to_string();
    let (core, file) = (folder.path("moment.core"), folder.path("moment.heaptap"));
    let (core, file) = (core.display().to_string(), file.display().to_string());
    let looks: [&[&str]; 6] = [
        &["info", &pid, "--pause-budget", "10s"],
        &["snap", &pid, "-o", &file, "--pause-budget", "10s"],
        &["capture", &pid, "-o", &core, "--pause-budget", "10s"],
        &["stacks", &pid, "--pause-budget", "10s"],
        &["diff", &pid, &pid, "--pause-budget", "10s"],
        // Too short for a heap to be read in the stop: most of it is read before and after.
        &["info", &pid, "--pause-budget", "3ms"],
    ];
    let repeated: &[&str] = &["snap", &pid, "--json", "--pause-budget", "10s"];
    for words in looks.into_iter().chain([repeated; 20]) {
        let told = heaptap(words);
        let is_short = words.contains(&"3ms");
        assert!(
            told.code == 0
                || (is_short && [1, 7].contains(&told.code))
                || (words[0] == "stacks" && told.code == 1),
            "{words:?}: {told:?}"
        );
        let found = before.differences(&Footprint::of(ledger));
        assert!(
            found.is_empty(),
            "{words:?}: {} differences: {:#?}",
            found.len(),
            &found[..found.len().min(20)]
        );
    }
    assert_runs(ledger.pid());
}

#[test]
fn a_heap_of_jemalloc_with_retained_extents() {
    let configuration = "retain:true,dirty_decay_ms:-1,muzzy_decay_ms:-1";
    let mut ledger = Ledger::preloaded(LEDGER, JEMALLOC, configuration, &[]);
    prepare(&mut ledger);
    ledger.command("purge");
    assert_untouched(&ledger);
    assert_exact(&mut ledger);
}

#[test]
fn a_heap_of_glibc() {
    let mut ledger = Ledger::start(LEDGER, &[]);
    prepare(&mut ledger);
    assert_untouched(&ledger);
}

/// The comparison sees each kind of page that a reader brings in.
#[test]
fn a_reader_that_does_not_ask_first() {
    let mut ledger = Ledger::start(LEDGER, &["--empty"]);
    prepare(&mut ledger);
    let memory = File::open(format!("/proc/{}/mem", ledger.pid())).unwrap();
    // An absent page of a private mapping becomes the page of zeros, which the kernel does not call resident.
    let anonymous = |place: &Place| !place.line.contains('/');
    let kinds: [(&str, bool, bool); 5] = [
        ("rw-p", true, false),
        ("---p", true, false),
        ("rw-p", false, true),
        ("rw-s", false, true),
        ("r--s", false, true),
    ];
    for (permissions, is_anonymous, is_resident) in kinds {
        let before = Footprint::of(&ledger);
        assert_eq!(before.differences(&Footprint::of(&ledger)), Vec::<String>::new(), "it is at rest");
        let mut places = before.resident.keys();
        let place = places
            .find(|place| {
                place.has_permissions(permissions)
                    && anonymous(place) == is_anonymous
                    && place.end - place.start >= AREA_BYTES
            })
            .unwrap();
        let index = before.pages[place].iter().rposition(|bits| bits & 0b110 == 0).unwrap();
        let page = place.start + index as u64 * PAGE_BYTES;
        memory.read_exact_at(&mut [0], page).unwrap();
        let found = before.differences(&Footprint::of(&ledger));
        let told = |beginning: &str| found.iter().any(|line| line.starts_with(beginning));
        assert!(told(&format!("page {page:#x} of {}", place.line)), "{permissions}: {found:#?}");
        assert_eq!(told("Rss: "), is_resident, "{permissions}: {found:#?}");
        assert_eq!(told(&format!("Rss of {}", place.line)), is_resident, "{permissions}: {found:#?}");
    }
}
