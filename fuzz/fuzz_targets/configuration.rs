//! A configuration file: settings within their limits, or problems that each name a key or a place, and never a secret.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use hookledger::config::{self, ConfigError, Loaded};
use libfuzzer_sys::fuzz_target;

/// The secret of the seeds.
const CANARY: &str = "canary-canary-canary-canary-canary-canary";

/// Keys whose values nobody may see.
const SECRET_KEYS: [&str; 4] = ["secrets", "token", "access_token", "password"];

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    // A key may name a file: what this machine has there is no matter of the input.
    if ["/dev", "/proc", "/sys", "/run"].iter().any(|folder| text.contains(folder)) {
        return;
    }
    let file = file();
    fs::write(file, data).expect("the file can be written");
    let loaded = config::load(Some(file), []);
    assert_eq!(loaded.is_ok(), config::load(Some(file), []).is_ok(), "twice the same");
    let told = match &loaded {
        Ok(loaded) => check(loaded),
        Err(error) => check_problems(error),
    };
    if is_secret(&text) {
        assert!(!told.contains(CANARY), "{told}");
    }
});

fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = std::env::var_os("HOOKLEDGER_FUZZ_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        folder.join(format!("hookledger-{}.toml", std::process::id()))
    })
}

/// All that is told of them, to people and in the log.
fn check(loaded: &Loaded) -> String {
    let settings = &loaded.settings;
    let server = &settings.server;
    assert!((1024..=16 * 1024 * 1024).contains(&server.max_body_bytes));
    assert!((1..=1_000_000).contains(&server.max_connections) && (1..=1_000_000).contains(&server.max_in_flight));
    assert!(server.webhook_path.starts_with('/') && !server.webhook_path.ends_with('/'));
    assert!(server.ack_timeout.as_secs() <= 9 && !server.header_timeout.is_zero());
    assert!((1..=4096).contains(&settings.ledger.max_batch) && (1..=100).contains(&settings.newapi.page_size));
    assert!((0.0..=1.0).contains(&settings.polling.stale_loss));
    let report: Vec<String> =
        loaded.report.entries.iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect();
    assert!(report.len() > 50, "every key is told of");
    format!("{settings:?}\n{}\n{}", loaded.warnings.join("\n"), report.join("\n"))
}

fn check_problems(error: &ConfigError) -> String {
    assert!(!error.problems().is_empty(), "no settings, and no problem");
    for problem in error.problems() {
        assert!(!problem.message.is_empty() && !problem.place.is_empty(), "{problem:?}");
        assert!(
            problem.key.as_ref().is_none_or(|key| !key.is_empty()) || problem.place.ends_with(".toml"),
            "{problem:?}"
        );
    }
    format!("{error}\n{error:?}")
}

/// Whether the canary stands in the input as the value of secret keys alone, each on a line of its own.
fn is_secret(text: &str) -> bool {
    let is_plain = !text.contains("'''") && !text.contains("\"\"\"") && !text.contains(['\r', '\\']);
    let is_secret_line = |line: &str| {
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        let (before, _) = line.split_once(CANARY).unwrap_or_default();
        SECRET_KEYS.contains(&key) && before.matches('=').count() == 1 && !before.contains(['{', '#'])
    };
    is_plain && text.lines().filter(|line| line.contains(CANARY)).all(is_secret_line)
}
