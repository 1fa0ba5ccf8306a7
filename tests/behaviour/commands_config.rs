//! `check-config` shows what is in effect and why, tells every mistake at once, and writes nothing; `secret` makes one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use super::{failing, fine, json_of, ran};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::is_sqlite;

/// Sections that this version knows.
const SECTIONS: &[&str] = &[
    "server",
    "webhook",
    "rate_limit",
    "retention",
    "balance",
    "newapi",
    "polling",
    "database",
    "ledger",
    "retry",
    "supervisor",
    "metrics",
    "admin",
    "log",
];

const FILE: &str = r#"
[server]
webhook_path = "/hooks"
trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]

[ledger]
rounding = "nearest"
usd_to_credits = 7.25

[webhook]
max_age = "48h"
"#;

/// A daemon's folder with a file of settings in it.
fn with_file(options: DaemonOptions, text: &str) -> (Daemon, String) {
    let daemon = Daemon::prepare(options);
    let file = daemon.folder().join("settings.toml");
    fs::write(&file, text).unwrap();
    (daemon, file.display().to_string())
}

#[test]
fn every_setting_is_shown_with_its_origin() {
    let (daemon, file) = with_file(DaemonOptions::new().set("HOOKLEDGER__LEDGER__ROUNDING", "carry"), FILE);
    let printed = ran(&daemon, &["check-config", "--config", &file, "--json"], &[]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let report = json_of(&printed);
    let entries = report["entries"].as_array().expect("entries");
    let of = |key: &str| {
        let mut found = entries.iter().filter(|entry| entry["key"] == key);
        let entry = found.next().unwrap_or_else(|| panic!("{key} is not shown"));
        assert!(found.next().is_none(), "{key} is shown twice");
        (entry["value"].clone(), entry["origin"].as_str().expect("an origin").to_owned())
    };
    let variable = |name: &str| format!("environment variable {name}");
    let listen = daemon.address().to_string();
    assert_eq!(of("server.listen"), (json!(listen), variable("HOOKLEDGER__SERVER__LISTEN")));
    assert_eq!(of("server.webhook_path"), (json!("/hooks"), file.clone()));
    assert_eq!(of("server.trusted_proxies"), (json!(["127.0.0.1", "10.0.0.0/8"]), file.clone()));
    assert_eq!(of("webhook.max_age"), (json!("48h"), file.clone()));
    assert_eq!(of("ledger.rounding"), (json!("carry"), variable("HOOKLEDGER__LEDGER__ROUNDING")), "later wins");
    assert_eq!(of("ledger.quota_per_unit"), (json!(500_000), "default".to_owned()));
    assert_eq!(of("webhook.enabled"), (json!(true), "default".to_owned()));
    assert_eq!(of("ledger.usd_to_credits").1, file);
    let (masked, origin) = of("webhook.secrets");
    assert_eq!(origin, variable("WEBHOOK_SECRET"));
    assert_eq!(masked, json!(["********"]), "a secret is masked");
    assert!(!printed.stdout.contains(SECRET) && !printed.stderr.contains(SECRET));
    let sections: BTreeSet<_> = entries.iter().filter_map(|entry| entry["key"].as_str()?.split('.').next()).collect();
    assert_eq!(sections, SECTIONS.iter().copied().collect());
}

#[test]
fn the_table_for_people_says_the_same() {
    let (daemon, file) = with_file(DaemonOptions::new(), FILE);
    let arguments = ["check-config", "--config", &file];
    let report = json_of(&ran(&daemon, &[&arguments[..], &["--json"]].concat(), &[]));
    let table = fine(&daemon, &arguments);
    let lines: BTreeMap<&str, &str> =
        table.lines().filter_map(|line| Some((line.split_whitespace().next()?, line))).collect();
    for entry in report["entries"].as_array().unwrap() {
        let key = entry["key"].as_str().unwrap();
        let line = lines.get(key).unwrap_or_else(|| panic!("{key} is not in the table"));
        assert!(line.ends_with(entry["origin"].as_str().unwrap()), "{line:?} ends with where it came from");
        let value = match &entry["value"] {
            Value::String(text) => text.clone(),
            Value::Null => "none".to_owned(),
            Value::Array(_) => continue,
            other => other.to_string(),
        };
        assert!(line.contains(&value), "{line:?} shows {value}");
    }
    assert!(lines["webhook.secrets"].contains("********") && !table.contains(SECRET));
}

#[test]
fn the_guides_names_rank_below_the_other_variables() {
    let mut daemon = Daemon::prepare(DaemonOptions::new().set("PORT", "4321").set("HOST", "127.0.0.9"));
    daemon.set_environment("WEBHOOK_ENABLED", "false");
    let of = |daemon: &Daemon, key: &str| {
        let report = daemon.command_json(&["check-config"]);
        let entries = report["entries"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["key"] == key).unwrap();
        (entry["value"].clone(), entry["origin"].as_str().unwrap().to_owned())
    };
    let listen = daemon.address().to_string();
    let variable = "environment variable HOOKLEDGER__SERVER__LISTEN".to_owned();
    assert_eq!(of(&daemon, "server.listen"), (json!(listen), variable));
    assert_eq!(of(&daemon, "webhook.enabled"), (json!(false), "environment variable WEBHOOK_ENABLED".to_owned()));
    let mut options = DaemonOptions::new().set("PORT", "4321").set("HOST", "127.0.0.9");
    options.without.push("HOOKLEDGER__SERVER__LISTEN".to_owned());
    let daemon = Daemon::prepare(options);
    let expected = (json!("127.0.0.9:4321"), "environment variables HOST and PORT".to_owned());
    assert_eq!(of(&daemon, "server.listen"), expected);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = r#"
nonsense = 1

[server]
lisen = "127.0.0.1:1"
body_timeout = "10 parsecs"

[ledger]
rounding = "up"
usd_to_credits = 0

[no_such_section]
a = 1
"#;
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__DATABASE__MAX_CONNECTIONS", "many")
        .set("HOOKLEDGER__LOG__LEVEL", "loud")
        .set("HOOKLEDGER__POLING__INTERVAL", "5m");
    let (daemon, file) = with_file(options, text);
    let expected = [
        ("nonsense", file.as_str()),
        ("server.lisen", file.as_str()),
        ("server.body_timeout", file.as_str()),
        ("ledger.rounding", file.as_str()),
        ("ledger.usd_to_credits", file.as_str()),
        ("no_such_section", file.as_str()),
        ("database.max_connections", "HOOKLEDGER__DATABASE__MAX_CONNECTIONS"),
        ("log.level", "HOOKLEDGER__LOG__LEVEL"),
        ("poling.interval", "HOOKLEDGER__POLING__INTERVAL"),
    ];
    for command in [&["check-config"] as &[&str], &["serve"], &["migrate"], &["user", "list"], &["send", "--ping"]] {
        let complaint = failing(&daemon, &[command, &["--config", &file]].concat(), 2);
        for (key, place) in expected {
            let is_told = complaint.lines().any(|line| line.contains(key) && line.contains(place));
            assert!(is_told, "{command:?} does not tell {key} of {place}: {complaint}");
        }
        assert!(complaint.contains("did you mean server.listen?"), "{complaint}");
    }
    let left: Vec<_> = fs::read_dir(daemon.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["settings.toml"], "nothing was made");
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let complaint = failing(&daemon, &["check-config", "--config", "/nonexistent/hookledger.toml"], 2);
    assert!(complaint.contains("/nonexistent/hookledger.toml"), "{complaint}");
}

#[test]
fn risky_settings_warn_and_pass() {
    let daemon = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__MAX_AGE", "30d"));
    let printed = ran(&daemon, &["check-config", "--json"], &[]);
    assert_eq!(printed.code, 0);
    assert!(printed.stderr.contains("webhook.max_age"), "{printed:?}");
    let warnings = json_of(&printed)["warnings"].to_string();
    assert!(warnings.contains("webhook.max_age"), "{warnings}");
}

#[test]
fn checking_writes_nothing() {
    // Beside a server a secret must be set: none would be made.
    let daemon = Daemon::prepare(if is_sqlite() { super::without_secret() } else { DaemonOptions::new() });
    fine(&daemon, &["check-config"]);
    fine(&daemon, &["secret"]);
    assert_eq!(fs::read_dir(daemon.folder()).unwrap().count(), 0, "no database, no secret");
}

#[test]
fn secrets_are_64_hex_digits_and_never_the_same() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let plain: Vec<String> = (0..3).map(|_| fine(&daemon, &["secret"])).collect();
    let json = daemon.command_json(&["secret"])["secret"].as_str().expect("a secret").to_owned();
    let all: BTreeSet<&String> = plain.iter().chain([&json]).collect();
    assert_eq!(all.len(), 4, "{all:?}");
    for secret in all {
        let is_hex = secret.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        assert!(secret.len() == 64 && is_hex, "{secret}");
    }
    let made = fine(&daemon, &["secret"]);
    let accepted = ran(&daemon, &["check-config"], &[("WEBHOOK_SECRET", &made)]);
    assert_eq!(accepted.code, 0, "the program takes what it makes: {accepted:?}");
}
