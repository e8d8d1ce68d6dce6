//! How far a long command has come, on standard error.

use std::io::{self, IsTerminal, Write};

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

    /// What is being done, and which share of it is done already.
    pub fn show(&mut self, stage: &str, done: usize, of: usize) {
        if self.terminal {
            let line = format!("{stage}, {} %", 100 * done / of.max(1));
            if line != self.shown {
                let _ = write!(io::stderr(), "\r{line}\x1b[K");
                self.shown = line;
            }
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
