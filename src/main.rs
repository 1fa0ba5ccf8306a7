//! The program: arguments go to the library, its exit code comes back. Nothing is decided or set up here.

use std::process::ExitCode;

fn main() -> ExitCode {
    hookledger::cli::run()
}
