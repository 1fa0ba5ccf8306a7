//! What a reload takes over, key by key, and that the reference file tells it.

use std::collections::BTreeSet;
use std::path::Path;

use secrecy::ExposeSecret;

use super::tests::{Folder, SECRET, load_here};
use super::*;

const OTHER_SECRET: &str = "another-secret-of-forty-characters-00001";

fn reload(running: &Loaded, file: &Path) -> Reloaded {
    running.replaced_by(load_here(Some(file), &[("WEBHOOK_SECRET", SECRET)]).unwrap()).unwrap()
}

#[test]
fn the_reference_file_tells_what_needs_a_restart() {
    let reference = include_str!("../../config/default.toml");
    let (_, told) = reference.split_once("These need a restart: ").unwrap();
    let (told, _) = told.split_once(".\n").unwrap();
    let mut names = BTreeSet::new();
    for name in told.replace("\n#", " ").split([',', ' ']).filter(|name| !name.is_empty() && *name != "and") {
        match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            Some(section) => {
                let known = keys::SECTIONS.iter().find(|known| known.name == section).unwrap();
                names.extend(known.keys.iter().map(|(key, ..)| format!("{section}.{key}")));
            }
            None => assert!(names.insert(name.to_owned()), "{name} is told twice"),
        }
    }
    assert_eq!(names, keys::fixed_at_start().collect(), "the list at the top of config/default.toml");
}

#[test]
fn only_what_differs_is_changed_and_where_it_was_written_does_not_count() {
    let folder = Folder::new();
    let running = load_here(None, &[("WEBHOOK_SECRET", SECRET)]).unwrap();
    let text = format!(
        "[webhook]\nsecrets = [\"{SECRET}\"]\nmax_age = \"24h\"\nmax_future = \"6m\"\n[ledger]\nrounding = \"nearest\""
    );
    let file = folder.file("hookledger.toml", &text, 0o600);
    let reloaded = running.replaced_by(load_here(Some(&file), &[]).unwrap()).unwrap();
    assert_eq!(reloaded.changed, ["webhook.max_future", "ledger.rounding"]);
    assert!(reloaded.at_next_start.is_empty());
    assert_eq!(reloaded.loaded.settings.ledger.rounding, crate::domain::pricing::Rounding::Nearest);
}

#[test]
fn what_needs_a_start_stays_until_then_and_is_told_each_time() {
    let folder = Folder::new();
    let running = load_here(None, &[("WEBHOOK_SECRET", SECRET)]).unwrap();
    let text = "server.listen = \"127.0.0.1:4999\"\nserver.ack_timeout = \"2s\"\nlog.format = \"text\"";
    let file = folder.file("hookledger.toml", text, 0o600);
    let first = reload(&running, &file);
    assert_eq!((first.changed, first.at_next_start.len()), (vec!["server.ack_timeout".to_owned()], 2));
    let second = reload(&first.loaded, &file);
    assert_eq!((second.changed, second.at_next_start), (vec![], first.at_next_start));
    let settings = &second.loaded.settings;
    assert_eq!(settings.server.listen, running.settings.server.listen);
    assert_eq!((settings.log.format, settings.server.ack_timeout.as_secs()), (LogFormat::Auto, 2));
    let third = reload(&second.loaded, &folder.file("hookledger.toml", "", 0o600));
    assert_eq!((third.changed, third.at_next_start), (vec!["server.ack_timeout".to_owned()], vec![]));
}

#[test]
fn another_database_keeps_the_socket_where_it_is() {
    let running = load_here(None, &[("WEBHOOK_SECRET", SECRET)]).unwrap();
    let fresh = load_here(None, &[("WEBHOOK_SECRET", SECRET), ("DATABASE_URL", "sqlite:///elsewhere/books.db")]);
    let reloaded = running.replaced_by(fresh.unwrap()).unwrap();
    assert_eq!(reloaded.at_next_start, ["database.url"]);
    assert_eq!(reloaded.loaded.settings.admin.socket, running.settings.admin.socket);
}

#[test]
fn a_file_that_a_key_names_counts_by_what_it_holds() {
    let folder = Folder::new();
    let secrets = folder.file("secrets", SECRET, 0o600);
    let token = folder.file("token", "a-token-of-some-length", 0o600);
    let (secrets, token) = (secrets.display().to_string(), token.display().to_string());
    let variables =
        [("HOOKLEDGER__WEBHOOK__SECRETS_FILE", secrets.as_str()), ("HOOKLEDGER__BALANCE__TOKEN_FILE", token.as_str())];
    let running = load_here(None, &variables).unwrap();
    let same = running.replaced_by(load_here(None, &variables).unwrap()).unwrap();
    assert!(same.changed.is_empty(), "{:?}", same.changed);
    folder.file("secrets", OTHER_SECRET, 0o600);
    folder.file("token", "a-token-of-other-length", 0o600);
    let reloaded = running.replaced_by(load_here(None, &variables).unwrap()).unwrap();
    assert_eq!(reloaded.changed, ["webhook.secrets_file", "balance.token_file"]);
    assert_eq!(reloaded.loaded.settings.webhook.secrets[0].expose_secret(), OTHER_SECRET);
}

#[test]
fn a_generated_secret_is_read_again_and_never_made_anew() {
    let folder = Folder::new();
    let url = format!("sqlite://{}/hookledger.db", folder.path().display());
    let fresh = || load_here(None, &[("DATABASE_URL", &url)]).unwrap();
    let mut running = fresh();
    let path = ensure_secret(&mut running.settings).unwrap().unwrap();
    assert!(running.replaced_by(fresh()).unwrap().changed.is_empty());
    std::fs::write(&path, OTHER_SECRET).unwrap();
    let reloaded = running.replaced_by(fresh()).unwrap();
    assert_eq!(reloaded.changed, ["webhook.secrets"]);
    assert_eq!(reloaded.loaded.settings.webhook.secrets[0].expose_secret(), OTHER_SECRET);
    std::fs::remove_file(&path).unwrap();
    let error = running.replaced_by(fresh()).unwrap_err().to_string();
    assert!(error.contains("webhook-secret") && error.contains("only a start"), "{error}");
    assert!(!path.exists());
}
