//! Where a measurement comes from: what was typed, on which machine, on which day.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was typed.
pub fn command() -> String {
    let typed = std::env::args_os().skip(1);
    typed.fold("softxent".to_owned(), |line, word| {
        line + " " + &word.to_string_lossy()
    })
}

/// The system and its cores.
pub fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    format!("{system} {processor}, {cores} cores")
}

/// The commit of the source folder that this program was made in, `-dirty` where it has changed since;
/// `unknown` where that is no checkout or there is no git.
pub fn commit() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let described = || {
        // A folder above it may be a checkout of something else.
        folder.join(".git").try_exists().ok().filter(|&is| is)?;
        let git = Command::new("git")
            .arg("-C")
            .arg(folder)
            .args([
                "describe",
                "--always",
                "--dirty",
                "--exclude=*",
                "--abbrev=12",
            ])
            .stdin(Stdio::null())
            .output()
            .ok()?;
        let commit = String::from_utf8(git.stdout).ok()?.trim().to_owned();
        (git.status.success() && !commit.is_empty()).then_some(commit)
    };
    described().unwrap_or_else(|| "unknown".to_owned())
}

/// The day in UTC.
pub fn today() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    day(now.as_secs() / 86_400)
}

/// The day that is `days` after 1970-01-01, as year, month, day.
fn day(days: u64) -> String {
    // Years that begin in March end with the day that some of them lack: H. Hinnant, "chrono-compatible
    // low-level date algorithms", civil_from_days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (20_782, "2026-11-25"),
            (20_818, "2026-12-31"),
            (20_819, "2027-01-01"),
        ] {
            assert_eq!(day(days), expected);
        }
    }
}
