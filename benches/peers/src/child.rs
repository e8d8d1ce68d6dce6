//! The other libraries, each in a process of its own: what one allocates, or breaks, is not the next
//! one's matter.
//!
//! A child greets with `hello`, its version, and the adapter and driver it runs on. It is then told
//!
//! ```text
//! case ROWS CLASSES FOLDER    reads FOLDER/logits, f32 [rows, classes], and FOLDER/labels, i32 [rows],
//!                             runs once, writes FOLDER/grad, and answers `loss NUMBER`
//! run                         forward and backward once more; answers `seconds NUMBER`
//! end                         lets go of the case; answers `ended`
//! ```
//!
//! Words are separated by tabs. Any answer may be `failed` and a reason instead, after which the child is
//! replaced.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub struct Peer {
    pub name: &'static str,
    pub version: String,
    /// Name and driver, where the library says so.
    pub adapter: Option<[String; 2]>,
    start: Box<dyn Fn() -> Command>,
    process: Option<Process>,
}

struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub fn new(
        name: &'static str,
        start: impl Fn() -> Command + 'static,
    ) -> Result<Peer, Box<dyn std::error::Error>> {
        let mut peer = Peer {
            name,
            version: String::new(),
            adapter: None,
            start: Box::new(start),
            process: None,
        };
        let hello = peer.open().map_err(|error| format!("{name}: {error}"))?;
        let mut words = hello.split('\t').map(str::to_owned);
        peer.version = words.next().unwrap_or_default();
        peer.adapter = words.next().zip(words.next()).map(<[String; 2]>::from);
        Ok(peer)
    }

    /// Loads a case and runs it once. Returns the loss.
    pub fn case(&mut self, rows: usize, classes: usize, folder: &Path) -> Result<f64, String> {
        if self.process.is_none() {
            self.open()?;
        }
        let folder = folder.display();
        self.number(&format!("case\t{rows}\t{classes}\t{folder}"), "loss")
    }

    /// Seconds of one run.
    pub fn run(&mut self) -> Result<f64, String> {
        self.number("run", "seconds")
    }

    pub fn end(&mut self) {
        // A child that cannot is gone then.
        let _ = self.ask("end", "ended");
    }

    fn number(&mut self, question: &str, word: &str) -> Result<f64, String> {
        let answer = self.ask(question, word)?;
        answer.parse().map_err(|_| format!("{answer}: no number"))
    }

    fn open(&mut self) -> Result<String, String> {
        let mut command = (self.start)();
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let program = command.get_program().display();
        let mut child = spawned.map_err(|error| format!("{program}: {error}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (input, output) = input.zip(output).ok_or("no pipes")?;
        let output = BufReader::new(output);
        self.process = Some(Process {
            child,
            input,
            output,
        });
        self.answer("hello")
    }

    fn ask(&mut self, question: &str, word: &str) -> Result<String, String> {
        let process = self.process.as_mut().ok_or("it has ended")?;
        let sent = writeln!(process.input, "{question}").and_then(|()| process.input.flush());
        // Why it ended may still be there to read.
        let _ = sent;
        self.answer(word)
    }

    /// What follows the word. Other lines are what a library prints on its own.
    fn answer(&mut self, word: &str) -> Result<String, String> {
        let reason = loop {
            let process = self.process.as_mut().ok_or("it has ended")?;
            let mut line = String::new();
            match process.output.read_line(&mut line) {
                Ok(0) => break "it ended without a word".to_owned(),
                Err(error) => break error.to_string(),
                Ok(_) => {}
            }
            let line = line.trim_end();
            let (first, rest) = line.split_once('\t').unwrap_or((line, ""));
            if first == word {
                return Ok(rest.to_owned());
            }
            if first == "failed" {
                break rest.to_owned();
            }
            eprintln!("{}: {line}", self.name);
        };
        self.close();
        Err(reason)
    }

    fn close(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended already.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.close();
    }
}
