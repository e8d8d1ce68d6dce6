//! How far a long command has come, on standard error.

use std::io::{self, IsTerminal, Write};

use super::report::duration;

/// One line that is written over on a terminal; elsewhere a line per stage, or nothing.
pub struct Progress {
    terminal: bool,
    quiet: bool,
    stage: String,
    shown: String,
}

impl Progress {
    /// Where standard error is no terminal, `quiet` says nothing.
    pub fn new(quiet: bool) -> Self {
        Progress {
            terminal: io::stderr().is_terminal(),
            quiet,
            stage: String::new(),
            shown: String::new(),
        }
    }

    /// One that says nothing elsewhere, and with `quiet` nothing at all.
    pub fn on_terminals(quiet: bool) -> Self {
        let mut progress = Progress::new(true);
        progress.terminal &= !quiet;
        progress
    }

    /// How many rows are done after some seconds, and when the others will be: after the first second.
    pub fn rate(&mut self, done: usize, of: usize, seconds: f64) {
        if self.terminal && seconds >= 1.0 && done < of {
            let rate = done as f64 / seconds;
            let line = format!(
                "{done} of {of} rows, {} %, {rate:.0} rows/s, {} left",
                (100.0 * done as f64 / of as f64) as u32,
                duration((of - done) as f64 / rate)
            );
            self.write(line);
        }
    }

    fn write(&mut self, line: String) {
        if line != self.shown {
            let _ = write!(io::stderr(), "\r{line}\x1b[K");
            self.shown = line;
        }
    }

    /// What is being done, and which share of it is done already.
    pub fn show(&mut self, stage: &str, done: usize, of: usize) {
        if self.terminal {
            self.write(format!("{stage}, {} %", 100 * done / of.max(1)));
        } else if !self.quiet && stage != self.stage {
            let _ = writeln!(io::stderr(), "{stage}");
            stage.clone_into(&mut self.stage);
        }
    }

    /// Leaves a clean line, for something else to be printed there.
    pub fn clear(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.shown.clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
