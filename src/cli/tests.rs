//! What the command line accepts and refuses; what the commands do is tested with a running daemon.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use super::{Cli, Command};

fn refusal(arguments: &str) -> ErrorKind {
    let words = std::iter::once("hookledger").chain(arguments.split_whitespace());
    Cli::try_parse_from(words).map(|cli| panic!("{arguments} gave {cli:?}")).unwrap_or_else(|error| error.kind())
}

fn accepted(arguments: &str) -> Cli {
    let words = std::iter::once("hookledger").chain(arguments.split_whitespace());
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{arguments}: {error}"))
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn without_a_command_the_daemon_is_meant() {
    assert!(accepted("--config a.toml").command.is_none());
    assert!(matches!(accepted("serve --print-setup").command, Some(Command::Serve(_))));
}

#[test]
fn global_arguments_stand_anywhere() {
    for arguments in ["--json --config a.toml user list", "user --json list --config a.toml"] {
        let global = accepted(arguments).global;
        assert!(global.json && global.config.is_some(), "{arguments}");
    }
}

#[test]
fn send_needs_to_know_what() {
    for arguments in [
        "send --ping",
        "send --ping --count 10 --concurrency 4",
        "send --remote-key-id 7",
        "send --remote-key-id 7 --cost 0.01 --event-id a --repeat 3",
        "send --remote-key-id 7 --credit-cost 3 --model m --prompt-tokens 1 --completion-tokens 2 --retry",
    ] {
        accepted(arguments);
    }
    for (arguments, kind) in [
        ("send", ErrorKind::MissingRequiredArgument),
        ("send --quota 5", ErrorKind::MissingRequiredArgument),
        ("send --ping --remote-key-id 7", ErrorKind::ArgumentConflict),
        ("send --ping --quota 7", ErrorKind::ArgumentConflict),
        ("send --remote-key-id 7 --quota 5 --cost 1", ErrorKind::ArgumentConflict),
        ("send --remote-key-id 7 --cost 1,5", ErrorKind::ValueValidation),
        ("send --remote-key-id 7 --concurrency 1025", ErrorKind::ValueValidation),
        ("send --remote-key-id 7 --count 0", ErrorKind::ValueValidation),
        ("send --ping --url 127.0.0.1:4000", ErrorKind::ValueValidation),
    ] {
        assert_eq!(refusal(arguments), kind, "{arguments}");
    }
}

#[test]
fn a_user_is_named_once() {
    accepted("credits show a@b");
    accepted("credits show --user a@b");
    accepted("credits history a@b --limit 5");
    assert_eq!(refusal("credits show"), ErrorKind::MissingRequiredArgument);
    assert_eq!(refusal("credits show a@b --user a@b"), ErrorKind::ArgumentConflict);
}

#[test]
fn amounts_and_states_are_checked_at_the_door() {
    assert_eq!(refusal("credits grant --user a@b --amount 0"), ErrorKind::ValueValidation);
    assert_eq!(refusal("key add --user a@b --remote-id 0"), ErrorKind::ValueValidation);
    assert_eq!(refusal("user add --email a@b --credits=-1"), ErrorKind::ValueValidation);
    assert_eq!(refusal("events list --status lost"), ErrorKind::InvalidValue);
    accepted("events list --status dead --limit 5");
}
