//! What the name of a core file tells: systemd keeps cores as `core.NAME.UID.BOOT.PID.TIME`, compressed with one more
//! suffix (systemd-coredump(8)). NAME has no points of its own: they are escaped.

use std::path::Path;

/// What is in the name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct KeptName {
    /// The machine's boot id, as Linux writes it.
    pub boot_id: String,
    /// The process, as the host numbers it: the core itself may have the number inside of a container.
    pub pid: i32,
    /// When it was dumped, seconds since 1970.
    pub taken_at: f64,
}

impl KeptName {
    /// That of a path; `None` for files that are named otherwise.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix("core.")?;
        let fields: Vec<&str> = name.split('.').collect();
        let fields = match fields.as_slice() {
            [rest @ .., "zst" | "lz4" | "xz" | "gz"] => rest,
            rest => rest,
        };
        let [_, user, boot, pid, time] = fields else { return None };
        user.parse::<u32>().ok()?;
        let pid = pid.parse().ok().filter(|pid| *pid > 0)?;
        let microseconds: u64 = time.parse().ok()?;
        Some(Self { boot_id: dashed(boot)?, pid, taken_at: microseconds as f64 / 1e6 })
    }
}

/// 32 hexadecimal digits in groups of 8, 4, 4, 4 and 12.
fn dashed(digits: &str) -> Option<String> {
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let groups =
        [digits.get(..8)?, digits.get(8..12)?, digits.get(12..16)?, digits.get(16..20)?, digits.get(20..)?];
    Some(groups.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_other_files_tell_nothing() {
        let boot = "0123456789abcdef0123456789abcdef";
        let of = |name: &str| KeptName::of(Path::new(name));
        assert_eq!(
            of(&format!("/a/core.x.0.{boot}.7.1000000")).map(|kept| (kept.pid, kept.taken_at)),
            Some((7, 1.0))
        );
        for name in ["core", "core.4121", "core.zst", "core.x.0.boot.7.1", &format!("core.x.0.{boot}.0.1")] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
