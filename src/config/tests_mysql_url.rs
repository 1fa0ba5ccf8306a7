//! URLs of MySQL and MariaDB: what each part means, what is refused and why, and that no password is ever shown.

use std::path::Path;

use secrecy::ExposeSecret;

use super::tests::{SECRET, entry_of, load_here};
use super::tests_problems::problems_of;
use super::{DatabaseUrl, Loaded, MysqlUrl};

const HIDDEN: &str = "hunter2";

/// What is loaded with a URL of the guide's variable.
pub(super) fn load_url(url: &str) -> Loaded {
    load_here(None, &[("WEBHOOK_SECRET", SECRET), ("DATABASE_URL", url)])
        .unwrap_or_else(|error| panic!("{url}: {error}"))
}

pub(super) fn url_of(loaded: &Loaded) -> &MysqlUrl {
    match &loaded.settings.database.url {
        DatabaseUrl::Mysql(url) => url,
        DatabaseUrl::Sqlite(path) => panic!("the embedded database {path:?}"),
    }
}

pub(super) fn password_of(loaded: &Loaded) -> Option<&str> {
    url_of(loaded).password.as_ref().map(ExposeSecret::expose_secret)
}

#[test]
fn each_part_is_understood() {
    for (url, user, password, host, port, database) in [
        ("mysql://ledger:pw@db.example:3307/letaicode", "ledger", Some("pw"), "db.example", 3307, "letaicode"),
        ("MariaDB://ledger@127.0.0.1/let-ai_code", "ledger", None, "127.0.0.1", 3306, "let-ai_code"),
        ("mysql://ledger:@mysql/books", "ledger", None, "mysql", 3306, "books"),
        (
            "mysql://led%40ger:p%40s%3As%2Fw%C3%B6rd+@[::1]:3306/b%C3%BCcher",
            "led@ger",
            Some("p@s:s/wörd+"),
            "::1",
            3306,
            "bücher",
        ),
        ("mysql://a:100%@[2001:db8::7]/books", "a", Some("100%"), "2001:db8::7", 3306, "books"),
        ("mysql://a:b@c:d@db/books", "a", Some("b@c:d"), "db", 3306, "books"),
    ] {
        let loaded = load_url(url);
        let found = url_of(&loaded);
        assert_eq!((found.user.as_str(), password_of(&loaded)), (user, password), "{url}");
        assert_eq!((found.host.as_str(), found.port, found.database.as_str()), (host, port, database), "{url}");
        assert_eq!(found.socket, None);
    }
}

#[test]
fn a_socket_is_the_one_parameter() {
    for (url, host, shown) in [
        (
            "mysql://root@localhost/books?socket=/run/mysqld/mysqld.sock",
            "localhost",
            "mysql://root@localhost/books?socket=/run/mysqld/mysqld.sock",
        ),
        (
            "mysql://root:hunter2@db.example/books?socket=%2Frun%2Fs",
            "db.example",
            "mysql://root:***@db.example/books?socket=/run/s",
        ),
    ] {
        let loaded = load_url(url);
        let found = url_of(&loaded);
        assert_eq!(found.host, host);
        assert!(found.socket.as_ref().is_some_and(|socket| socket.starts_with("/run")), "{found:?}");
        assert_eq!(found.to_string(), shown);
        assert_eq!(loaded.warnings, Vec::<String>::new(), "what goes through a socket stays on this machine");
    }
}

#[test]
fn other_parameters_are_refused_by_name_and_the_right_key() {
    for (parameters, message) in [
        ("ssl-mode=REQUIRED", "ssl-mode (use database.tls)"),
        ("sslaccept=strict&sslcert=/ca.pem", "sslaccept (use database.tls), sslcert (use database.ca_file)"),
        ("connection_limit=5&pool_timeout=2", "connection_limit (use database.max_connections), pool_timeout"),
        ("socket=/s&ssl_ca=/ca.pem", "ssl_ca (use database.ca_file)"),
        ("Socket=/s", "remove: Socket"),
        ("hunter2%20x=1&hunter2%20y", "remove: one without a plain name"),
    ] {
        let problems = problems_of(&format!("database.url = \"mysql://root:hunter2@db/books?{parameters}\""));
        assert!(problems.starts_with("database.url (") && problems.contains(message), "{parameters}: {problems}");
        assert!(!problems.contains(HIDDEN), "{problems}");
    }
}

#[test]
fn letaicodes_own_url_is_taken_as_it_is() {
    let loaded =
        load_url("mysql://user:pass@mysql:3306/letaicode?connection_limit=5&sslaccept=strict&connection_limit=6");
    assert_eq!((url_of(&loaded).host.as_str(), password_of(&loaded)), ("mysql", Some("pass")));
    let told: Vec<&String> = loaded.warnings.iter().filter(|warning| warning.contains("DATABASE_URL")).collect();
    assert_eq!(
        told,
        ["DATABASE_URL has parameters that have no effect here: connection_limit (use database.max_connections), \
          sslaccept (use database.tls)"]
    );
    let own = [("WEBHOOK_SECRET", SECRET), ("HOOKLEDGER__DATABASE__URL", "mysql://u@mysql/books?connection_limit=5")];
    let problems = load_here(None, &own).unwrap_err().to_string();
    assert!(problems.contains("HOOKLEDGER__DATABASE__URL") && problems.contains("connection_limit"), "{problems}");
}

#[test]
fn what_cannot_be_one_is_refused_and_not_repeated() {
    let long = format!("mysql://root:hunter2@db/{}", "b".repeat(65));
    let deep = format!("mysql://root:hunter2@db/books?socket=/{}", "s".repeat(107));
    for (url, message) in [
        ("mysql://root:hunter2@db", "must name one database"),
        ("mysql://root:hunter2@db/", "must name one database"),
        ("mysql://root:hunter2@db/a/b", "must name one database"),
        ("mysql://root:hunter2@db/a%60b", "without backticks"),
        (long.as_str(), "at most 64 characters"),
        ("mysql://root:hunter2@db/MySQL", "not one of the server's own"),
        ("mysql://db/books", "must name the user"),
        ("mysql://:hunter2@db/books", "must name the user"),
        ("mysql:///books", "must name the host"),
        ("mysql://root:hunter2@/books", "must name the host"),
        ("mysql://root:hunter2@%2Frun%2Fmysqld.sock/books", "a socket is written ?socket=/path"),
        ("mysql://root:hunter2@::1/books", "an IPv6 address in brackets"),
        ("mysql://root:hunter2@[::g]/books", "in brackets"),
        ("mysql://root:hunter2@db:0/books", "between 1 and 65535"),
        ("mysql://root:hunter2@db:65536/books", "a port that is a number"),
        ("mysql://root:hunter2/x@db/books", "are written %2F, %3F, %23 and %40"),
        ("mysql://root:12/hunter2@db/books", "are written %2F, %3F, %23 and %40"),
        ("mysql://root:12?hunter2@db/books", "are written %2F, %3F, %23 and %40"),
        ("mysql://root:12#hunter2@db/books", "are written %2F, %3F, %23 and %40"),
        ("mysql://root:hunter2@db/books#x", "are written %2F, %3F, %23 and %40"),
        ("mysql://root:hunter2 @db/books", "without spaces"),
        ("mysql://root:hunter2%00@db/books", "a password without control characters"),
        ("mysql://root:hunter2%FF@db/books", "a password whose escapes"),
        ("mysql://root:hunter2@db/books?socket=mysqld.sock", "it begins with `/`"),
        ("mysql://root:hunter2@db/books?socket=", "it begins with `/`"),
        (deep.as_str(), "at most 107 bytes"),
    ] {
        let variables = [("WEBHOOK_SECRET", SECRET), ("DATABASE_URL", url)];
        let problems = load_here(None, &variables).map(|_| url).unwrap_err().to_string();
        let is_told = problems.starts_with("database.url (environment variable DATABASE_URL): must ");
        assert!(is_told && problems.contains(message), "{url}: {problems}");
        assert!(!problems.contains(HIDDEN) && problems.lines().count() == 1, "{problems}");
    }
}

#[test]
fn its_password_is_never_shown() {
    let loaded = load_url("mysql://r%C3%B6ot:hunter2@[::1]/books%20a");
    assert_eq!(loaded.settings.database.url.to_string(), "mysql://r%C3%B6ot:***@[::1]:3306/books%20a");
    let shown = entry_of(&loaded, "database.url");
    assert_eq!(shown.value.to_string(), "mysql://r%C3%B6ot:***@[::1]:3306/books%20a");
    let printed = format!("{loaded:?} {}", serde_json::to_string(&loaded.report).unwrap());
    assert!(!printed.contains(HIDDEN), "{printed}");
    assert_eq!(password_of(&loaded), Some(HIDDEN));
}

#[test]
fn the_state_folder_lies_in_the_working_folder() {
    let loaded = load_url("mysql://root@localhost/books");
    let folder = std::env::current_dir().unwrap().join("hookledger-data");
    assert_eq!(loaded.settings.database.url.state_folder(), folder);
    assert_eq!(loaded.settings.admin.socket, folder.join("admin.sock"));
    assert_eq!(loaded.settings.database.url.sqlite_path(), None::<&Path>);
}
