//! The token of the admin routes: where it may come from, what is refused, and that it is never shown.

use secrecy::ExposeSecret;

use super::tests::{Folder, load_here};

const TOKEN: &str = "admin-token-of-32-characters-now";

#[test]
fn it_comes_from_the_configuration_or_a_file_of_its_own() {
    assert!(load_here(None, &[]).unwrap().settings.admin.token.is_none(), "closed unless somebody opens it");
    let folder = Folder::new();
    let own = folder.file("admin-token", &format!("{TOKEN}\n"), 0o600).display().to_string();
    for variable in [("HOOKLEDGER__ADMIN__TOKEN", TOKEN), ("HOOKLEDGER__ADMIN__TOKEN_FILE", &own)] {
        let loaded = load_here(None, &[variable]).unwrap();
        assert_eq!(loaded.settings.admin.token.as_ref().map(ExposeSecret::expose_secret), Some(TOKEN));
        let printed = format!("{loaded:?} {}", serde_json::to_string(&loaded.report).unwrap());
        assert!(!printed.contains(TOKEN), "{printed}");
    }
    let both = [("HOOKLEDGER__ADMIN__TOKEN", TOKEN), ("HOOKLEDGER__ADMIN__TOKEN_FILE", &own)];
    assert!(load_here(None, &both).unwrap_err().to_string().contains("keep one of the two"));
}

#[test]
fn one_that_could_be_guessed_is_refused_and_not_repeated() {
    let short = &TOKEN[1..];
    let folder = Folder::new();
    let own = folder.file("admin-token", short, 0o600).display().to_string();
    for (key, variable) in [
        ("admin.token ", ("HOOKLEDGER__ADMIN__TOKEN", short)),
        ("admin.token_file ", ("HOOKLEDGER__ADMIN__TOKEN_FILE", own.as_str())),
    ] {
        let problems = load_here(None, &[variable]).unwrap_err().to_string();
        assert!(problems.starts_with(key) && problems.contains("at least 32 characters"), "{problems}");
        assert!(!problems.contains(short), "{problems}");
    }
}

#[test]
fn the_balance_tokens_stand_in_does_not_open_it() {
    let loaded = load_here(None, &[("NEW_API_ADMIN_TOKEN", TOKEN)]).unwrap();
    assert!(loaded.settings.balance.token.is_some() && loaded.settings.admin.token.is_none());
}
