//! `hookledger status`: what it shows of channel, conditions, actors and backlog, and that it answers when they do not.

use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_api::asked_on_socket;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

const LAST_EVENT: &str = "hookledger_channel_last_event_timestamp_seconds";

fn with_user(options: DaemonOptions) -> Daemon {
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    daemon
}

/// Starts a daemon that is never ready.
fn started_disabled(mut daemon: Daemon) -> Daemon {
    daemon.set_environment("HOOKLEDGER__WEBHOOK__ENABLED", "false");
    daemon.launch();
    let answers = || daemon.command(&["status"]).status.success().then_some(());
    wait_until("it answers", PATIENCE, answers);
    daemon
}

fn usage(daemon: &Daemon, id: &str, token: i64) -> u16 {
    let clock = daemon.clock();
    daemon.post(Usage::new(id).remote_key(token).quota(700).at_secs(clock.now_secs()).json()).status
}

fn status(daemon: &Daemon) -> Value {
    daemon.command_json(&["status"])
}

/// Asks until the status is so.
#[track_caller]
fn status_when(daemon: &Daemon, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait_until(what, PATIENCE, || Some(status(daemon)).filter(|status| is_so(status)))
}

fn text(daemon: &Daemon, variables: &[(&str, &str)]) -> String {
    let output = daemon.command_with(&["status"], variables);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn actor<'a>(status: &'a Value, name: &str) -> &'a Value {
    let actors = status["actors"].as_array().expect("a list");
    actors.iter().find(|actor| actor["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

fn lines_with(daemon: &Daemon, words: &str) -> usize {
    daemon.output().stderr.lines().filter(|line| line.contains(words)).count()
}

#[track_caller]
fn assert_channel(daemon: &Daemon, state: &str) -> Value {
    let found = status_when(daemon, &format!("the channel is {state}"), |status| status["channel"]["state"] == state);
    for each in ["healthy", "idle", "stale", "disabled", "pull"] {
        let metric = format!("hookledger_channel_state{{state=\"{each}\"}}");
        let value = if each == state { 1.0 } else { 0.0 };
        wait_until(&format!("{metric} is {value}"), PATIENCE, || (daemon.metric(&metric) == Some(value)).then_some(()));
    }
    found
}

#[test]
fn a_program_and_a_person_see_how_the_daemon_does() {
    let daemon = with_user(DaemonOptions::new().movable_clock());
    assert_eq!(usage(&daemon, "e-1", 1), 200);
    assert_eq!(usage(&daemon, "e-2", 99), 200);
    let status = status_when(&daemon, "the waiting event is counted", |status| status["backlog"]["failed"] == 1);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], daemon.pid());
    assert!(status["startedAt"].as_str().unwrap().ends_with('Z') && status["uptimeSecs"].is_u64(), "{status}");
    assert_eq!(status["database"], json!({ "url": daemon.masked_database_url(), "writable": true, "problem": null }));
    assert_eq!(status["webhook"], json!({ "enabled": true, "ready": true, "whyNot": null }));
    assert_eq!(status["channel"]["state"], "healthy");
    assert_eq!(status["conditions"], json!([]));
    let names = ["supervisor", "logger", "ledger", "receiver", "scheduler"];
    assert_eq!(status["actors"].as_array().unwrap().len(), names.len());
    for name in names {
        let mut told = actor(&status, name).clone();
        assert!(told["progressAgeSecs"].take().as_u64().is_some_and(|age| age < 15), "{told}");
        let fresh = json!({ "name": name, "state": "running", "up": true, "progressAgeSecs": null, "hungThreads": 0,
            "restarts": 0, "restartsByCause": { "panic": 0, "error": 0, "hang": 0, "exit": 0 },
            "lastCause": null, "lastEndedAt": null, "lastError": null });
        assert_eq!(told, fresh);
    }
    let mut backlog = status["backlog"].clone();
    assert!(backlog["countedAt"].take().is_string());
    assert_eq!(
        backlog,
        json!({ "pending": 0, "failed": 1, "dead": 0, "oldestPendingAgeSecs": null, "parkedTokens": 1, "disputesOpen": 0, "refundsOpen": 0,
            "unpaidCredits": 0, "countedAt": null })
    );
    assert_eq!(
        status["listeners"],
        json!({ "server": daemon.address().to_string(), "metrics": daemon.metrics_address().to_string(),
            "adminSocket": daemon.admin_socket().display().to_string(), "adminOnServer": false })
    );
    assert_eq!(status["toDo"].as_array().unwrap().len(), 2, "a key is missing, and an event is not charged: {status}");

    let mut asked = asked_on_socket(&daemon, "GET", "/admin/v1/status", b"").json();
    let mut shown = self::status(&daemon);
    for document in [&mut asked, &mut shown] {
        document["uptimeSecs"] = json!(0);
        document["backlog"]["countedAt"] = json!(0);
        for actor in document["actors"].as_array_mut().unwrap() {
            actor["progressAgeSecs"] = json!(0);
        }
    }
    assert_eq!(shown, asked, "the same document");

    let text = text(&daemon, &[]);
    for word in
        ["ready", "healthy", "writable", "1 failed", "1 tokens without a key", "ledger", "hookledger key unmatched"]
    {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    assert!(text.lines().count() <= 24, "one screen:\n{text}");
}

#[test]
fn what_is_no_terminal_gets_no_escape_codes() {
    let daemon = started_disabled(Daemon::prepare(DaemonOptions::new().movable_clock()));
    for variables in [&[][..], &[("NO_COLOR", "1")], &[("TERM", "xterm-256color"), ("CLICOLOR_FORCE", "1")]] {
        let text = text(&daemon, variables);
        assert!(text.contains("not ready: Webhook is disabled") && !text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn without_a_daemon_the_socket_is_named() {
    let daemon = with_user(DaemonOptions::new());
    let socket = daemon.admin_socket().display().to_string();
    assert_eq!(daemon.terminate(), 0);
    for arguments in [&["status"][..], &["status", "--json"]] {
        let output = daemon.command(arguments);
        assert_eq!(output.status.code(), Some(1));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains("no daemon runs") && complaint.contains(&socket), "{complaint}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn an_actor_that_died_is_seen_with_its_cause() {
    let points = "ledger.batch.before=1*panic(boom of a test)";
    let daemon = with_user(DaemonOptions::new().movable_clock().fail_points(points));
    assert_eq!(usage(&daemon, "e-1", 1), 202, "recorded, since the ledger died");
    let status = status_when(&daemon, "the ledger was replaced", |status| {
        let ledger = actor(status, "ledger");
        ledger["restarts"] == 1 && ledger["up"] == true
    });
    let ledger = actor(&status, "ledger");
    assert_eq!(ledger["restartsByCause"], json!({ "panic": 1, "error": 0, "hang": 0, "exit": 0 }));
    assert_eq!(ledger["lastCause"], "panic");
    assert!(ledger["lastEndedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(ledger["lastError"], "boom of a test");
    assert_eq!(actor(&status, "receiver")["restarts"], 0);
    assert!(text(&daemon, &[]).contains("panic (boom of a test)"));
}

#[test]
fn a_blocked_writer_does_not_hold_it_up_and_is_told() {
    let daemon = with_user(DaemonOptions::new().movable_clock().set("HOOKLEDGER__DATABASE__LOCK_WAIT", "500ms"));
    let lock = daemon.books().hold_writers();
    assert_eq!(usage(&daemon, "e-1", 1), 503);
    let status = status_when(&daemon, "the reason is known", |status| {
        status["database"]["problem"].as_str().is_some_and(|problem| problem.contains("locked"))
    });
    assert_eq!(status["database"]["writable"], false);
    assert_eq!(status["webhook"]["ready"], false);
    assert_eq!(status["webhook"]["whyNot"], daemon.get("/readyz").json()["message"], "the same words as /readyz");
    assert!(!status["toDo"].as_array().unwrap().is_empty());
    drop(lock);
    let status = status_when(&daemon, "it writes again", |status| status["database"]["writable"] == true);
    assert_eq!(status["database"]["problem"], Value::Null);
}

#[test]
fn actors_that_hang_do_not_hold_it_up() {
    let points = "ledger.handle=pause;logger.handle=pause;scheduler.wake=pause";
    let unseen = DaemonOptions::new().set("HOOKLEDGER__SUPERVISOR__HANG_TIMEOUT", "1h");
    let daemon = with_user(unseen.movable_clock().fail_points(points));
    let mut connection = daemon.connection();
    connection.send(&daemon.signed_request(Usage::new("e-1").remote_key(1).quota(700).json())).unwrap();
    // The receiver has had the event, so the ledger hangs on it by now or soon.
    let status = status_when(&daemon, "the event came in", |status| status["channel"]["lastEventAt"].is_string());
    assert_eq!(status["backlog"], Value::Null, "nobody has counted it");
    assert!(text(&daemon, &[]).contains("not counted yet"));
}

#[test]
fn the_channel_is_healthy_while_events_come_and_remembers_the_last_over_a_restart() {
    let daemon = with_user(DaemonOptions::new().movable_clock());
    let fresh = assert_channel(&daemon, "idle");
    assert_eq!(fresh["channel"]["lastEventAt"], Value::Null);
    assert_eq!(daemon.metric(LAST_EVENT), None, "an alert on its age has nothing to be wrong about");
    daemon.post_with(&[], Usage::new("forged").quota(1).json());
    assert_channel(&daemon, "idle");

    let before = daemon.clock().now_secs();
    assert_eq!(usage(&daemon, "e-1", 1), 200);
    let healthy = assert_channel(&daemon, "healthy");
    let last = daemon.metric(LAST_EVENT).unwrap() as i64;
    assert!((before..=daemon.clock().now_secs()).contains(&last), "{last}");
    assert!(healthy["channel"]["lastEventAt"].is_string());

    daemon.restart();
    let restarted = assert_channel(&daemon, "healthy");
    let again = daemon.metric(LAST_EVENT).unwrap() as i64;
    assert!((last..=last + 5).contains(&again), "{last} {again}");
    assert!(restarted["channel"]["lastEventAt"].is_string());

    daemon.clock().advance(Duration::from_secs(601));
    let idle = assert_channel(&daemon, "idle");
    assert_eq!(idle["channel"]["lastEventAt"], restarted["channel"]["lastEventAt"]);
    assert_eq!(lines_with(&daemon, "\"state\":\"idle\""), 2, "each change is logged once: at the first start, and now");
    assert_eq!(lines_with(&daemon, "\"state\":\"healthy\""), 2);

    daemon.kill();
    let daemon = started_disabled(daemon);
    let disabled = assert_channel(&daemon, "disabled");
    assert_eq!(disabled["webhook"], json!({ "enabled": false, "ready": false, "whyNot": "Webhook is disabled" }));
}

#[test]
fn a_reload_disables_the_channel_and_enables_it_again() {
    let daemon = Daemon::prepare(DaemonOptions::new().config_file());
    daemon.write_config("");
    daemon.launch();
    daemon.wait_ready();
    for (text, state) in [("", "idle"), ("webhook.enabled = false", "disabled"), ("webhook.enabled = true", "idle")] {
        daemon.write_config(text);
        assert!(daemon.reload(), "refused: {}", daemon.output().stderr);
        assert_channel(&daemon, state);
    }
}

#[test]
fn an_event_that_waits_for_a_key_is_remembered_over_a_restart_too() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    assert_eq!(usage(&daemon, "e-1", 99), 200);
    let last = daemon.metric(LAST_EVENT).unwrap();
    daemon.kill();
    daemon.restart();
    assert_channel(&daemon, "healthy");
    assert!((daemon.metric(LAST_EVENT).unwrap() - last).abs() <= 5.0);
}

#[test]
fn tokens_of_several_users_are_a_condition_until_one_has_them() {
    const METRIC: &str = "hookledger_source_condition{condition=\"ambiguous_key\"}";
    let daemon = with_user(DaemonOptions::new().movable_clock());
    daemon.add_user("other@example.com", 10);
    assert_eq!(daemon.metric(METRIC), Some(0.0), "known from the start");
    for token in 1..=7 {
        for user in ["user@example.com", "other@example.com"] {
            let id = daemon.books().scalar_text(&format!("SELECT id FROM users WHERE email = '{user}'"));
            daemon.books().insert_key(&format!("k-{token}-{user}"), &id, &token.to_string(), "ACTIVE");
        }
        assert_eq!(usage(&daemon, &format!("e-{token}"), token), 200);
        if token == 1 {
            let status = status_when(&daemon, "the condition holds", |status| status["conditions"][0].is_object());
            let condition = &status["conditions"][0];
            assert_eq!(condition["name"], "ambiguous_key");
            let message = condition["message"].as_str().unwrap();
            assert!(message.ends_with(": 1 (other@example.com, user@example.com)"), "{message}");
            assert_eq!(daemon.metric(METRIC), Some(1.0));
            assert_eq!(lines_with(&daemon, message), 1, "logged once");
            assert!(text(&daemon, &[]).contains("ambiguous_key since"));
        }
    }
    let more = status_when(&daemon, "five are named", |status| {
        status["conditions"][0]["message"].as_str().is_some_and(|message| message.ends_with("and more"))
    });
    let condition = &more["conditions"][0];
    assert!(condition["message"].as_str().unwrap().contains("5 (") && condition["firstSeen"] != condition["lastSeen"]);
    assert!(!condition["message"].as_str().unwrap().contains("6 ("), "{condition}");

    daemon.books().execute("DELETE FROM api_keys WHERE id LIKE 'k-%-other@example.com'");
    daemon.clock().advance(Duration::from_secs(61));
    status_when(&daemon, "it is over", |status| status["conditions"] == json!([]));
    assert_eq!(daemon.metric(METRIC), Some(0.0));
    assert_eq!(daemon.books().scalar_i64("SELECT COUNT(*) FROM hookledger_claims"), 7, "what waited was charged");
}

#[test]
fn a_rate_that_is_none_is_told_with_what_to_do() {
    let daemon = with_user(DaemonOptions::new().movable_clock());
    daemon.books().set_option("UsdToCreditsRate", "abc");
    let status =
        status_when(&daemon, "the condition holds", |status| status["conditions"][0]["name"] == "rate_invalid");
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert!(message.contains("\"abc\""), "{message}");
    assert!(status["toDo"][0].as_str().unwrap().contains("UsdToCreditsRate"), "{status}");
}
