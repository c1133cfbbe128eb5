//! The sheet of figures that a benchmark prints: median, spread, demand, met or not.

#![allow(dead_code, reason = "each benchmark uses its part")]

/// What a median must reach.
#[derive(Clone, Copy)]
pub enum Demand {
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// Middle and ends of some figures.
pub struct Spread {
    pub median: f64,
    least: f64,
    most: f64,
}

#[derive(Default)]
pub struct Sheet {
    lines: Vec<String>,
}

impl Spread {
    pub fn of(figures: &[f64]) -> Self {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self { median, least: sorted[0], most: sorted[sorted.len() - 1] }
    }
}

impl Sheet {
    /// Adds a line: the median of `figures`, from the least to the greatest, and whether the median is as demanded.
    pub fn figure(&mut self, what: &str, unit: &str, figures: &[f64], demand: Demand) {
        let Spread { median, least, most } = Spread::of(figures);
        let (demand, verdict) = match demand {
            Demand::None => (String::new(), ""),
            Demand::AtMost(limit) => (format!("<= {limit}"), verdict(median <= limit)),
            Demand::AtLeast(limit) => (format!(">= {limit}"), verdict(median >= limit)),
        };
        let spread = if figures.len() > 1 { format!("{least:.3} to {most:.3}") } else { String::new() };
        self.lines.push(format!("{what:<58} {median:>10.3} {unit:<8} {spread:<22} {demand:<8} {verdict}"));
        eprintln!("measured: {what}");
    }

    pub fn print(&self) {
        println!("\n{:<58} {:>10} {:<8} {:<22} {:<8}", "what", "median", "unit", "from to", "demand");
        self.lines.iter().for_each(|line| println!("{}", line.trim_end()));
    }
}

const fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT MET" }
}

/// What the figures depend on: processors, kernel, and what else is running.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split(' ').take(3).collect();
    format!("{cpus} CPUs, {}, Linux {}, load {}", std::env::consts::ARCH, kernel.trim(), load.join(" "))
}
