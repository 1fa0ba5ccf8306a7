//! `hookledger documentation`: manual pages and completions, made of the command line's own definition, so that they
//! cannot say anything else. For packagers; people have `--help`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::failure::{EXIT_FAILED, Failure};

const NAME: &str = "hookledger";

#[derive(Debug, Args)]
pub struct DocumentationArguments {
    /// The folder to write into: `man` and `completions` are made in it
    folder: PathBuf,
}

pub fn run(arguments: &DocumentationArguments) -> Result<(), Failure> {
    write(&arguments.folder).map_err(|error| Failure {
        exit_code: EXIT_FAILED,
        message: format!("the documentation cannot be written to {}: {error}", arguments.folder.display()),
    })
}

fn write(folder: &Path) -> io::Result<()> {
    let (pages, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(shown(), &pages)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut shown(), NAME, &completions)?;
    }
    Ok(())
}

/// The command line without what `--help` does not show either: completions would offer it.
fn shown() -> Command {
    let whole = Cli::command();
    let mut shown = Command::new(NAME).version(env!("CARGO_PKG_VERSION"));
    if let Some(about) = whole.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(after) = whole.get_after_help() {
        shown = shown.after_help(after.clone());
    }
    let commands = whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    shown.args(whole.get_arguments().cloned()).subcommands(commands)
}
