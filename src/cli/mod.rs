//! The command line: arguments, files and tables around the library.

mod args;
mod array;
mod bench;
mod check;
mod demo;
mod device;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(any(test, fuzzing))]
mod heap;
mod info;
mod layout;
mod npy;
mod origin;
mod output;
mod progress;
mod random;
mod report;
mod run;
mod safetensors;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Cli, Command};

/// Why a command ends without its result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Arguments that do not go together; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// What was found and what to do; exit code 1.
    #[error("{0}")]
    Message(String),
    /// What was printed says that a promise is not kept; exit code 1.
    #[error("not all is as promised")]
    Verdict,
    #[error(transparent)]
    Array(#[from] array::ArrayError),
    #[error(transparent)]
    Library(#[from] softxent::Error),
    /// Standard output takes no more.
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Runs the command that was typed.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let done = match &command {
        None => info::bare(),
        Some(Command::Demo(args)) => demo::demo(args),
        Some(Command::Run(args)) => run::run(args),
        Some(Command::Info(args)) => info::info(args),
        Some(Command::Check(args)) => check::check(args),
        Some(Command::Bench(args)) => bench::bench(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Verdict) => ExitCode::FAILURE,
        // Whoever read the output has had enough of it.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(Failure::Usage(message)) => {
            let name = command.as_ref().map_or("", Command::name);
            let mut command = Cli::command();
            command.build();
            match command.find_subcommand_mut(name) {
                Some(typed) => typed.error(ErrorKind::ArgumentConflict, message),
                None => clap::Error::raw(ErrorKind::ArgumentConflict, message),
            }
            .exit()
        }
        Err(failure) => {
            let way_out = match command {
                Some(Command::Check(_) | Command::Bench(_)) => "",
                _ => way_out(&failure),
            };
            say(&format!("error: {failure}{way_out}"));
            ExitCode::FAILURE
        }
    }
}

/// What still works where a device does not.
fn way_out(failure: &Failure) -> &'static str {
    use softxent::Error;
    match failure {
        Failure::Library(
            Error::NoAdapter { .. }
            | Error::DeviceRefused { .. }
            | Error::RowTooWide { .. }
            | Error::DeviceTooSmall { .. }
            | Error::DeviceLost { .. }
            | Error::Driver { .. }
            | Error::Timeout { .. }
            | Error::SelfTest { .. }
            | Error::OutOfMemory {
                place: "device", ..
            },
        ) => "\nhint: --device cpu computes without a GPU",
        _ => "",
    }
}

/// One message on standard error. Nobody can be told where that is closed.
fn say(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// Writes all of the output at once.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::Failure;
    use super::array::ArrayError;

    /// The variants of an error, and the test that raises each. One more does not compile until it is among
    /// them.
    macro_rules! raised {
        ($list:ident, $error:ident: $($variant:ident by $file:literal $test:literal;)*) => {
            const $list: &[(&str, &str, &str)] =
                &[$((stringify!($variant), include_str!($file), $test)),*];

            const _: fn(&$error) = |error| match error {
                $($error::$variant { .. } => {})*
            };
        };
    }

    raised! { FAILURES, Failure:
        Usage by "../../tests/it/cli.rs" "usage_errors";
        Message by "../../tests/it/cli.rs" "refused_inputs_say_what_to_do";
        Verdict by "../../tests/it/cli.rs" "reduced_accuracy_is_said_and_results_are_given";
        Array by "../../tests/it/cli.rs" "refused_inputs_say_what_to_do";
        Library by "../../tests/it/cli.rs" "without_an_adapter";
        Output by "../../tests/it/cli.rs" "a_full_disk_behind_standard_output_is_a_failure";
    }

    raised! { OF_ARRAYS, ArrayError:
        Io by "../../tests/it/cli.rs" "refused_inputs_say_what_to_do";
        Refused by "../../tests/it/cli.rs" "refused_inputs_say_what_to_do";
        Memory by "array.rs" "lack_of_memory_is_an_error";
    }

    #[test]
    fn each_failure_is_raised_by_a_test() {
        for (variant, tests, test) in FAILURES.iter().chain(OF_ARRAYS) {
            let there = tests.contains(&format!("fn {test}()"));
            assert!(there, "{variant}: there is no test {test}");
        }
    }
}
