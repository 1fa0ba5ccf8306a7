//! Commands whose database is on a server: what they show of its settings, and what a start makes before it is reached.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{json_of, ran};
use crate::kit::daemon::{Daemon, DaemonOptions};

const PASSWORD: &str = "hunter2-of-the-books";

/// Settings of a server that nobody runs. The guide's variable brings what LetAiCode's driver is told.
fn nowhere() -> Vec<(&'static str, String)> {
    let url = format!("mysql://ledger:{PASSWORD}@127.0.0.1:1/letaicode?connection_limit=5");
    vec![("DATABASE_URL", url), ("HOOKLEDGER__DATABASE__START_TIMEOUT", "1ms".to_owned())]
}

fn daemon() -> Daemon {
    Daemon::prepare(DaemonOptions::new().without("HOOKLEDGER__DATABASE__URL"))
}

#[test]
fn its_password_is_masked_wherever_the_url_is_shown() {
    let daemon = daemon();
    let variables = nowhere();
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let checked = ran(&daemon, &["check-config", "--json"], &variables);
    assert_eq!(checked.code, 0, "{checked:?}");
    let report = json_of(&checked);
    let url = report["entries"].as_array().unwrap().iter().find(|entry| entry["key"] == "database.url").unwrap();
    assert_eq!(url["value"], "mysql://ledger:***@127.0.0.1:1/letaicode");
    assert_eq!(url["origin"], "environment variable DATABASE_URL");
    let warning = "DATABASE_URL has parameters that have no effect here: connection_limit";
    assert!(report["warnings"][0].as_str().unwrap().starts_with(warning), "{report}");
    for arguments in [&["check-config"][..], &["migrate"], &["user", "list"], &["serve"]] {
        let shown = ran(&daemon, arguments, &variables);
        assert_eq!(shown.code == 0, arguments == ["check-config"], "{arguments:?}: {shown:?}");
        assert!(!format!("{shown:?}").contains(PASSWORD), "{arguments:?}: {shown:?}");
    }
}

#[test]
fn a_start_makes_the_state_folder_for_its_user_alone_where_the_socket_lies_in_it() {
    for (socket, is_made) in [(None, true), (Some("elsewhere.sock"), false)] {
        let daemon = daemon();
        let variables = nowhere();
        let mut variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        variables.extend(socket.map(|path| ("HOOKLEDGER__ADMIN__SOCKET", path)));
        let folder = daemon.folder().join("hookledger-data");
        ran(&daemon, &["check-config"], &variables);
        assert!(!folder.exists(), "a look makes nothing");
        ran(&daemon, &["serve"], &variables);
        assert_eq!(folder.exists(), is_made);
        if is_made {
            assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "no secret is generated");
        }
    }
}
