//! The token of the balance question: where it may come from, what is refused, and that it is never shown.

use secrecy::ExposeSecret;

use super::Loaded;
use super::tests::{Folder, load_here};

const TOKEN: &str = "token,of-the-balance-question";
const ADMIN: &str = "admin-token-of-new-api-32-chars";

fn token_of(loaded: &Loaded) -> Option<&str> {
    loaded.settings.balance.token.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn it_comes_from_the_file_the_environment_or_a_file_of_its_own() {
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", &format!("[balance]\ntoken = \" {TOKEN} \""), 0o600);
    assert_eq!(token_of(&load_here(Some(&file), &[]).unwrap()), Some(TOKEN));
    let loaded = load_here(Some(&file), &[("HOOKLEDGER__BALANCE__TOKEN", "12345678901234567890")]).unwrap();
    assert_eq!(token_of(&loaded), Some("12345678901234567890"), "digits stay text, and the environment wins");

    let own = folder.file("balance-token", &format!("{TOKEN}\r\n"), 0o600).display().to_string();
    let loaded = load_here(None, &[("HOOKLEDGER__BALANCE__TOKEN_FILE", &own)]).unwrap();
    assert_eq!((token_of(&loaded), loaded.warnings.len()), (Some(TOKEN), 0));
    let open = folder.file("open-token", TOKEN, 0o644).display().to_string();
    let loaded = load_here(None, &[("HOOKLEDGER__BALANCE__TOKEN_FILE", &open)]).unwrap();
    assert!(loaded.warnings.len() == 1 && loaded.warnings[0].contains("chmod 600"), "{:?}", loaded.warnings);
}

#[test]
fn new_apis_own_token_stands_in_where_none_is_named() {
    let admin = ("NEW_API_ADMIN_TOKEN", ADMIN);
    assert_eq!(token_of(&load_here(None, &[admin]).unwrap()), Some(ADMIN));
    assert_eq!(token_of(&load_here(None, &[("NEW_API_ADMIN_TOKEN", " ")]).unwrap()), None);
    let folder = Folder::new();
    let own = folder.file("balance-token", TOKEN, 0o600);
    let file = folder.file("hookledger.toml", &format!("balance.token_file = \"{}\"", own.display()), 0o600);
    assert_eq!(token_of(&load_here(Some(&file), &[admin]).unwrap()), Some(TOKEN), "a file of its own was named");
    let file = folder.file("hookledger.toml", &format!("balance.token = \"{TOKEN}\""), 0o600);
    assert_eq!(token_of(&load_here(Some(&file), &[admin]).unwrap()), Some(TOKEN), "a token was named");
}

#[test]
fn what_cannot_be_one_is_refused_and_not_repeated() {
    let folder = Folder::new();
    let own = folder.file("two-lines", "first-line-of-a-token\nsecond-line", 0o600);
    let blank = folder.file("blank", "\n", 0o600);
    for (text, message) in [
        ("token = \"  \"".to_owned(), "must not be empty"),
        ("token = 8765432187654321".to_owned(), "write it in quotes"),
        (format!("token = [\"{TOKEN}\"]"), "write it in quotes"),
        ("token = \"a-token-with-a\\u0007-bell\"".to_owned(), "without control characters"),
        (format!("token_file = \"{}\"", own.display()), "must be one line"),
        (format!("token_file = \"{}\"", blank.display()), "must not be empty"),
        ("token_file = \"/nonexistent/token\"".to_owned(), "/nonexistent/token: must be readable"),
        (format!("token = \"{TOKEN}\"\ntoken_file = \"{}\"", own.display()), "must be one line"),
    ] {
        let file = folder.file("hookledger.toml", &format!("[balance]\n{text}"), 0o600);
        let problems = load_here(Some(&file), &[]).unwrap_err().to_string();
        assert!(problems.contains(message) && problems.contains("balance.token"), "{text}: {problems}");
        for hidden in [TOKEN, "8765432187654321", "bell", "second-line"] {
            assert!(!problems.contains(hidden), "{problems}");
        }
    }
    let own = folder.file("balance-token", TOKEN, 0o600);
    let both = format!("[balance]\ntoken = \"{TOKEN}\"\ntoken_file = \"{}\"", own.display());
    let problems = load_here(Some(&folder.file("both.toml", &both, 0o600)), &[]).unwrap_err().to_string();
    assert!(problems.contains("keep one of the two"), "{problems}");
}

#[test]
fn a_short_one_is_warned_of() {
    let loaded = load_here(None, &[("HOOKLEDGER__BALANCE__TOKEN", "fifteen-letters")]).unwrap();
    assert!(loaded.warnings.len() == 1 && loaded.warnings[0].contains("balance.token"), "{:?}", loaded.warnings);
    assert!(!loaded.warnings[0].contains("fifteen-letters"));
    assert!(load_here(None, &[("HOOKLEDGER__BALANCE__TOKEN", "sixteen-letters!")]).unwrap().warnings.is_empty());
}

#[test]
fn it_is_never_shown() {
    for variable in ["HOOKLEDGER__BALANCE__TOKEN", "NEW_API_ADMIN_TOKEN"] {
        let loaded = load_here(None, &[(variable, TOKEN)]).unwrap();
        let entry = loaded.report.entries.iter().find(|entry| entry.key == "balance.token").unwrap();
        assert_eq!(
            (entry.value.to_string(), &entry.origin),
            ("********".to_owned(), &format!("environment variable {variable}"))
        );
        let printed = format!("{loaded:?} {}", serde_json::to_string(&loaded.report).unwrap());
        assert!(!printed.contains(TOKEN), "{printed}");
    }
    let folder = Folder::new();
    let file = folder.file("hookledger.toml", &format!("balance.token = \"{TOKEN}\""), 0o644);
    let warnings = load_here(Some(&file), &[]).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("chmod 640"), "{warnings:?}");
}
