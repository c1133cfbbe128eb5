//! What was typed.

/// What leaks; all in the size class of 112 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Polymorphic,
    Plain,
    Bytes,
    Strings,
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub threads: u32,
    /// Allocations a second of all threads; 0 for as many as possible.
    pub rate: f64,
    /// Parts of all allocations.
    pub leak: f64,
    pub second_leak: f64,
    /// Seconds that sessions live.
    pub minute: f64,
    /// Entries until the cache is full.
    pub cache: usize,
    pub kind: Kind,
}

impl Options {
    pub fn typed() -> Result<Self, String> {
        let mut options = Self {
            threads: 2,
            rate: 200_000.0,
            leak: 0.001,
            second_leak: 0.0,
            minute: 60.0,
            cache: 0,
            kind: Kind::Plain,
        };
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name} lacks a value"))?;
            match name.as_str() {
                "--threads" => options.threads = number(&value)?,
                "--rate" => options.rate = number(&value)?,
                "--leak" => options.leak = number(&value)?,
                "--second-leak" => options.second_leak = number(&value)?,
                "--minute" => options.minute = number(&value)?,
                "--cache" => options.cache = number(&value)?,
                "--kind" => options.kind = kind(&value)?,
                _ => return Err(format!("no such option: {name}")),
            }
        }
        if options.threads == 0 { Err("it needs a thread".to_owned()) } else { Ok(options) }
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("no number: {word}"))
}

fn kind(word: &str) -> Result<Kind, String> {
    Ok(match word {
        "polymorphic" => Kind::Polymorphic,
        "struct" => Kind::Plain,
        "bytes" => Kind::Bytes,
        "strings" => Kind::Strings,
        _ => return Err(format!("no such kind: {word}")),
    })
}
