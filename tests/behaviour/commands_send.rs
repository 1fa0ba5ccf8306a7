//! `send`: signs as the real sender does, says what came back, and ends with 1 where that was no success.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};

use super::{Ran, fine, json_of, ran, without_secret};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;

const PROCESSED: &str = "Event processed successfully";
const REPEATED: &str = "Event already processed (idempotent)";

/// A daemon with one user of 1,000 credits, who has the token 1.
fn with_user(options: DaemonOptions) -> (Daemon, String) {
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    (daemon, user)
}

/// The JSON of a run and its exit code.
#[track_caller]
fn sent(daemon: &Daemon, arguments: &[&str]) -> (Value, i32) {
    let ran = ran(daemon, &[&["send"], arguments, &["--json"]].concat(), &[]);
    (json_of(&ran), ran.code)
}

fn outcomes(pairs: &[(String, u64)]) -> Value {
    json!(pairs.iter().cloned().collect::<BTreeMap<_, _>>())
}

#[test]
fn a_ping_proves_the_path_and_charges_nobody() {
    let (daemon, user) = with_user(DaemonOptions::new());
    let (answer, code) = sent(&daemon, &["--ping"]);
    assert_eq!((&answer["status"], &answer["message"], code), (&json!(200), &json!("Webhook is working"), 0));
    let event_id = answer["eventId"].as_str().expect("the event's id");
    assert_eq!(daemon.books().inbox(event_id), Some(("processed".to_owned(), None)));
    assert!(fine(&daemon, &["send", "--ping"]).contains("Webhook is working"));
    assert_eq!((daemon.books().balance(&user), daemon.books().count("usage_records")), (1000, 0));
}

#[test]
fn an_event_is_charged_at_the_price_that_was_named() {
    let (daemon, user) = with_user(DaemonOptions::new());
    let cases: &[(&[&str], i64)] = &[
        (&["--quota", "1830"], 997),
        (&["--cost", "0.00034"], 996), // with the remainder of 0.66, a credit more
        (&["--credit-cost", "12"], 984),
        (&["--quota", "0"], 984),
        (&["--quota", "500", "--model", "通义 \"max\"", "--prompt-tokens", "7", "--completion-tokens", "0"], 983),
    ];
    for (arguments, balance) in cases {
        let (answer, code) = sent(&daemon, &[&["--remote-key-id", "1"], *arguments].concat());
        assert_eq!(
            (&answer["message"], &answer["success"], code),
            (&json!(PROCESSED), &json!(true), 0),
            "{arguments:?}"
        );
        assert_eq!(daemon.books().balance(&user), *balance, "after {arguments:?}");
    }
    let rows =
        daemon.books().rows("SELECT model, promptTokens, completionTokens FROM usage_records ORDER BY id DESC LIMIT 1");
    assert_eq!(json!(rows), json!([{ "model": "通义 \"max\"", "promptTokens": 7, "completionTokens": 0 }]));
    let text = fine(&daemon, &["send", "--remote-key-id", "1", "--quota", "500"]);
    assert!(text.contains(PROCESSED) && text.contains("200"), "{text}");
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn many_at_once_with_repeats_are_charged_once_each() {
    let (daemon, user) = with_user(DaemonOptions::new().answers_late());
    let many = ["--remote-key-id", "1", "--quota", "500", "--count", "200", "--concurrency", "8", "--repeat", "2"];
    let (summary, code) = sent(&daemon, &many);
    let expected = outcomes(&[(format!("200 {PROCESSED}"), 200), (format!("200 {REPEATED}"), 200)]);
    assert_eq!((&summary["outcomes"], &summary["sent"], &summary["ok"]), (&expected, &json!(400), &json!(400)));
    assert_eq!((code, &summary["retried"]), (0, &json!(0)));
    let latency = &summary["latencyMs"];
    let of = |name: &str| latency[name].as_f64().unwrap_or_else(|| panic!("no {name} in {summary}"));
    assert!(0.0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"), "{latency}");
    assert!(summary["perSecond"].as_f64().unwrap() > 0.0 && summary["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!((daemon.books().balance(&user), daemon.books().count("hookledger_claims")), (800, 200));
    let text = fine(&daemon, &[&["send"], &many[..]].concat());
    assert!(text.contains("400 sent") && text.contains(PROCESSED) && text.contains("p99"), "{text}");
    daemon.books().assert_whole();
}

#[test]
fn one_event_id_is_charged_once_and_contradicted_with_409() {
    let (daemon, user) = with_user(DaemonOptions::new());
    let same = ["--remote-key-id", "1", "--quota", "500", "--event-id", "my id 1"];
    let (first, code) = sent(&daemon, &same);
    assert_eq!((&first["message"], &first["eventId"], code), (&json!(PROCESSED), &json!("my id 1"), 0));
    let other = ["--remote-key-id", "1", "--quota", "1000", "--event-id", "my id 1"];
    let (conflict, code) = sent(&daemon, &other);
    assert_eq!((&conflict["status"], &conflict["success"], code), (&json!(409), &json!(false), 1));
    assert_eq!(daemon.books().balance(&user), 999);
}

#[test]
fn what_is_not_charged_ends_with_1() {
    let (daemon, _) = with_user(DaemonOptions::new());
    let (answer, code) = sent(&daemon, &["--remote-key-id", "77", "--quota", "500"]);
    let expected = json!("API Key not found for remoteKeyId: 77");
    assert_eq!((&answer["message"], &answer["status"], code), (&expected, &json!(200), 1));
    let Ran { code, stdout, stderr } = ran(&daemon, &["send", "--remote-key-id", "77", "--quota", "500"], &[]);
    assert!(code == 1 && stdout.contains("API Key not found for remoteKeyId: 77"), "{stdout}");
    assert!(stderr.contains("hookledger key add"), "and what to do: {stderr}");
    let summary = sent(&daemon, &["--remote-key-id", "77", "--count", "5"]);
    assert_eq!((&summary.0["sent"], &summary.0["ok"], summary.1), (&json!(5), &json!(0), 1));
}

#[test]
fn nobody_there_ends_with_1() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let address = daemon.address().to_string();
    let complaint = super::failing(&daemon, &["send", "--ping"], 1);
    assert!(complaint.contains(&address) && complaint.contains("refused"), "{complaint}");
    let (answer, code) = sent(&daemon, &["--ping"]);
    assert_eq!((&answer["status"], &answer["success"], code), (&json!(null), &json!(false), 1));
    let (summary, code) = sent(&daemon, &["--remote-key-id", "1", "--count", "4", "--concurrency", "2"]);
    assert_eq!((&summary["sent"], &summary["ok"], code), (&json!(4), &json!(0), 1));
    assert_eq!(summary["outcomes"], outcomes(&[("no answer: connection refused".to_owned(), 4)]));
}

#[test]
fn another_secret_is_refused_and_a_file_of_secrets_helps() {
    let (daemon, user) = with_user(DaemonOptions::new());
    let wrong = "another-secret-0123456789abcdef0123456789";
    let refused = ran(&daemon, &["send", "--ping"], &[("WEBHOOK_SECRET", wrong)]);
    assert!(refused.code == 1 && refused.stdout.contains("403 Invalid webhook signature"), "{refused:?}");
    assert!(refused.stderr.contains("--secret-file"), "{refused:?}");
    let file = daemon.folder().join("secrets");
    fs::write(&file, format!("# the daemon's\n\n{}\n", crate::kit::daemon::SECRET)).unwrap();
    let file = file.display().to_string();
    let arguments = ["send", "--remote-key-id", "1", "--quota", "500", "--secret-file", &file];
    let accepted = ran(&daemon, &arguments, &[("WEBHOOK_SECRET", wrong)]);
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!(daemon.books().balance(&user), 999);
    let missing = ran(&daemon, &["send", "--ping", "--secret-file", "/nonexistent/secret"], &[]);
    assert!(missing.code == 2 && missing.stderr.contains("/nonexistent/secret"), "{missing:?}");
}

#[test]
fn without_a_secret_there_is_nothing_to_sign_with() {
    let daemon = Daemon::prepare(without_secret());
    let complaint = super::failing(&daemon, &["send", "--ping"], 2);
    // The file that a start makes beside the embedded database, or the setting that a server asks for.
    let wanted = if is_sqlite() { "webhook-secret" } else { "webhook.secrets" };
    assert!(complaint.contains(wanted), "{complaint}");
    assert_eq!(fs::read_dir(daemon.folder()).unwrap().count(), 0, "none is made: the daemon would not know it");
}

#[test]
fn the_path_and_the_url_are_those_of_the_configuration() {
    let (daemon, _) = with_user(DaemonOptions::new().set("HOOKLEDGER__SERVER__WEBHOOK_PATH", "/hooks/new-api"));
    assert_eq!(sent(&daemon, &["--ping"]).1, 0);
    let wrong = format!("http://{}/api/webhooks/events", daemon.address());
    let (answer, code) = sent(&daemon, &["--ping", "--url", &wrong]);
    assert_eq!((&answer["status"], code), (&json!(404), 1));
    let right = format!("http://{}/hooks/new-api/events", daemon.address());
    assert_eq!(sent(&daemon, &["--ping", "--url", &right]).1, 0);
}
