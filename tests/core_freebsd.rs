//! Two real FreeBSD cores, with no file of that system beside them: is the C library's jemalloc found, and is every
//! block known that the program says it has? What the program did is told in `captures/README.md`; its lists are
//! followed here in the plainest way, by the core's own headers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod live;

use heaptap::snapshot::Snapshot;
use heaptap::target::{Options, Target};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The core's bytes, read by their own means.
struct PlainCore {
    bytes: Vec<u8>,
    /// Address, length, place in the file.
    segments: Vec<(u64, u64, u64)>,
}

impl PlainCore {
    fn open(path: &Path) -> Self {
        let bytes = zstd::decode_all(std::fs::read(path).unwrap().as_slice()).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (table, count) = (word(32) as usize, u16::from_le_bytes([bytes[56], bytes[57]]) as usize);
        let segment = |index: usize| {
            let header = table + index * 56;
            (bytes[header] == 1).then(|| (word(header + 16), word(header + 32), word(header + 8)))
        };
        let segments = (0..count).filter_map(segment).collect();
        Self { bytes, segments }
    }

    fn at(&self, address: u64, len_bytes: usize) -> &[u8] {
        let holds = |(start, length, _): &&(u64, u64, u64)| (*start..start + length).contains(&address);
        let (start, _, offset) = self.segments.iter().find(holds).expect("it is in the core");
        let place = (offset + address - start) as usize;
        &self.bytes[place..place + len_bytes]
    }

    fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.at(address, 8).try_into().unwrap())
    }
}

/// What is told of one of the cores.
struct Known {
    file: &'static str,
    pid: i32,
    heads: [u64; 3],
    main_block: u64,
    /// The allocator as it is named without the text of its version.
    version: &'static str,
    /// Blocks of 777 bytes that only their threads know. One compiler has left them out, and both the blocks of 3 MiB:
    /// jemalloc's own counters, by which every cell is checked, never saw them, and the threads' caches counted
    /// no request for them.
    of_threads: usize,
    /// Thread caches: the list of their descriptors in an arena, and in a cache bin the count of requests.
    descriptors: u64,
    /// Addresses of the three arenas that the threads use.
    arenas: [u64; 3],
    /// Blocks of the C library and its threads by size class, but for the locks below.
    runtime: &'static [(u64, usize)],
    /// The locks of the C library, jemalloc's own among them: blocks of 96 bytes that are mutexes.
    locks: usize,
}

const KNOWN: [Known; 2] = [
    Known {
        file: "freebsd-15.1-amd64.core.zst",
        pid: 39,
        heads: [0x3cbc_d353_5560, 0x3cbc_d393_5560, 0x3cbc_d3fb_5560],
        main_block: 0x3cbc_d2a2_b000,
        version: "like 5.3.0 of FreeBSD",
        of_threads: 3,
        descriptors: 10_400,
        arenas: [0x3cbc_d320_1000, 0x3cbc_d360_1000, 0x3cbc_d3a0_1000],
        // Names of three threads, one attribute object, a buffer of standard output.
        runtime: &[(16, 3), (80, 1), (32_768, 1)],
        locks: 194,
    },
    Known {
        file: "freebsd-13.2-userland-amd64.core.zst",
        pid: 19,
        heads: [0x2e8d_adb3_5560, 0x2e8d_ae1b_5560, 0x2e8d_ae73_5560],
        main_block: 0x2e8d_ad21_9100,
        version: "like 5.2 of FreeBSD",
        of_threads: 0,
        descriptors: 10_192,
        arenas: [0x2e8d_ad80_08c0, 0x2e8d_adc0_08c0, 0x2e8d_ae40_08c0],
        // Here the structures of the four threads, and a sleep queue of each, lie in the heap as well.
        runtime: &[(16, 3), (64, 4), (80, 1), (1792, 4), (32_768, 1)],
        locks: 446,
    },
];

fn path(known: &Known) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(known.file)
}

fn read(known: &Known) -> Snapshot {
    let target = Target::open(path(known).to_str().unwrap()).expect("it is a core");
    target.snapshot(&Options::default()).expect("its heap can be read")
}

#[test]
fn the_heap_is_found_and_proved_without_any_file() {
    for known in &KNOWN {
        let summary = read(known).summary;
        let target = &summary.target;
        assert_eq!(
            (target.kind.as_str(), target.os.as_str(), target.arch.as_str()),
            ("core", "freebsd", "x86_64")
        );
        assert_eq!((target.pid, target.threads), (known.pid, 4), "{}", known.file);
        let allocator = &summary.allocators[0];
        assert_eq!((allocator.name.as_str(), allocator.version.as_str()), ("jemalloc", known.version));
        assert!(allocator.module.ends_with("lib/libc.so.7"), "{}", allocator.module);
        assert!(allocator.complete && allocator.verified, "{}: {:?}", known.file, allocator.anomalies);
        assert_eq!(
            (allocator.cells_compared, allocator.cells_differing),
            (928, 0),
            "four arenas of 232 classes"
        );
        assert_eq!(allocator.thread_caches, 4);
    }
}

/// Takes the program's own blocks out of `live`, each of which must be there and large enough.
fn take_known(known: &Known, core: &PlainCore, live: &mut BTreeMap<u64, u64>) -> usize {
    let mut taken = 0;
    let mut take = |address: u64, wanted: u64| {
        let usable =
            live.remove(&address).unwrap_or_else(|| panic!("{}: {address:#x} is not live", known.file));
        assert!(
            usable >= wanted && usable <= wanted.max(16) * 5 / 4 + 16,
            "{address:#x}: {usable} for {wanted}"
        );
        taken += 1;
    };
    for (thread, head) in (0_u64..).zip(known.heads) {
        let mut node = head;
        for left in (0..300_u64).rev() {
            let (next, payload, mark, size) =
                (core.word(node), core.word(node + 8), core.word(node + 16), core.word(node + 24));
            assert_eq!(mark, 0xfeed_face_0000_0000 + left, "{}: the newest node comes first", known.file);
            assert_eq!(size, 16 + left * 37 % 20_000);
            let filled = core.at(payload, usize::try_from(size).unwrap());
            assert!(filled.iter().all(|byte| u64::from(*byte) == 0x40 + thread));
            take(node, 32);
            take(payload, size);
            node = next;
        }
        assert_eq!(node, 0);
    }
    take(known.main_block, 64);
    taken
}

#[test]
fn every_block_of_the_program_is_live_and_every_other_is_explained() {
    for known in &KNOWN {
        let snapshot = read(known);
        let mut live = live::blocks(&snapshot.liveness[0]);
        let core = PlainCore::open(&path(known));
        assert_eq!(take_known(known, &core, &mut live), 3 * 600 + 1);
        let of_threads: Vec<u64> = live.iter().filter(|(_, size)| **size == 896).map(|(at, _)| *at).collect();
        assert_eq!(of_threads.len(), known.of_threads, "{}", known.file);
        of_threads.iter().for_each(|at| {
            live.remove(at);
        });
        // What remains is the C library's. A mutex holds zeros but for its kind, an odd number at its word 8.
        let is_lock = |at: &u64| core.at(*at, 32) == [0; 32] && core.at(*at + 32, 1)[0] & 1 == 1;
        let locks = live.iter().filter(|(at, size)| **size == 96 && is_lock(at)).count();
        assert_eq!(locks, known.locks, "{}", known.file);
        live.retain(|at, size| *size != 96 || !is_lock(at));
        let mut by_size: BTreeMap<u64, usize> = BTreeMap::new();
        live.values().for_each(|size| *by_size.entry(*size).or_default() += 1);
        assert_eq!(by_size.into_iter().collect::<Vec<_>>(), known.runtime, "{}", known.file);
        for (at, _) in live.iter().filter(|(_, size)| **size == 16) {
            assert!(core.at(*at, 7) == b"worker-", "the name of a thread");
        }
        let (buffer, _) = live.iter().find(|(_, size)| **size == 32_768).unwrap();
        assert!(core.at(*buffer, 4) == b"pid ", "what the program printed");
    }
}

/// Each thread has made three payloads of 769 to 896 bytes (i = 21, 22, 23); its cache, filled once, has counted the
/// requests of that class: a fourth is the block of 777 bytes.
#[test]
fn thread_caches_counted_the_blocks_of_777_bytes_where_there_are_any() {
    /// Place of the class of 896 bytes among all: 8, 16, 32 ... 128, then four in each doubling.
    const CLASS: u64 = 19;
    for known in &KNOWN {
        let core = PlainCore::open(&path(known));
        let requests = known.arenas.map(|arena| {
            let descriptor = core.word(arena + known.descriptors);
            core.word(core.word(descriptor + 16) + 24 * CLASS + 8)
        });
        let of_class: u64 = requests.iter().sum();
        assert_eq!(of_class, 9 + known.of_threads as u64, "{}: {requests:?}", known.file);
    }
}
