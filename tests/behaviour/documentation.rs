//! Manual pages and completions are made of the command line's own definition: what `--help` shows is in them, and
//! nothing else.

use std::fs;

use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::process::exit_code;

/// The commands that `--help` lists.
fn commands(daemon: &Daemon) -> Vec<String> {
    let help = String::from_utf8(daemon.any_command(&["--help"]).output().unwrap().stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn pages_and_completions_have_what_help_has() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let folder = daemon.folder().join("documentation");
    let made = daemon.any_command(&["documentation", &folder.display().to_string()]).output().unwrap();
    assert_eq!(exit_code(made.status), 0, "{made:?}");
    let commands = commands(&daemon);
    assert!(commands.len() > 15, "{commands:?}");
    for command in &commands {
        let page = folder.join(format!("man/hookledger-{command}.1"));
        assert!(fs::read_to_string(&page).is_ok_and(|text| text.contains(".SH SYNOPSIS")), "{page:?}");
    }
    assert!(fs::read_to_string(folder.join("man/hookledger-credits-grant.1")).unwrap().contains("idempotency"));
    for name in
        ["man/hookledger.1", "completions/hookledger.bash", "completions/_hookledger", "completions/hookledger.fish"]
    {
        // Manual pages write a hyphen so that it is not taken for a minus.
        let text = fs::read_to_string(folder.join(name)).unwrap().replace("\\-", "-");
        assert!(commands.iter().all(|command| text.contains(command.as_str())), "{name}");
        assert!(!text.contains("packagers"), "{name} has what --help hides");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let made = daemon.any_command(&["documentation", "/proc/nowhere"]).output().unwrap();
    let complaint = String::from_utf8_lossy(&made.stderr).into_owned();
    assert!(exit_code(made.status) == 1 && complaint.contains("/proc/nowhere"), "{made:?}");
}
