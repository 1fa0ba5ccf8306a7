//! A person at a terminal: runs a command of the binary on a pseudo-terminal, which `script` of util-linux makes.

use std::process::{Command, Output};
use std::time::Duration;

use super::daemon::Daemon;
use super::process::run;

const TIMEOUT: Duration = Duration::from_secs(60);

/// What was seen on the terminal, and how the command ended.
#[derive(Debug)]
pub struct Seen {
    pub code: Option<i32>,
    /// Both outputs, with whatever moves the cursor, and what was typed.
    pub text: String,
}

impl Daemon {
    /// Runs a command of the binary at a terminal at which this is typed; after it, nothing more is.
    #[track_caller]
    pub fn at_a_terminal(&self, arguments: &[&str], typed: &str) -> Seen {
        let bare = self.any_command(arguments);
        let words: Vec<String> = std::iter::once(bare.get_program())
            .chain(bare.get_args())
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
        command.env_clear().envs(bare.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TERM", "xterm").env("SHELL", "/bin/sh");
        if let Some(folder) = bare.get_current_dir() {
            command.current_dir(folder);
        }
        let Output { status, stdout, .. } = run(&mut command, typed.as_bytes(), TIMEOUT);
        Seen { code: status.code(), text: String::from_utf8_lossy(&stdout).into_owned() }
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
