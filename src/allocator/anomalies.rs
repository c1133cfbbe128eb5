//! Anomalies: what contradicts an allocator's invariants, each kind once.

/// Most kinds that are kept apart.
const KINDS_MAX: usize = 64;

/// Something that contradicts the allocator's invariants, or could not be read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Anomaly {
    /// The structure that it is about.
    pub address: u64,
    /// What was found there.
    pub what: String,
    /// How many structures showed the same; the address is that of the first.
    pub count: u64,
}

/// Collects anomalies while walking.
#[derive(Debug, Default)]
pub struct Anomalies {
    kinds: Vec<Anomaly>,
}

impl Anomalies {
    /// Notes one more structure that shows `what`.
    pub fn add(&mut self, address: u64, what: &str) {
        if let Some(known) = self.kinds.iter_mut().find(|known| known.what == what) {
            known.count += 1;
        } else if self.kinds.len() < KINDS_MAX {
            self.kinds.push(Anomaly { address, what: what.to_owned(), count: 1 });
        }
    }

    /// All kinds in the order in which they were met.
    pub fn into_vec(self) -> Vec<Anomaly> {
        self.kinds
    }
}
