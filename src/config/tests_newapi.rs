//! Where new-api is and who asks there: what is accepted, what is refused, where it may come from.

use secrecy::ExposeSecret;

use super::tests::{Folder, entry_of, load_here};
use super::tests_problems::{problems_of, warnings_of};
use super::{Loaded, NewApiAccess};

const TOKEN: &str = "an-administrators-access-token";
const URL: &str = "http://127.0.0.1:3000";

fn access_of(loaded: &Loaded) -> &NewApiAccess {
    loaded.settings.newapi.access.as_ref().unwrap()
}

fn token_of(loaded: &Loaded) -> &str {
    access_of(loaded).access_token.expose_secret()
}

/// TOML with this address and everything that it needs.
fn with_url(url: &str) -> String {
    format!("[newapi]\nbase_url = \"{url}\"\naccess_token = \"{TOKEN}\"\nuser_id = 1\n")
}

#[test]
fn the_names_of_the_guide_are_enough() {
    let guide = [("NEW_API_BASE_URL", URL), ("NEW_API_ADMIN_TOKEN", TOKEN), ("NEW_API_USER_ID", "7")];
    let loaded = load_here(None, &guide).unwrap();
    let access = access_of(&loaded);
    assert_eq!((access.base_url.as_str(), token_of(&loaded), access.user_id), ("http://127.0.0.1:3000/", TOKEN, 7));
    assert_eq!(entry_of(&loaded, "newapi.user_id").origin, "environment variable NEW_API_USER_ID");
    let balance = loaded.settings.balance.token.as_ref().unwrap();
    assert_eq!(balance.expose_secret(), TOKEN, "the same token opens the balance question");
}

#[test]
fn the_token_follows_the_order_of_the_layers_with_its_twin() {
    let folder = Folder::new();
    let filed = folder.file("token", "token-of-the-file", 0o600).display().to_string();
    let rest = format!("[newapi]\nbase_url = \"{URL}\"\nuser_id = 1\n");
    let with_file = folder.file("a.toml", &format!("{rest}access_token_file = \"{filed}\""), 0o600);
    let with_token = folder.file("b.toml", &format!("{rest}access_token = \"token-below\""), 0o600);
    let without = folder.file("c.toml", &rest, 0o600);
    let guide = ("NEW_API_ADMIN_TOKEN", TOKEN);
    let own = ("HOOKLEDGER__NEWAPI__ACCESS_TOKEN", "token-of-its-own-variable");
    let own_file = ("HOOKLEDGER__NEWAPI__ACCESS_TOKEN_FILE", filed.as_str());
    for (file, environment, token) in [
        (&with_file, vec![], "token-of-the-file"),
        (&with_token, vec![], "token-below"),
        (&with_file, vec![guide], TOKEN),
        (&with_token, vec![guide], TOKEN),
        (&without, vec![guide, own], "token-of-its-own-variable"),
        (&without, vec![guide, own_file], "token-of-the-file"),
    ] {
        let loaded = load_here(Some(file), &environment).unwrap();
        assert_eq!(token_of(&loaded), token, "{} {environment:?}", file.display());
    }
    let both = load_here(Some(&with_file), &[own]).unwrap_err().to_string();
    assert!(both.contains("newapi.access_token_file") && both.contains("keep one of the two"), "{both}");
}

#[test]
fn an_address_alone_is_told_all_that_it_needs() {
    let problems = problems_of(&format!("newapi.base_url = \"{URL}\""));
    assert_eq!(problems.lines().count(), 2, "{problems}");
    assert!(problems.contains("newapi.access_token (default): must be set") && problems.contains("console"));
    assert!(problems.contains("newapi.user_id (default): must be set"), "{problems}");
    assert_eq!(problems_of(&format!("newapi.access_token = \"{TOKEN}\"\nnewapi.user_id = 1")), "", "no use yet");
}

#[test]
fn an_address_is_http_and_nothing_but_an_address() {
    for (url, message) in [
        ("127.0.0.1:3000", "must be a URL such as http://127.0.0.1:3000"),
        ("new-api:3000", "must begin with http:// or https://; got new-api:"),
        ("ftp://new-api", "must begin with http:// or https://; got ftp:"),
        ("http://", "must be a URL"),
        ("http://root:hunter2@new-api:3000", "must hold no name and no password"),
        ("http://root@new-api:3000", "must hold no name and no password"),
        ("http://new-api:3000/?a=1", "must end with its path"),
        ("http://new-api:3000/#log", "must end with its path"),
        ("http://new-api:3000/api/", "without /api at its end"),
    ] {
        let problems = problems_of(&with_url(url));
        assert!(problems.contains("newapi.base_url") && problems.contains(message), "{url}: {problems}");
        assert!(problems.lines().count() == 1 && !problems.contains("hunter2"), "{url}: {problems}");
    }
    for (url, read) in [
        ("https://api.example.com", "https://api.example.com/"),
        ("https://example.com/new-api//", "https://example.com/new-api"),
        ("http://[::1]:3000/", "http://[::1]:3000/"),
    ] {
        let folder = Folder::new();
        let loaded = load_here(Some(&folder.file("n.toml", &with_url(url), 0o600)), &[]).unwrap();
        assert_eq!(access_of(&loaded).base_url.as_str(), read);
    }
}

#[test]
fn a_token_in_the_clear_is_warned_of() {
    let near = ["https://api.example.com", "http://new-api:3000", "http://10.0.0.7", "http://host.docker.internal:1"];
    for url in near {
        assert_eq!(warnings_of(&with_url(url)), Vec::<String>::new());
    }
    for url in ["http://api.example.com", "http://192.0.2.7:3000", "http://[2001:db8::1]"] {
        let warnings = warnings_of(&with_url(url));
        assert!(warnings.len() == 1 && warnings[0].contains("in the clear"), "{url}: {warnings:?}");
    }
}

#[test]
fn values_outside_their_limits_are_refused() {
    for (text, message) in [
        ("newapi.page_size = 101", "between 1 and 100"),
        ("newapi.page_size = 0", "between 1 and 100"),
        ("newapi.timeout = \"0s\"", "between 1ms and 10m"),
        ("newapi.requests_per_second = -1", "between 0 and 1000"),
        ("newapi.requests_per_second = \"nan\"", "between 0 and 1000"),
        ("newapi.requests_per_second = true", "must be a number between"),
        ("newapi.requests_per_second = 0.001", "must be at least 0.01, or 0 for no limit; got 0.001"),
        ("newapi.max_retries = 21", "between 0 and 20"),
        ("newapi.user_id = 0", "between 1 and"),
        ("newapi.user_id = \"root\"", "must be a whole number"),
        ("newapi.group = \"\"", "leave the key out for all"),
        ("newapi.username = 5", "must be text in quotes"),
        ("newapi.source = \"a b\"", "letters, digits"),
        ("newapi.access_token = \" \"", "must not be empty"),
    ] {
        let problems = problems_of(text);
        assert!(problems.contains(message), "{text}: {problems:?}");
    }
    let problems = problems_of(&with_url(URL).replace(TOKEN, "tökens"));
    assert!(problems.contains("ASCII") && !problems.contains("tökens"), "{problems}");
}

#[test]
fn requests_per_second_may_be_a_fraction_or_off() {
    for (written, read) in [("0", None), ("1", Some("1")), ("0.5", Some("0.5")), ("\"2.25\"", Some("2.25"))] {
        let folder = Folder::new();
        let file = folder.file("n.toml", &format!("newapi.requests_per_second = {written}"), 0o600);
        let loaded = load_here(Some(&file), &[]).unwrap();
        let rate = loaded.settings.newapi.requests_per_second.map(|rate| rate.to_string());
        assert_eq!(rate.as_deref(), read, "{written}");
    }
}

#[test]
fn the_token_is_never_shown() {
    let guide = [("NEW_API_BASE_URL", URL), ("NEW_API_ADMIN_TOKEN", TOKEN), ("NEW_API_USER_ID", "1")];
    let loaded = load_here(None, &guide).unwrap();
    assert_eq!(entry_of(&loaded, "newapi.access_token").value.to_string(), "********");
    let printed = format!("{loaded:?} {}", serde_json::to_string(&loaded.report).unwrap());
    assert!(!printed.contains(TOKEN), "{printed}");
}
