//! What a configuration is refused for, what it is warned of, and how both are said.

use super::tests::{Folder, SECRET, load_here};

/// The problems of one piece of TOML, as they are shown.
pub(super) fn problems_of(text: &str) -> String {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", text, 0o600);
    match load_here(Some(&file), &[]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

pub(super) fn warnings_of(text: &str) -> Vec<String> {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", text, 0o600);
    load_here(Some(&file), &[]).unwrap().warnings
}

#[test]
fn every_problem_is_told_at_once_with_key_and_place() {
    let folder = Folder::new();
    let text = "[server]\nworkers = 5000\nkeep_alive = 75\nlisten_on = 1\n[sever]\nx = 1\n\
        [webhook]\nsecrets = [\"short\"]\n\
        [retry]\nbase_delay = \"20m\"\n[log.level]\na = 1\n";
    let file = folder.file("hookledger.toml", text, 0o600);
    let environment = [
        ("HOOKLEDGER__DATABASE__MAX_CONNECTIONS", "many"),
        ("HOOKLEDGER__SERVER__WORKER", "1"),
        ("DATABASE_URL", "postgres://root:hunter2@db/books"),
        ("PORT", "99999"),
        ("WEBHOOK_ENABLED", "maybe"),
    ];
    let error = load_here(Some(&file), &environment).unwrap_err();
    let path = file.display().to_string();
    let expected = [
        ("server.listen_on", path.as_str(), "did you mean server.listen?"),
        ("sever", &path, "did you mean [server]?"),
        ("log.level", &path, "must be a value"),
        ("server.worker", "environment variable HOOKLEDGER__SERVER__WORKER", "HOOKLEDGER__SERVER__WORKERS?"),
        ("server.listen", "environment variable PORT", "must be an IP address and a port"),
        ("server.workers", &path, "between 0 and 1024; got the number 5000"),
        ("server.keep_alive", &path, "such as 250ms, 30s, 5m, 2h or 7d; got the number 75"),
        ("webhook.enabled", "environment variable WEBHOOK_ENABLED", "true or false"),
        ("webhook.secrets", &path, "at least 32 characters and has 5"),
        ("database.url", "environment variable DATABASE_URL", "postgres:// is not supported by this version"),
        (
            "database.max_connections",
            "environment variable HOOKLEDGER__DATABASE__MAX_CONNECTIONS",
            "between 1 and 1000",
        ),
        ("retry.max_delay", "default", "must not be shorter than retry.base_delay, 20m"),
    ];
    for (key, place, message) in expected {
        let is_told = error.problems().iter().any(|problem| {
            problem.key.as_deref() == Some(key) && problem.place == place && problem.message.contains(message)
        });
        assert!(is_told, "{key}: {error}");
    }
    assert_eq!(error.problems().len(), expected.len(), "{error}");
    let shown = error.to_string();
    assert_eq!(shown.lines().count(), expected.len());
    assert!(shown.contains(&format!("server.workers ({path}): must be")), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("short\""), "{shown}");
}

#[test]
fn broken_files_are_named_and_the_rest_is_still_checked() {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", &format!("[webhook]\nsecrets = [\"{SECRET}\" x]\n"), 0o600);
    let error = load_here(Some(&file), &[("PORT", "x")]).unwrap_err().to_string();
    assert!(error.contains(&format!("{}: line 2, column", file.display())), "{error}");
    assert!(error.contains("environment variable PORT"), "{error}");
    assert!(!error.contains(SECRET), "{error}");

    let missing = folder.path().join("missing.toml");
    let error = load_here(Some(&missing), &[]).unwrap_err().to_string();
    assert!(error.contains("missing.toml: must be a readable configuration file"), "{error}");
}

#[test]
fn values_outside_their_limits_are_refused() {
    for (text, message) in [
        ("server.max_body_bytes = 1023", "between 1024 and 16777216"),
        ("server.max_body_bytes = \"64k\"", "got the text \"64k\""),
        ("server.workers = \"4\"", "must be a whole number"),
        ("server.workers = -1", "between 0 and 1024"),
        ("server.workers = 1.5", "got the number 1.5"),
        ("server.workers = 99999999999999999999", "must be TOML"),
        ("server.ack_timeout = \"0s\"", "between 1ms and 9s; got 0ms"),
        ("server.ack_timeout = \"10s\"", "between 1ms and 9s"),
        ("server.header_timeout = \"5\"", "such as 250ms"),
        ("server.header_timeout = \"5 s\"", "such as 250ms"),
        ("server.header_timeout = \"-5s\"", "such as 250ms"),
        ("server.header_timeout = \"99999999999999999999d\"", "such as 250ms"),
        ("server = 5", "must be a section, written [server]"),
        ("listen = \"127.0.0.1:1\"", "is not a key of this version"),
        ("server.max_age = \"1h\"", "did you mean webhook.max_age?"),
        ("webhook.secrets = [12345678901234567]", "write it in quotes"),
        ("webhook.secrets = [\"a\", 5]", "has 1: `hookledger secret` makes one; number 2 of the list is not text"),
        ("webhook.secrets = \"0123456789abcdef0123456789abcdef\"", "must be a list"),
        ("webhook.secrets_file = \"/nonexistent/secrets\"", "/nonexistent/secrets: must be readable"),
        ("webhook.secrets_file = \"\"", "must be the path of a file"),
        ("webhook.allow_sources = [\"all\"]", "such as 192.0.2.7 or 10.0.0.0/8"),
        ("webhook.allow_sources = \"10.0.0.0/8\"", "must be a list such as"),
        ("webhook.enabled = \"true\"", "true or false, without quotes"),
        ("rate_limit.burst = 0", "rate_limit.burst"),
        ("rate_limit.bad_burst = 0", "while rate_limit.bad_per_second is above 0"),
        ("ledger.max_batch = 4097", "between 1 and 4096"),
        ("ledger.shards = 65", "between 0 and 64"),
        ("ledger.usd_to_credits = 0", "above 0"),
        ("ledger.usd_to_credits = 1.0000001", "at most six places"),
        ("ledger.rounding = \"up\"", "must be one of \"carry\", \"nearest\""),
        ("log.level = \"verbose\"", "\"trace\"; got the text \"verbose\""),
        ("database.max_connections = 0", "between 1 and 1000"),
        ("metrics.listen = \"127.0.0.1:4000\"", "must not be the address of server.listen"),
        ("metrics.listen = \"[::]:4000\"", "must not be the address of server.listen"),
        ("metrics.listen = \"here\"", "or \"\" for off"),
        ("admin.socket = \"hookledger-data/hookledger.db\"", "must not be the file of database.url"),
    ] {
        let problems = problems_of(text);
        assert!(problems.contains(message), "{text}: {problems:?}");
    }
}

#[test]
fn keys_of_parts_that_are_not_built_are_unknown() {
    for key in ["ledger.polling", "supervisor.strategy"] {
        let problems = problems_of(&format!("{key} = 1"));
        assert!(
            problems.contains(&format!("{key} (")) && problems.contains("is not a key of this version"),
            "{problems}"
        );
    }
    assert!(problems_of("[cluster]\ninstance = \"one\"").contains("cluster ("));
}

#[test]
fn webhook_paths_must_be_plain_and_free() {
    for path in
        ["api", "", "/", "/api/", "/a b", "/{id}", "/a//b", "/a/../b", "/%41", "/healthz", "/metrics/x", "/admin"]
    {
        assert!(problems_of(&format!("server.webhook_path = \"{path}\"")).contains("server.webhook_path"), "{path:?}");
    }
    for path in ["/hooks", "/api/v1~x/a.b-c_d", "/adminhooks"] {
        assert_eq!(problems_of(&format!("server.webhook_path = \"{path}\"")), "");
    }
}

#[test]
fn database_urls_are_files_of_the_embedded_kind() {
    for (url, message) in [
        ("postgres://db/books", "postgres:// is not supported"),
        ("sqlite::memory:", "must be a URL"),
        ("sqlite://:memory:", "in memory"),
        ("sqlite:///a.db?mode=ro", "no parameters"),
        ("sqlite://", "use sqlite://folder"),
        ("sqlite:///", "must name a file"),
        ("sqlite://folder/", "must name a file"),
        ("sqlite://~/a.db", "not expanded"),
        ("hookledger.db", "must be a URL"),
    ] {
        let problems = problems_of(&format!("database.url = \"{url}\""));
        assert!(problems.contains(message), "{url}: {problems}");
    }
}

#[test]
fn combinations_that_work_are_accepted() {
    let working = [
        "server.listen = \"127.0.0.1:0\"\nmetrics.listen = \"127.0.0.1:0\"",
        "metrics.listen = \"127.0.0.2:4000\"",
        "metrics.listen = \"\"",
        "rate_limit.per_second = 0\nrate_limit.burst = 0",
        "server.ack_timeout = \"9s\"\nserver.max_body_bytes = 16777216",
        "retry.base_delay = \"1ms\"\nretry.max_delay = \"1ms\"",
    ];
    for text in working {
        assert_eq!(problems_of(text), "", "{text}");
    }
}

#[test]
fn a_socket_path_must_fit_the_kernel() {
    let problems = problems_of(&format!("admin.socket = \"/{}\"", "s".repeat(107)));
    assert!(problems.contains("at most 107 bytes"), "{problems}");
    assert_eq!(problems_of(&format!("admin.socket = \"/{}\"", "s".repeat(106))), "");
}

#[test]
fn risky_settings_are_warned_of() {
    for (text, message) in [
        ("server.listen = \"0.0.0.0:4000\"", "a proxy that speaks TLS"),
        ("rate_limit.per_second = 0", "rightly signed requests are not limited"),
        ("rate_limit.bad_per_second = 0", "wrongly signed requests are not limited"),
        ("webhook.max_age = \"8d\"", "webhook.max_age is 8d"),
        ("webhook.enabled = false", "webhook.enabled is false"),
        ("ledger.overdraft = \"refuse\"", "never paid for"),
        ("ledger.rounding = \"nearest\"", "are free"),
        ("server.trusted_proxies = [\"::/0\"]", "holds every address"),
        ("server.trusted_proxies = [\"0.0.0.0/0\"]", "holds every address"),
        ("webhook.secrets = [\"  0123456789abcdef0123456789abcdef\"]", "white space"),
    ] {
        let warnings = warnings_of(text);
        assert!(warnings.len() == 1 && warnings[0].contains(message), "{text}: {warnings:?}");
    }
    let limited =
        "server.listen = \"0.0.0.0:4000\"\nwebhook.allow_sources = [\"10.0.0.0/8\"]\nwebhook.max_age = \"7d\"";
    assert_eq!(warnings_of(limited), Vec::<String>::new());
}

#[test]
fn an_open_file_with_secrets_is_warned_of() {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", &format!("webhook.secrets = [\"{SECRET}\"]"), 0o644);
    let warnings = load_here(Some(&file), &[]).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("chmod 640"), "{warnings:?}");
}

#[test]
fn a_near_miss_of_a_variable_is_pointed_out() {
    let loaded =
        load_here(None, &[("HOOKLEDGER_SERVER_LISTEN", "0.0.0.0:1"), ("HOOKLEDGER_BACKUP_HOST", "x")]).unwrap();
    assert_eq!(
        loaded.warnings,
        ["environment variable HOOKLEDGER_SERVER_LISTEN has no effect; did you mean HOOKLEDGER__SERVER__LISTEN?"]
    );
}
