//! How a configuration is put together: defaults, layers, secrets. What is refused is in `tests_problems`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::keys;
use super::*;
use crate::domain::pricing::{Overdraft, Rounding};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &str = "another-secret,with-a-comma-in-it-0001";

/// A folder of its own for each test, gone afterwards.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("hookledger-config-{}", &generate_secret()[..16]));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub(super) fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Loads as `load` does, without a look at this machine's own configuration.
pub(super) fn load_here(file: Option<&Path>, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    load_beside(Path::new("/nonexistent/hookledger.toml"), file, environment)
}

fn secrets_of(loaded: &Loaded) -> Vec<&str> {
    loaded.settings.webhook.secrets.iter().map(ExposeSecret::expose_secret).collect()
}

fn origin_of<'a>(loaded: &'a Loaded, key: &str) -> &'a str {
    &entry_of(loaded, key).origin
}

pub(super) fn entry_of<'a>(loaded: &'a Loaded, key: &str) -> &'a ReportEntry {
    loaded.report.entries.iter().find(|entry| entry.key == key).unwrap()
}

#[test]
fn each_default_is_the_documented_one() {
    let loaded = load_here(None, &[]).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let Settings {
        server,
        webhook,
        rate_limit,
        balance,
        database,
        ledger,
        retry,
        newapi,
        polling,
        retention,
        supervisor,
        metrics,
        admin,
        log,
    } = loaded.settings;
    let seconds = Duration::from_secs;
    assert_eq!(server.listen, "127.0.0.1:4000".parse().unwrap());
    assert_eq!((server.workers, server.webhook_path.as_str()), (0, "/api/webhooks"));
    assert_eq!((server.max_body_bytes, server.max_connections, server.max_in_flight), (65536, 10000, 4096));
    assert_eq!((server.header_timeout, server.body_timeout, server.keep_alive), (seconds(5), seconds(10), seconds(75)));
    assert_eq!((server.ack_timeout, server.shutdown_timeout), (seconds(3), seconds(20)));
    assert!(server.trusted_proxies.is_empty());
    assert!(webhook.enabled && webhook.secrets.is_empty() && webhook.allow_sources.is_empty());
    assert_eq!((webhook.max_age, webhook.max_future), (seconds(86_400), seconds(300)));
    assert_eq!((rate_limit.per_second, rate_limit.burst), (20000, 40000));
    assert_eq!((rate_limit.bad_per_second, rate_limit.bad_burst, rate_limit.max_sources), (5, 20, 100_000));
    assert!(balance.token.is_none());
    let state = std::env::current_dir().unwrap().join("hookledger-data");
    assert_eq!(database.url.sqlite_path(), Some(state.join("hookledger.db").as_path()));
    assert_eq!(database.url.state_folder(), state);
    assert_eq!((database.max_connections, database.lock_wait), (8, seconds(2)));
    assert_eq!((database.start_timeout, database.migrate), (seconds(300), true));
    assert_eq!((database.state_schema.as_str(), database.tls), ("hookledger", DatabaseTls::Prefer));
    assert_eq!((database.ca_file, ledger.shards), (None, 0));
    assert_eq!((ledger.usd_to_credits.to_string().as_str(), ledger.quota_per_unit.get()), ("1000", 500_000));
    assert_eq!((ledger.rounding, ledger.overdraft), (Rounding::Carry, Overdraft::Allow));
    assert_eq!(ledger.max_batch, 512);
    assert_eq!((retry.max_attempts, retry.base_delay, retry.max_delay), (10, seconds(2), seconds(600)));
    assert!(newapi.access.is_none() && newapi.group.is_none() && newapi.username.is_none());
    assert_eq!((newapi.timeout, newapi.page_size, newapi.source.as_str()), (seconds(30), 100, "default"));
    assert_eq!((newapi.max_retries, newapi.base_backoff), (3, seconds(1)));
    assert_eq!(newapi.requests_per_second.map(|rate| rate.to_string()).as_deref(), Some("1"));
    assert_eq!((polling.mode, polling.cron, polling.start_from), (PollingMode::Auto, None, StartFrom::Now));
    assert_eq!((polling.interval, polling.pull_interval), (seconds(300), seconds(15)));
    assert_eq!((polling.stale_after, polling.stale_loss.to_string().as_str()), (seconds(600), "0.05"));
    assert_eq!((polling.probe_interval, polling.sweep_interval), (seconds(60), seconds(3600)));
    assert_eq!((polling.full_read_interval, polling.recheck), (seconds(7 * 86_400), seconds(48 * 3600)));
    assert_eq!((polling.match_window, polling.dispute_window), (seconds(60), seconds(900)));
    assert_eq!((polling.lookback, polling.settle_delay), (seconds(600), seconds(10)));
    let days = |days: u64| Some(seconds(days * 86_400));
    let kept = retention.policy;
    assert_eq!((kept.webhook_logs, kept.dead, kept.claims), (days(90), days(365), None));
    assert_eq!(ledger.key_grace, seconds(3600));
    assert_eq!((supervisor.max_restarts, supervisor.window), (10, seconds(60)));
    assert_eq!((supervisor.heartbeat, supervisor.hang_timeout), (seconds(1), seconds(15)));
    assert_eq!(metrics.listen, Some("127.0.0.1:9464".parse().unwrap()));
    assert_eq!(admin.socket, state.join("admin.sock"));
    assert_eq!((log.format, log.level.as_str()), (LogFormat::Auto, "info"));
}

#[test]
fn the_reference_file_names_every_key() {
    let reference = include_str!("../../config/default.toml");
    for section in keys::SECTIONS {
        let (_, text) = reference.split_once(&format!("\n[{}]\n", section.name)).unwrap();
        let text = text.split("\n[").next().unwrap();
        for (key, ..) in section.keys {
            let is_named = text.lines().any(|line| {
                line.strip_prefix("# ").unwrap_or(line).strip_prefix(key).is_some_and(|rest| rest.starts_with(" = "))
            });
            assert!(is_named, "{}.{key}", section.name);
        }
    }
}

#[test]
fn every_key_of_the_reference_is_accepted_from_the_environment() {
    let defaults = load_here(None, &[]).unwrap();
    for (key, kind) in keys::all() {
        let text = match &entry_of(&defaults, &key).value {
            ReportValue::None => match key.as_str() {
                "newapi.base_url" => "http://127.0.0.1:3000".to_owned(),
                "newapi.user_id" => "1".to_owned(),
                "polling.cron" => "*/5 * * * *".to_owned(),
                _ => SECRET.to_owned(),
            },
            ReportValue::List(texts) => texts.join(","),
            other => other.to_string(),
        };
        let folder = Folder::new();
        let secrets = folder.file("secrets", SECRET, 0o600);
        let is_secret_file = matches!(
            key.as_str(),
            "webhook.secrets_file"
                | "balance.token_file"
                | "admin.token_file"
                | "newapi.access_token_file"
                | "database.password_file"
                | "database.ca_file"
        );
        let text = if is_secret_file { secrets.display().to_string() } else { text };
        let variable = keys::variable_of(&key);
        let needs_access = [("NEW_API_ADMIN_TOKEN", SECRET), ("NEW_API_USER_ID", "1")];
        let own = [(variable.as_str(), text.as_str())];
        let environment = if key == "newapi.base_url" { [&own[..], &needs_access].concat() } else { own.to_vec() };
        let loaded = load_here(None, &environment).unwrap();
        assert_eq!(origin_of(&loaded, &key), format!("environment variable {variable}"));
        if !kind.is_secret() && !is_secret_file && entry_of(&defaults, &key).value != ReportValue::None {
            assert_eq!(entry_of(&loaded, &key).value, entry_of(&defaults, &key).value, "{key}");
        }
    }
}

#[test]
fn later_layers_win_and_are_named() {
    let folder = Folder::new();
    let text = format!("server.workers = 2\nwebhook.secrets = [\"{SECRET}\"]\ndatabase.url = \"sqlite:///f/file.db\"");
    let file = folder.file("hookledger.toml", &text, 0o600);
    let path = file.display().to_string();

    let loaded = load_here(Some(&file), &[]).unwrap();
    assert_eq!((loaded.settings.server.workers, origin_of(&loaded, "server.workers")), (2, path.as_str()));
    assert_eq!(origin_of(&loaded, "server.keep_alive"), "default");
    assert_eq!(loaded.settings.admin.socket, Path::new("/f/admin.sock"));

    let guide =
        [("WEBHOOK_SECRET", OTHER_SECRET), ("WEBHOOK_ENABLED", "false"), ("DATABASE_URL", "sqlite:///g/guide.db")];
    let loaded = load_here(Some(&file), &guide).unwrap();
    assert_eq!(secrets_of(&loaded), [OTHER_SECRET], "whole, commas and all");
    assert!(!loaded.settings.webhook.enabled);
    assert_eq!(loaded.settings.database.url.sqlite_path(), Some(Path::new("/g/guide.db")));
    assert_eq!(origin_of(&loaded, "database.url"), "environment variable DATABASE_URL");

    let own = [("HOOKLEDGER__DATABASE__URL", "sqlite:///o/own.db"), ("HOOKLEDGER__WEBHOOK__ENABLED", "true")];
    let loaded = load_here(Some(&file), &[&guide[..], &own[..]].concat()).unwrap();
    assert!(loaded.settings.webhook.enabled);
    assert_eq!(loaded.settings.database.url.sqlite_path(), Some(Path::new("/o/own.db")));
    assert_eq!(origin_of(&loaded, "database.url"), "environment variable HOOKLEDGER__DATABASE__URL");
}

#[test]
fn a_default_file_is_read_if_it_exists() {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", "server.workers = 3", 0o600);
    let loaded = load_beside(&file, None, []).unwrap();
    assert_eq!(loaded.settings.server.workers, 3);
}

#[test]
fn host_and_port_replace_their_half() {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", "server.listen = \"127.0.0.2:5000\"", 0o600);
    for (environment, listen, origin) in [
        (vec![("HOST", "0.0.0.0")], "0.0.0.0:5000", "environment variable HOST"),
        (vec![("PORT", "6000")], "127.0.0.2:6000", "environment variable PORT"),
        (vec![("HOST", "::1"), ("PORT", "6000")], "[::1]:6000", "environment variables HOST and PORT"),
        (vec![("HOST", "localhost"), ("PORT", "")], "127.0.0.1:5000", "environment variable HOST"),
        (vec![("HOST", ""), ("PORT", " ")], "127.0.0.2:5000", &*file.display().to_string()),
        (
            vec![("HOST", "::1"), ("HOOKLEDGER__SERVER__LISTEN", "127.0.0.3:7000")],
            "127.0.0.3:7000",
            "environment variable HOOKLEDGER__SERVER__LISTEN",
        ),
    ] {
        let loaded = load_here(Some(&file), &environment).unwrap();
        assert_eq!(loaded.settings.server.listen.to_string(), listen);
        assert_eq!(origin_of(&loaded, "server.listen"), origin);
    }
}

#[test]
fn empty_guide_variables_count_as_unset() {
    let names = ["WEBHOOK_SECRET", "WEBHOOK_ENABLED", "DATABASE_URL", "HOST", "PORT", "NEW_API_BASE_URL"];
    let loaded = load_here(None, &names.map(|name| (name, ""))).unwrap();
    assert!(loaded.report.entries.iter().all(|entry| entry.origin == "default"));
}

#[test]
fn digits_stay_text_in_a_secret() {
    let digits = "00000000000000000000000000000000000042";
    for variable in ["WEBHOOK_SECRET", "HOOKLEDGER__WEBHOOK__SECRETS"] {
        assert_eq!(secrets_of(&load_here(None, &[(variable, digits)]).unwrap()), [digits]);
    }
}

#[test]
fn lists_in_the_environment_are_separated_by_commas() {
    let two = format!("{SECRET}, {SECRET}2");
    let environment = [
        ("HOOKLEDGER__WEBHOOK__SECRETS", two.as_str()),
        ("HOOKLEDGER__WEBHOOK__ALLOW_SOURCES", "192.0.2.7,10.1.2.3/8,"),
    ];
    let loaded = load_here(None, &environment).unwrap();
    assert_eq!(secrets_of(&loaded), [SECRET, &format!("{SECRET}2")]);
    let sources: Vec<String> = loaded.settings.webhook.allow_sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["192.0.2.7/32", "10.0.0.0/8"]);
}

#[test]
fn a_rate_may_be_a_number_or_text() {
    let folder = Folder::new();
    for written in ["7.25", "\"7.25\"", "999999999.999999", "0.000001", "1000"] {
        let file = folder.file("rate.toml", &format!("ledger.usd_to_credits = {written}"), 0o600);
        let loaded = load_here(Some(&file), &[]).unwrap();
        assert_eq!(loaded.settings.ledger.usd_to_credits.to_string(), written.trim_matches('"'));
    }
}

#[test]
fn secrets_and_secrets_file_are_merged_without_repeats() {
    let folder = Folder::new();
    let secrets = folder.file("secrets", &format!("# old\r\n\n{SECRET}\r\n{OTHER_SECRET}\n"), 0o644);
    let file = secrets.display().to_string();
    let environment = [("WEBHOOK_SECRET", SECRET), ("HOOKLEDGER__WEBHOOK__SECRETS_FILE", file.as_str())];
    let loaded = load_here(None, &environment).unwrap();
    assert_eq!(secrets_of(&loaded), [SECRET, OTHER_SECRET]);
    assert!(loaded.warnings.iter().any(|warning| warning.contains("same secret twice")), "{:?}", loaded.warnings);
    assert!(loaded.warnings.iter().any(|warning| warning.contains("chmod 600")), "{:?}", loaded.warnings);
}

#[test]
fn nothing_prints_a_secret() {
    let folder = Folder::new();
    let secrets = folder.file("secrets", OTHER_SECRET, 0o600).display().to_string();
    let file = folder.file("hookledger.toml", &format!("[webhook]\nsecrets = [\"{SECRET}\"]"), 0o600);
    let loaded = load_here(Some(&file), &[("HOOKLEDGER__WEBHOOK__SECRETS_FILE", &secrets)]).unwrap();
    assert_eq!(loaded.settings.webhook.secrets.len(), 2);
    let printed = format!("{loaded:?} {}", serde_json::to_string(&loaded.report).unwrap());
    assert!(!printed.contains(SECRET) && !printed.contains(OTHER_SECRET), "{printed}");
    assert_eq!(entry_of(&loaded, "webhook.secrets").value.to_string(), "[********]");
}

#[test]
fn a_generated_secret_is_kept_and_found_again() {
    let folder = Folder::new();
    let url = format!("sqlite://{}/state/deep/hookledger.db", folder.path().display());
    let load_state = || load_here(None, &[("DATABASE_URL", &url)]).unwrap();
    let mut first = load_state();
    assert!(!folder.path().join("state").exists(), "loading writes nothing");

    let path = ensure_secret(&mut first.settings).unwrap().unwrap();
    assert_eq!(path, folder.path().join("state/deep/webhook-secret"));
    let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode_of(&path), mode_of(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    let secret = secrets_of(&first)[0].to_owned();
    assert!(secret.len() == 64 && secret.bytes().all(|byte| byte.is_ascii_hexdigit()));

    let mut second = load_state();
    assert_eq!(ensure_secret(&mut second.settings).unwrap(), Some(path.clone()));
    assert_eq!(secrets_of(&second), [secret.as_str()]);

    fs::write(&path, "short").unwrap();
    let error = ensure_secret(&mut load_state().settings).unwrap_err().to_string();
    assert!(error.contains("webhook-secret") && error.contains("at least 32"), "{error}");
}

#[test]
fn a_configured_secret_needs_no_file() {
    let mut loaded = load_here(None, &[("WEBHOOK_SECRET", SECRET)]).unwrap();
    assert_eq!(ensure_secret(&mut loaded.settings).unwrap(), None);
}

#[test]
fn starts_at_the_same_moment_share_one_secret() {
    let folder = Folder::new();
    let url = format!("sqlite://{}/state/hookledger.db", folder.path().display());
    let secrets: Vec<String> = std::thread::scope(|scope| {
        let start = || {
            let mut loaded = load_here(None, &[("DATABASE_URL", &url)]).unwrap();
            ensure_secret(&mut loaded.settings).unwrap();
            secrets_of(&loaded)[0].to_owned()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(secrets.iter().all(|secret| *secret == secrets[0]));
}
