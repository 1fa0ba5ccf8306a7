//! The settings of a database on a server: password, own schema, TLS, secrets, and what they mean on the embedded one.

use super::tests::{Folder, SECRET, entry_of, load_here};
use super::tests_mysql_url::{load_url, password_of};
use super::tests_problems::warnings_of;
use super::{ConfigError, DatabaseTls, Loaded, ensure_secret};
use crate::domain::retention::RetentionPolicy;

const HIDDEN: &str = "hunter2";

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

/// Loads a `[database]` section whose URL is a server's on this machine, without a password.
fn load_server(lines: &str) -> Result<Loaded, ConfigError> {
    let text = format!("[database]\nurl = \"mysql://root@localhost/letaicode\"\n{lines}");
    let folder = Folder::new();
    load_here(Some(&folder.file("hookledger.toml", &text, 0o600)), &[("WEBHOOK_SECRET", SECRET)])
}

fn refusal_of(lines: &str) -> String {
    let problems = load_server(lines).map(|_| lines.to_owned()).unwrap_err().to_string();
    assert!(!problems.contains(HIDDEN), "{problems}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
    problems
}

#[test]
fn a_password_may_lie_apart_from_the_url() {
    let folder = Folder::new();
    let loaded = load_server("password = \" hunter2#\"").unwrap();
    assert_eq!(password_of(&loaded), Some(" hunter2#"), "as it is");
    assert_eq!(entry_of(&loaded, "database.password").value.to_string(), "********");
    assert_eq!(loaded.settings.database.url.to_string(), "mysql://root:***@localhost:3306/letaicode");
    let printed = format!("{loaded:?} {}", serde_json::to_string(&loaded.report).unwrap());
    assert!(!printed.contains(HIDDEN), "{printed}");

    let own = folder.file("password", "hunter2 \r\n", 0o600);
    let loaded = load_server(&format!("password_file = \"{}\"", own.display())).unwrap();
    assert_eq!((password_of(&loaded), loaded.warnings.len()), (Some("hunter2 "), 0), "without the end of the line");
    let open = folder.file("password", HIDDEN, 0o640);
    let loaded = load_server(&format!("password_file = \"{}\"", open.display())).unwrap();
    assert!(loaded.warnings.len() == 1 && loaded.warnings[0].contains("chmod 600"), "{:?}", loaded.warnings);

    let digits = [("DATABASE_URL", "mysql://u@localhost/b"), ("HOOKLEDGER__DATABASE__PASSWORD", "0042")];
    let loaded = load_here(None, &[&digits[..], &[("WEBHOOK_SECRET", SECRET)]].concat()).unwrap();
    assert_eq!(password_of(&loaded), Some("0042"), "digits stay text");
}

#[test]
fn a_password_has_one_place() {
    let folder = Folder::new();
    let own = folder.file("password", HIDDEN, 0o600).display().to_string();
    let both = refusal_of(&format!("password = \"hunter2\"\npassword_file = \"{own}\""));
    assert!(both.contains("database.password_file") && both.contains("beside database.password"), "{both}");
    for (variable, value) in [("HOOKLEDGER__DATABASE__PASSWORD", HIDDEN), ("HOOKLEDGER__DATABASE__PASSWORD_FILE", &own)]
    {
        let variables =
            [("WEBHOOK_SECRET", SECRET), ("DATABASE_URL", "mysql://u:hunter2@localhost/b"), (variable, value)];
        let problems = load_here(None, &variables).unwrap_err().to_string();
        assert!(problems.contains(variable) && problems.contains("the password in database.url"), "{problems}");
        assert!(!problems.contains(HIDDEN), "{problems}");
    }
}

#[test]
fn what_cannot_be_a_password_is_refused() {
    let folder = Folder::new();
    let two = folder.file("two", "hunter2\nhunter2\n", 0o600).display().to_string();
    let none = folder.file("none", "\n", 0o600).display().to_string();
    for (lines, message) in [
        ("password = \"\"", "leave the key out"),
        ("password = 12345", "write it in quotes"),
        ("password = [\"hunter2\"]", "write it in quotes"),
        ("password = \"hunter2\\n\"", "one line"),
        (&format!("password_file = \"{two}\""), "one line"),
        (&format!("password_file = \"{none}\""), "must not be empty"),
        ("password_file = \"/nonexistent/password\"", "/nonexistent/password: must be readable"),
    ] {
        let problems = refusal_of(lines);
        assert!(problems.contains(message) && problems.starts_with("database.password"), "{lines}: {problems}");
    }
}

#[test]
fn a_file_whose_url_holds_a_password_is_a_file_with_secrets() {
    let folder = Folder::new();
    for (url, warnings) in [("mysql://root:hunter2@localhost/b", 1), ("mysql://root@localhost/b", 0)] {
        let file = folder.file("hookledger.toml", &format!("database.url = \"{url}\""), 0o644);
        let loaded = load_here(Some(&file), &[("WEBHOOK_SECRET", SECRET)]).unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
        assert!(loaded.warnings.iter().all(|warning| warning.contains("chmod 640")), "{:?}", loaded.warnings);
    }
}

#[test]
fn own_tables_lie_in_a_schema_of_their_own() {
    assert_eq!(load_server("").unwrap().settings.database.state_schema, "hookledger");
    let longest = "s".repeat(64);
    for name in ["Hook_ledger$2", "7", &longest] {
        let loaded = load_server(&format!("state_schema = \"{name}\"")).unwrap();
        assert_eq!(loaded.settings.database.state_schema, *name);
    }
    let long = "s".repeat(65);
    for (name, message) in [
        ("letaicode", "must not be the platform's database"),
        ("LetAICode", "must not be the platform's database"),
        ("mysql", "none of the server's own"),
        ("Performance_Schema", "none of the server's own"),
        ("information_schema", "none of the server's own"),
        ("sys", "none of the server's own"),
        ("", "1 to 64 letters"),
        (&long, "1 to 64 letters"),
        ("hook-ledger", "1 to 64 letters"),
        ("hook`ledger", "1 to 64 letters"),
        ("büch", "1 to 64 letters"),
    ] {
        let problems = refusal_of(&format!("state_schema = \"{name}\""));
        assert!(problems.starts_with("database.state_schema") && problems.contains(message), "{name}: {problems}");
    }
}

#[test]
fn tls_has_five_modes_and_an_authority() {
    let folder = Folder::new();
    let ca = folder.file("ca.pem", CERTIFICATE, 0o644);
    let ca_line = format!("\nca_file = \"{}\"", ca.display());
    for (mode, expected) in [
        ("off", DatabaseTls::Off),
        ("prefer", DatabaseTls::Prefer),
        ("require", DatabaseTls::Require),
        ("verify-ca", DatabaseTls::VerifyCa),
        ("verify-full", DatabaseTls::VerifyFull),
    ] {
        let loaded = load_server(&format!("tls = \"{mode}\"{ca_line}")).unwrap();
        assert_eq!((loaded.settings.database.tls, loaded.settings.database.ca_file.as_deref()), (expected, Some(&*ca)));
        let is_told = loaded.warnings.iter().any(|warning| warning.contains("database.ca_file has no effect"));
        assert_eq!(is_told, !mode.starts_with("verify"), "{mode}: {:?}", loaded.warnings);
    }
    assert!(load_server("tls = \"verify-full\"").unwrap().warnings.is_empty(), "the machine's own authorities do");
    let other = folder.file("ca.der", "0", 0o644);
    for (lines, message) in [
        ("tls = \"on\"", "\"verify-full\"; got the text \"on\""),
        ("tls = true", "must be one of \"off\""),
        ("tls = \"verify-ca\"", "must name the authority's certificate"),
        ("ca_file = \"/nonexistent/ca.pem\"", "/nonexistent/ca.pem: must be readable"),
        (&format!("tls = \"verify-ca\"\nca_file = \"{}\"", other.display()), "must be a PEM file"),
    ] {
        let problems = refusal_of(lines);
        assert!(problems.contains(message), "{lines}: {problems}");
    }
}

#[test]
fn a_way_in_the_clear_to_another_machine_is_warned_of() {
    let warned = |host: &str, tls: &str| {
        let url = format!("mysql://root@{host}/b");
        let variables = [("WEBHOOK_SECRET", SECRET), ("DATABASE_URL", &url), ("HOOKLEDGER__DATABASE__TLS", tls)];
        let warnings = load_here(None, &variables).unwrap().warnings;
        assert!(warnings.iter().all(|warning| warning.contains(&format!("database.tls is \"{tls}\""))), "{warnings:?}");
        warnings.len()
    };
    for host in ["db", "10.0.0.7:3306", "[2001:db8::7]", "localhost.example"] {
        assert_eq!((warned(host, "off"), warned(host, "prefer")), (1, 1), "{host}");
        assert_eq!((warned(host, "require"), warned(host, "verify-full")), (0, 0), "{host}");
    }
    for host in ["localhost", "LOCALHOST:3307", "127.0.0.1", "127.8.0.1", "[::1]"] {
        assert_eq!((warned(host, "off"), warned(host, "prefer")), (0, 0), "{host}");
    }
    assert!(load_url("mysql://root@db/b").warnings[0].contains("\"require\" or \"verify-full\""), "the default warns");
}

#[test]
fn a_server_asks_for_configured_secrets() {
    let url = ("DATABASE_URL", "mysql://root@localhost/b");
    let problems = load_here(None, &[url]).unwrap_err().to_string();
    assert!(problems.starts_with("webhook.secrets (default): must be set"), "{problems}");
    assert!(problems.contains("only beside the embedded database"), "{problems}");
    let problems = load_here(None, &[url, ("WEBHOOK_SECRET", "short")]).unwrap_err().to_string();
    assert_eq!(problems.lines().count(), 1, "a bad secret is not a missing one: {problems}");
    let folder = Folder::new();
    let secrets = folder.file("secrets", SECRET, 0o600).display().to_string();
    let mut loaded = load_here(None, &[url, ("HOOKLEDGER__WEBHOOK__SECRETS_FILE", &secrets)]).unwrap();
    assert_eq!(ensure_secret(&mut loaded.settings).unwrap(), None);
    assert_eq!(loaded.settings.webhook.secrets.len(), 1);
}

#[test]
fn keys_of_a_server_have_no_effect_on_the_embedded_database() {
    for line in [
        "database.state_schema = \"hookledger\"",
        "database.tls = \"verify-ca\"",
        "database.ca_file = \"/nonexistent/ca.pem\"",
        "database.password = \"hunter2\"",
        "database.password_file = \"/nonexistent/password\"",
        "ledger.shards = 2",
    ] {
        let warnings = warnings_of(line);
        let (key, _) = line.split_once(' ').unwrap();
        assert_eq!(warnings.len(), 1, "{line}: {warnings:?}");
        assert!(
            warnings[0].starts_with(&format!("{key} has no effect")) && !warnings[0].contains(HIDDEN),
            "{warnings:?}"
        );
    }
    let variables =
        [("DATABASE_URL", "mysql://u@localhost/b"), ("WEBHOOK_SECRET", SECRET), ("HOOKLEDGER__LEDGER__SHARDS", "64")];
    let loaded = load_here(None, &variables).unwrap();
    assert_eq!((loaded.settings.ledger.shards, loaded.warnings.len()), (64, 0));
}

#[test]
fn the_admin_socket_is_not_the_servers() {
    let lines = "url = \"mysql://root@localhost/b?socket=/run/mysqld.sock\"\n[admin]\nsocket = \"/run/mysqld.sock\"";
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", &format!("[database]\n{lines}"), 0o600);
    let problems = load_here(Some(&file), &[("WEBHOOK_SECRET", SECRET)]).unwrap_err().to_string();
    assert!(problems.contains("admin.socket") && problems.contains("the server's socket"), "{problems}");
}

#[test]
fn a_reload_leaves_the_password_until_the_next_start_and_tells_each_time() {
    let folder = Folder::new();
    let load = |lines: &str| load_server(lines).unwrap();
    let own = folder.file("password", HIDDEN, 0o600);
    let lines = format!("password_file = \"{}\"", own.display());
    let running = load(&lines);
    folder.file("password", "hunter3", 0o600);
    let first = running.replaced_by(load(&lines)).unwrap();
    assert_eq!((first.at_next_start, first.changed), (vec!["database.password_file".to_owned()], vec![]));
    assert_eq!(password_of(&first.loaded), Some(HIDDEN));
    let second = first.loaded.replaced_by(load(&lines)).unwrap();
    assert_eq!(second.at_next_start, ["database.password_file"], "it is still to come");
    std::fs::remove_file(&own).unwrap();
    let third = second.loaded.replaced_by(load("password = \"hunter3\"\ntls = \"require\"")).unwrap();
    assert_eq!(third.at_next_start, ["database.password", "database.password_file", "database.tls"]);
    assert_eq!(password_of(&third.loaded), Some(HIDDEN), "without the file that is gone");
}

#[test]
fn nothing_is_cleared_from_a_platforms_log_until_that_is_set() {
    let kept = |loaded: &Loaded| {
        let RetentionPolicy { webhook_logs, dead, .. } = loaded.settings.retention.policy;
        (webhook_logs.map(|kept| kept.as_secs() / 86_400), dead.map(|kept| kept.as_secs() / 86_400))
    };
    let unset = load_server("").unwrap();
    assert_eq!(kept(&unset), (None, Some(365)));
    let entry = entry_of(&unset, "retention.webhook_logs");
    assert_eq!((entry.value.to_string().as_str(), entry.origin.as_str()), ("forever", "default"));
    let set = load_server("[retention]\nwebhook_logs = \"90d\"").unwrap();
    assert_eq!(kept(&set), (Some(90), Some(365)), "the default's own value, said by somebody");
    assert_eq!(entry_of(&set, "retention.webhook_logs").value.to_string(), "90d");
    let reloaded = unset.replaced_by(set.clone()).unwrap();
    assert_eq!((reloaded.changed, kept(&reloaded.loaded)), (vec!["retention.webhook_logs".to_owned()], kept(&set)));
    let late = load_server("[webhook]\nmax_age = \"100d\"").unwrap();
    assert_eq!(kept(&late).0, None, "the default is not held against the tolerance");
    let warnings = load_server("[retention]\nwebhook_logs = \"900d\"\nclaims = \"800d\"").unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("no shorter than retention.claims"), "{warnings:?}");
}
