//! `cargo bench` is `softxent bench`: `cargo bench --bench throughput -- --help` says what can be typed.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo says `--bench` to every bench.
    let typed = std::env::args_os().skip(1).filter(|word| word != "--bench");
    let mut command = Command::new(env!("CARGO_BIN_EXE_softxent"));
    match command.arg("bench").args(typed).status() {
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("softxent: {error}");
            ExitCode::FAILURE
        }
    }
}
