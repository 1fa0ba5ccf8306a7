//! No secret, signature or token is ever shown, whatever goes wrong and however much is logged.

use std::fs;

use super::{Ran, fine, ran, without_secret};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::{Usage, notification, ping};
use crate::kit::sign::signature;
use crate::kit::wire::Response;

/// Everything that anybody could read, and everything that nobody may.
#[derive(Default)]
struct Watch {
    shown: Vec<(String, String)>,
    hidden: Vec<(String, String)>,
}

impl Watch {
    fn hide(&mut self, what: &str, text: &str) {
        self.hidden.push((what.to_owned(), text.to_lowercase()));
    }

    fn show(&mut self, place: impl Into<String>, text: &str) {
        self.shown.push((place.into(), text.to_lowercase()));
    }

    fn answer(&mut self, place: &str, answer: &Response) {
        self.show(format!("answer to {place}"), &answer.text());
    }

    fn run(&mut self, daemon: &Daemon, arguments: &[&str], variables: &[(&str, &str)]) -> i32 {
        let Ran { code, stdout, stderr } = ran(daemon, arguments, variables);
        self.show(format!("{arguments:?} with {code}"), &format!("{stdout}\n{stderr}"));
        code
    }

    fn daemon(&mut self, daemon: &Daemon) {
        let output = daemon.output();
        self.show("standard output of the daemon", &output.stdout);
        self.show("log of the daemon", &output.stderr);
    }

    #[track_caller]
    fn assert_nothing_shown(&self) {
        assert!(self.shown.len() > 5 && !self.hidden.is_empty(), "there was something to look through");
        for (what, secret) in &self.hidden {
            for (place, text) in &self.shown {
                assert!(!text.contains(secret), "{place} shows {what}: {text}");
            }
        }
    }
}

fn talkative(options: DaemonOptions) -> DaemonOptions {
    options.set("HOOKLEDGER__LOG__LEVEL", "trace")
}

/// Sends everything that can go right or wrong.
fn visit(daemon: &Daemon, watch: &mut Watch, secret: &str) {
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, 1);
    let bodies = [
        Usage::new("fine").quota(500).json(),
        Usage::new("unknown key").remote_key(9).quota(500).json(),
        Usage::new("too large").quota(i64::MAX).json(),
        Usage::new("expired").quota(1).at_secs(1_000_000_000).json(),
        Usage::new("no price").json(),
        Usage::new("wrong price").data_field("quota", "-1").json(),
        Usage::new("fine").quota(501).json(),
        ping("ping"),
        notification("quota_exceed"),
        r#"{"eventId":"x","eventType":"usage""#.to_owned(),
        "not json".to_owned(),
        "[]".to_owned(),
        String::new(),
    ];
    let mut signatures = Vec::new();
    for body in &bodies {
        let right = signature(secret, body.as_bytes());
        let wrong: String = right.chars().rev().collect();
        for (header, what) in [
            (right.clone(), "right"),
            (format!("sha256={right}"), "prefixed"),
            (wrong.clone(), "wrong"),
            (format!("{right}00"), "long"),
            ("no hex at all, secretly".to_owned(), "odd"),
        ] {
            let answer = daemon.post_with(&[("X-Webhook-Signature", &header)], body);
            watch.answer(what, &answer);
        }
        watch.answer("unsigned", &daemon.post_with(&[], body));
        signatures.extend([right, wrong]);
    }
    watch.hide("an odd signature", "no hex at all, secretly");
    for signature in signatures {
        watch.hide("a signature", &signature);
    }
    let token = [("Authorization", "Bearer token-of-somebody"), ("X-API-Key", "key-of-somebody")];
    watch.answer("a token", &daemon.post_with(&token, "{}"));
    watch.hide("a token", "token-of-somebody");
    watch.hide("a key", "key-of-somebody");
}

fn command_everything(daemon: &Daemon, watch: &mut Watch) {
    for arguments in [
        &["check-config"] as &[&str],
        &["check-config", "--json"],
        &["migrate"],
        &["user", "list", "--json"],
        &["key", "list", "--json"],
        &["credits", "show", "user@example.com"],
        &["events", "list"],
        &["events", "list", "--json"],
        &["events", "show", "fine"],
        &["events", "show", "too large", "--json"],
        &["send", "--ping"],
        &["send", "--ping", "--json"],
        &["send", "--remote-key-id", "1", "--count", "3", "--repeat", "2"],
        &["send", "--remote-key-id", "9"],
        &["send", "--ping", "--url", "http://127.0.0.1:1/"],
        &["serve", "--help"],
    ] {
        watch.run(daemon, arguments, &[]);
    }
}

#[test]
fn a_talkative_daemon_shows_no_secret() {
    let daemon = Daemon::start(talkative(DaemonOptions::new()));
    let mut watch = Watch::default();
    watch.hide("the secret", SECRET);
    visit(&daemon, &mut watch, SECRET);
    command_everything(&daemon, &mut watch);
    watch.show("metrics", &daemon.metrics());
    assert_eq!(daemon.terminate(), 0);
    watch.daemon(&daemon);
    let log = daemon.output().stderr;
    assert!(log.contains("\"DEBUG\"") || log.contains("\"TRACE\""), "it was talkative: {log}");
    watch.assert_nothing_shown();
}

#[test]
fn a_daemon_that_fails_everywhere_shows_no_secret() {
    let points = "ledger.batch.before=5%panic(boom)->20%return(error);store.record.written=20%return(error);receiver.handle=5%panic(boom)";
    let options = talkative(DaemonOptions::new()).fail_points(points).set("HOOKLEDGER__LOG__FORMAT", "text");
    let daemon = Daemon::start(options.set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", 1000));
    let mut watch = Watch::default();
    watch.hide("the secret", SECRET);
    visit(&daemon, &mut watch, SECRET);
    watch.show("metrics", &daemon.metrics());
    daemon.kill();
    watch.daemon(&daemon);
    watch.assert_nothing_shown();
}

#[test]
fn a_generated_secret_is_not_shown_either() {
    only_on_sqlite!();
    let daemon = Daemon::start(talkative(without_secret()));
    let secret = fs::read_to_string(daemon.folder().join("webhook-secret")).unwrap().trim_end().to_owned();
    let mut watch = Watch::default();
    watch.hide("the generated secret", &secret);
    visit(&daemon, &mut watch, &secret);
    command_everything(&daemon, &mut watch);
    assert_eq!(daemon.terminate(), 0);
    watch.daemon(&daemon);
    watch.assert_nothing_shown();
    let other = fine(&daemon, &["secret"]);
    assert_ne!(other, secret, "a new secret is a new one");
}

/// A variable, a secret in it that is wrong in some way.
const WRONG_VARIABLES: &[(&str, &str, &str)] = &[
    ("WEBHOOK_SECRET", "short-hush", "short-hush"),
    ("HOOKLEDGER__WEBHOOK__SECRETS", "hush-one-of-two,hush-two-of-two", "hush-"),
    ("HOOKLEDGER__WEBHOOK__SECRET", "hush-under-a-misspelt-name-0123456789", "hush-under"),
    ("HOOKLEDGER__DATABASE__URL", "mysql://root:hush-word@db.example.com/x", "hush-word"),
    ("HOOKLEDGER__DATABASE__URL", "mysql://root:12/hush-slash@db.example.com/x?ssl-mode=off", "hush-slash"),
    ("HOOKLEDGER__DATABASE__URL", "hush-scheme", "hush-scheme"),
    ("HOOKLEDGER__WEBHOOK__SECRETS_FILE", "{folder}/short-secrets", "hush-of-file"),
];

const WRONG_FILES: &[&str] = &[
    "[webhook]\nsecrets = \"hush-not-in-a-list-0123456789abcdef\"\n",
    "[webhook]\nsecrets = [\"hush-short\"]\n",
    "[webhook]\nsecrets = [\"hush-unfinished-0123456789abcdef\n",
    "[webhook]\nsecret = \"hush-misspelt-0123456789abcdef0123456789\"\n",
    "[webhok]\nsecrets = [\"hush-misplaced-0123456789abcdef0123456789\"]\n",
    "secrets = [\"hush-without-a-section-0123456789abcdef\"]\n",
    "[webhook]\nsecrets = [\"hush-twice-0123456789abcdef0123456789\"]\nsecrets = [\"hush-twice-0123456789abcdef0123456789\"]\n",
    "[webhook]\nsecrets = { hush-table = \"hush-value\" }\n",
    "[webhook]\nsecrets = hush-unquoted-0123456789abcdef0123456789\n",
    "[database]\nurl = \"postgres://root:hush-word@db/x\"\n",
    "[database]\npassword = [\"hush-in-a-list\"]\n",
];

#[test]
fn mistakes_in_the_configuration_show_no_secret() {
    let mut options = without_secret();
    options.without.push("HOOKLEDGER__DATABASE__URL".to_owned());
    let daemon = Daemon::prepare(options);
    fs::write(daemon.folder().join("short-secrets"), "hush-of-file\n").unwrap();
    let mut watch = Watch::default();
    for (variable, value, secret) in WRONG_VARIABLES {
        watch.hide(variable, secret);
        let value = value.replace("{folder}", &daemon.folder().display().to_string());
        for arguments in [&["check-config"] as &[&str], &["check-config", "--json"], &["serve"], &["send", "--ping"]] {
            assert_eq!(watch.run(&daemon, arguments, &[(variable, &value)]), 2, "{variable} {arguments:?}");
        }
    }
    let file = daemon.folder().join("wrong.toml").display().to_string();
    for text in WRONG_FILES {
        fs::write(&file, text).unwrap();
        for arguments in [&["check-config"] as &[&str], &["serve"]] {
            let arguments = [arguments, &["--config", &file]].concat();
            assert_eq!(watch.run(&daemon, &arguments, &[]), 2, "{text}");
        }
    }
    watch.hide("a part of any secret in a file", "hush-");
    watch.assert_nothing_shown();
}

#[test]
fn the_watch_sees_what_is_shown() {
    let mut options = DaemonOptions::new();
    options.arguments = vec!["--print-setup".to_owned()];
    let daemon = Daemon::start(options);
    assert_eq!(daemon.terminate(), 0);
    let mut watch = Watch::default();
    watch.hide("the secret", &SECRET.to_uppercase());
    (0..6).for_each(|_| watch.show("nothing", ""));
    watch.daemon(&daemon);
    let judged = std::panic::catch_unwind(|| watch.assert_nothing_shown());
    assert!(judged.is_err(), "--print-setup was asked for, and the watch must see it");
}
