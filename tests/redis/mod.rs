//! A redis-server of its own for a test, and what it says of its heap: `MEMORY MALLOC-STATS`, read row by row.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A server that listens on a socket in a directory of its own; ended when dropped.
pub struct Redis {
    child: Child,
    directory: PathBuf,
    connection: BufReader<UnixStream>,
}

/// The figures of all arenas that the program's blocks and address space decide; what is resident, for one,
/// is not among them.
const TOTALS: [&str; 4] = ["allocated", "active", "mapped", "retained"];
/// The same of one arena.
const ARENA_FIGURES: [&str; 4] = ["active", "mapped", "retained", "internal"];

/// One arena's own figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArenaText {
    /// `active`, `mapped`, `retained`, `internal`: bytes.
    pub bytes: BTreeMap<String, u64>,
    /// Small size classes: regions handed out, slabs, slabs with room but for the current one.
    pub bins: BTreeMap<u64, BinText>,
    /// Large size classes: extents.
    pub large: BTreeMap<u64, u64>,
}

/// A row of an arena's table of bins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BinText {
    pub curregs: u64,
    pub curslabs: u64,
    pub nonfull_slabs: u64,
}

/// All that is compared of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatisticsText {
    /// `Allocated: ..., active: ..., mapped: ...` of all arenas.
    pub totals: BTreeMap<String, u64>,
    /// By number; the sums of all, where the text has them, are under `None`.
    pub arenas: BTreeMap<Option<u32>, ArenaText>,
}

impl Redis {
    /// Starts the system's server, without a port and without saving.
    pub fn start(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("heaptap-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let socket = directory.join("socket");
        let mut child = Command::new("redis-server")
            .current_dir(&directory)
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--enable-debug-command", "local"])
            .arg("--unixsocket")
            .arg(&socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is installed: .ci/run does it");
        let mut log = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("accept connections at") {
            line.clear();
            assert!(log.read_line(&mut line).expect("its log") > 0, "redis-server ended");
        }
        // It goes on writing to its log, which nobody must have closed.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let connection = BufReader::new(connect(&socket));
        Self { child, directory, connection }
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Directory that is removed at the end.
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// Gives a command of plain words and returns the reply's text.
    pub fn command(&mut self, command: &str) -> String {
        self.connection.get_mut().write_all(format!("{command}\r\n").as_bytes()).expect("redis listens");
        self.reply()
    }

    /// Gives many commands at once, thousands before any reply is read.
    pub fn commands(&mut self, commands: impl Iterator<Item = String>) {
        const AT_ONCE: usize = 10_000;
        let mut commands = commands.peekable();
        while commands.peek().is_some() {
            let batch: Vec<String> = commands.by_ref().take(AT_ONCE).collect();
            let text = batch.join("\r\n") + "\r\n";
            self.connection.get_mut().write_all(text.as_bytes()).expect("redis listens");
            for command in &batch {
                let reply = self.reply();
                assert!(!reply.starts_with('-'), "{command}: {reply}");
            }
        }
    }

    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.connection.read_line(&mut line).expect("redis answers");
        let Some(len_bytes) = line.strip_prefix('$').and_then(|len| len.trim().parse::<usize>().ok()) else {
            return line.trim_end().to_owned();
        };
        let mut bytes = vec![0; len_bytes + 2];
        self.connection.read_exact(&mut bytes).expect("redis answers");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What jemalloc says of itself at this moment.
    pub fn statistics(&mut self) -> StatisticsText {
        StatisticsText::parse(&self.command("MEMORY MALLOC-STATS"))
    }
}

fn connect(socket: &std::path::Path) -> UnixStream {
    // The socket exists before the server says that it is ready.
    match UnixStream::connect(socket) {
        Ok(connection) => connection,
        Err(error) if error.kind() == ErrorKind::NotFound => panic!("{}: {error}", socket.display()),
        Err(error) => panic!("{error}"),
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Which table a line stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TableKind {
    None,
    Bins,
    Large,
}

impl StatisticsText {
    fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        let mut arena: Option<Option<u32>> = None;
        let mut table = TableKind::None;
        let mut columns: Vec<&str> = Vec::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let Some(&first) = words.first() else { continue };
            if first == "Allocated:" {
                parsed.totals = pairs(line);
            } else if let Some(number) =
                first.strip_prefix("arenas[").and_then(|rest| rest.strip_suffix("]:"))
            {
                arena = Some(Some(number.parse().expect("an arena's number")));
                table = TableKind::None;
            } else if line.starts_with("Merged arenas") {
                arena = Some(None);
                table = TableKind::None;
            } else if line.starts_with("Destroyed arenas") {
                arena = None;
            } else if words.get(1) == Some(&"size") {
                table = match first {
                    "bins:" => TableKind::Bins,
                    "large:" => TableKind::Large,
                    _ => TableKind::None,
                };
                columns = words.into_iter().skip(1).collect();
            } else if let Some(arena) = arena {
                let arena = parsed.arenas.entry(arena).or_default();
                arena.line(table, &columns, &words);
            }
        }
        parsed
    }
}

impl ArenaText {
    fn line(&mut self, table: TableKind, columns: &[&str], words: &[&str]) {
        if let [name, figure] = words
            && let (Some(name), Ok(bytes)) = (name.strip_suffix(':'), figure.parse())
        {
            if ARENA_FIGURES.contains(&name) {
                self.bytes.insert(name.to_owned(), bytes);
            }
            return;
        }
        let column = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            words.get(at)?.parse::<u64>().ok()
        };
        let Some(size) = column("size") else { return };
        let must = |name: &str| column(name).unwrap_or_else(|| panic!("no {name} in {words:?}"));
        match table {
            TableKind::Bins => {
                let row = BinText {
                    curregs: must("curregs"),
                    curslabs: must("curslabs"),
                    nonfull_slabs: must("nonfull_slabs"),
                };
                self.bins.insert(size, row);
            }
            TableKind::Large => {
                self.large.insert(size, must("curlextents"));
            }
            TableKind::None => {}
        }
    }
}

/// `Allocated: 1, active: 2` as names and numbers.
fn pairs(line: &str) -> BTreeMap<String, u64> {
    let pair = |part: &str| {
        let (name, value) = part.split_once(':')?;
        let number = value.split_ascii_whitespace().next()?.parse().ok()?;
        Some((name.trim().to_lowercase(), number))
    };
    line.split(',').filter_map(pair).filter(|(name, _)| TOTALS.contains(&name.as_str())).collect()
}
