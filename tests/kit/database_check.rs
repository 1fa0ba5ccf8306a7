//! The kit's own servers and guests tried out, on any machine and whatever the suite is run on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::books::Books;
use super::database::Guest;
use super::mariadb::{Login, PrivateServer, shared_server};

fn text(printed: &std::process::Output) -> String {
    String::from_utf8_lossy(&printed.stdout).into_owned()
}

#[test]
fn the_address_of_a_server_is_read() {
    let login = Login::parse("mysql://some%40one:p%3Aq%2F%25@db.example.com:3307/");
    let parts = (login.user.as_str(), login.password.as_str(), login.host.as_str(), login.port);
    assert_eq!(parts, ("some@one", "p:q/%", "db.example.com", 3307));
    assert_eq!(login.of("u", "p").url("books"), "mysql://u:p@db.example.com:3307/books");
    assert_eq!(Login::parse("mysql://root@127.0.0.1").port, 3306);
    for wrong in ["sqlite://x", "mysql://127.0.0.1", "mysql://a:b@c:port", "mysql://%zz@c"] {
        assert!(std::panic::catch_unwind(|| Login::parse(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn a_server_is_durable_and_keeps_utf_8() {
    let guest = Guest::new(shared_server().admin());
    let setting = |name: &str| Books::of(&guest).rows(&format!("SELECT @@GLOBAL.{name} AS value"))[0]["value"].clone();
    assert_eq!(setting("innodb_flush_log_at_trx_commit"), json!(1));
    assert_eq!(setting("innodb_doublewrite"), json!(1));
    assert_eq!(setting("log_bin"), json!(0));
    assert_eq!(setting("collation_server"), json!("utf8mb4_unicode_ci"));
}

#[test]
fn a_killed_server_comes_back_with_what_was_committed_and_a_dropped_one_is_gone() {
    let server = PrivateServer::start();
    let guest = Guest::new(server.admin());
    let books = Books::of(&guest);
    books.insert_user("u", "u@example.com");
    server.kill();
    assert!(!server.admin().ask(None, "SELECT 1").status.success(), "it is gone");
    server.start_again();
    assert_eq!(books.scalar_text("SELECT id FROM users"), "u");
    server.stop();
    server.start_again();
    assert_eq!(books.count("users"), 1);
    drop(guest);
    let admin = server.admin().clone();
    drop(server);
    assert!(!admin.ask(None, "SELECT 1").status.success(), "its guard ended it");
}

#[test]
fn a_guest_may_do_what_a_guest_needs_and_nothing_else() {
    let guest = Guest::new(shared_server().admin());
    let platform = Some(guest.platform());
    let books = Books::of(&guest);
    books.insert_user("u", "u@example.com");
    books.insert_key("k", "u", "7", "ACTIVE");
    for allowed in [
        "SELECT id FROM users WHERE id IN ('u') ORDER BY id FOR UPDATE",
        "SELECT id FROM api_keys ORDER BY id FOR UPDATE SKIP LOCKED",
        "UPDATE api_keys SET lastUsedAt = CURRENT_TIMESTAMP(3)",
        "DELETE FROM webhook_logs",
        "UPDATE usage_records SET costUsd = 0, creditCost = 0",
        "SELECT value FROM options WHERE `key` = 'UsdToCreditsRate'",
    ] {
        guest.login().execute(platform, allowed);
    }
    let state = guest.state();
    guest.login().execute(platform, &format!("CREATE DATABASE `{state}`; CREATE TABLE `{state}`.t (a INT)"));
    for forbidden in [
        "UPDATE users SET name = 'x'",
        "DELETE FROM users",
        "UPDATE api_keys SET userId = 'v'",
        "UPDATE usage_records SET model = 'x'",
        "DELETE FROM credit_transactions",
        "INSERT INTO options (`key`, value, updatedAt) VALUES ('a', 'b', CURRENT_TIMESTAMP(3))",
        "ALTER TABLE webhook_logs ADD COLUMN a INT",
        "CREATE TABLE t (a INT)",
        "CREATE DATABASE another",
        "SELECT * FROM mysql.user",
    ] {
        let output = guest.login().ask(platform, forbidden);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains("denied"), "{forbidden}: {complaint}{}", text(&output));
    }
}

#[test]
fn a_guest_leaves_nothing_behind() {
    let admin = shared_server().admin();
    let guest = Guest::new(admin);
    let names = (guest.platform().to_owned(), guest.state().to_owned());
    guest.login().execute(None, &format!("CREATE DATABASE `{}`", names.1));
    let left = || {
        let sql = format!(
            "SELECT schema_name FROM information_schema.schemata WHERE schema_name LIKE '{0}%';
             SELECT grantee FROM information_schema.table_privileges WHERE table_schema LIKE '{0}%'",
            names.0
        );
        text(&admin.ask(None, &sql)).matches("<row>").count()
    };
    assert!(left() > 2, "two schemas and the grants on tables");
    drop(guest);
    assert_eq!(left(), 0);
}

#[test]
fn books_on_a_server_are_read_and_written_from_outside() {
    let guest = Guest::new(shared_server().admin());
    let books = Books::of(&guest);
    books.execute(&format!("CREATE DATABASE `{}` COLLATE utf8mb4_bin", guest.state()));
    books.execute("CREATE TABLE hookledger_t (a BIGINT, b TEXT, c DATETIME(3), d DOUBLE, e DECIMAL(20, 0))");
    let odd = "it's <&\"> a\\b\n\r\t '' 额度 👩‍🚀 NULL </field>";
    books.execute(&format!(
        "INSERT INTO hookledger_t VALUES (-5, {}, '2026-11-24 02:31:00.123', 0.00366, 7), (2, NULL, NULL, NULL, NULL)",
        super::books::quoted(odd)
    ));
    let expected = json!([
        { "a": -5, "b": odd, "c": "2026-11-24 02:31:00.123", "d": 0.00366, "e": 7 },
        { "a": 2, "b": null, "c": null, "d": null, "e": null },
    ]);
    assert_eq!(json!(books.rows("SELECT * FROM hookledger_t ORDER BY a;")), expected);
    assert_eq!((books.scalar_i64("SELECT sum(a) FROM hookledger_t"), books.count("hookledger_t")), (-3, 2));
    assert_eq!(books.scalar_text("SELECT '7' || a FROM hookledger_t WHERE a = 2"), "72", "a text stays one");
    assert_eq!(books.rows("SELECT * FROM hookledger_t WHERE 0"), Vec::new());
    assert_eq!(
        json!(books.rows("SELECT count(*) > 1 AS found, 2 / 4 AS half FROM hookledger_t")),
        json!([{ "found": 1, "half": 0.5 }])
    );
    for wrong in ["SELECT nothing FROM users", "SELECT 1; SELECT 2", "DELETE FROM hookledger_t"] {
        let looked = std::panic::catch_unwind(|| books.rows(wrong));
        assert!(looked.is_err(), "{wrong}");
    }
    assert_eq!(books.count("hookledger_t"), 2, "a look changes nothing");
}

#[test]
fn a_platform_of_the_kit_fills_and_refuses_as_one() {
    let guest = Guest::new(shared_server().admin());
    let books = Books::of(&guest);
    books.insert_user("u", "u@example.com");
    books.insert_key("k", "u", "7", "DISABLED");
    books.insert_orphaned_key("o", "8");
    books.set_option("UsdToCreditsRate", "1");
    books.set_option("UsdToCreditsRate", "2000");
    assert_eq!(books.scalar_text("SELECT value FROM options"), "2000");
    assert_eq!(books.scalar_i64("SELECT count(*) FROM api_keys WHERE userId = 'nobody'"), 1);
    books.refuse_model("poison", "no poison here");
    let record = |model: &str| {
        format!(
            "INSERT INTO usage_records (id, apiKeyId, model, promptTokens, completionTokens, totalTokens, creditCost)
               VALUES ('{model}', 'k', '{model}', 1, 1, 2, 0)"
        )
    };
    books.execute(&record("m"));
    let refused = guest.login().ask(Some(guest.platform()), &record("poison"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no poison here"), "{refused:?}");
    let hold = books.hold_writers();
    let waited = format!("SET SESSION lock_wait_timeout = 1; {}", record("held"));
    assert!(!guest.login().ask(Some(guest.platform()), &waited).status.success(), "nobody writes");
    assert_eq!(books.count("usage_records"), 1, "everybody looks");
    drop(hold);
    guest.login().execute(Some(guest.platform()), &record("held"));
}

/// Each test that begins with this macro, by its file and name.
fn tests_beginning_with(mark: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/behaviour");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).expect("the suite is there").flatten() {
        let file = entry.path().file_stem().expect("a file has a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).expect("a file of the suite is a text");
        for (before, _) in text.match_indices(mark).map(|(at, _)| text.split_at(at)) {
            let (_, name) = before.rsplit_once("\nfn ").expect("it stands in a test");
            found.insert(format!("{file}: {}", name.split('(').next().unwrap_or_default()));
        }
    }
    found
}

#[test]
fn tests_that_do_not_run_everywhere_are_listed() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/TESTING.md")).expect("docs/TESTING.md");
    for (chapter, mark, counted) in [
        ("\n## About SQLite alone\n", "only_on_sqlite!()", "tests are about SQLite itself"),
        ("\n## About servers alone\n", "only_on_a_server!()", "tests are about servers"),
    ] {
        let chapter =
            page.split_once(chapter).expect("the chapter is there").1.split("\n## ").next().unwrap_or_default();
        let of_line = |line: &str| {
            let name = line.strip_prefix("- `")?.split_once('`')?.0;
            name.contains(": ").then(|| name.to_owned())
        };
        let listed: BTreeSet<String> = chapter.lines().filter_map(of_line).collect();
        assert_eq!(listed, tests_beginning_with(mark), "docs/TESTING.md lists what begins with {mark}");
        let count = format!("{} {counted}", listed.len());
        assert!(chapter.contains(&count), "docs/TESTING.md counts them: {count}");
    }
}
