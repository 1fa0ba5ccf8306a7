//! What a reload changes takes effect at once, in whatever part of the daemon goes by it.

use std::fs;

use serde_json::Value;

use super::status_signed;
use super::{NEW_SECRET, PATIENCE, credit, log_of, options, reload_with, secrets, started, started_with_customer};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, SECRET};
use crate::kit::events::Usage;
use crate::kit::sign::{EVENTS_PATH, signature};
use crate::kit::wait::wait_until;
use crate::kit::wire::{Response, http_request};

/// The file with the usual secret and this.
fn file(more: &str) -> String {
    format!("{}{more}\n", secrets(&[SECRET]))
}

#[track_caller]
fn posted_from(daemon: &Daemon, forwarded_for: &str, body: &str) -> Response {
    let signature = signature(SECRET, body.as_bytes());
    let headers = [("X-Webhook-Signature", &*signature), ("X-Forwarded-For", forwarded_for)];
    let request = http_request("POST", EVENTS_PATH, &headers, body.as_bytes());
    daemon.connection().request(&request).expect("an answer")
}

#[test]
fn a_disabled_channel_refuses_and_is_not_ready_until_it_is_enabled() {
    let (daemon, user) = started_with_customer(options(), &file(""));
    reload_with(&daemon, &file("webhook.enabled = false"));
    let refused = daemon.post(credit("off"));
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(daemon.get("/readyz").status, 503);
    assert!(daemon.get("/readyz").text().contains("disabled"));
    reload_with(&daemon, &file("webhook.enabled = true"));
    assert_eq!((daemon.post(credit("off")).status, daemon.get("/readyz").status), (200, 200));
    assert_eq!(daemon.books().balance(&user), 999_999);
}

#[test]
fn the_tolerance_of_timestamps_changes() {
    let (daemon, _) = started_with_customer(options(), &file(""));
    let old = || Usage::new("old").quota(500).at_secs(now_secs() - 7200).json();
    let early = || Usage::new("early").quota(500).at_secs(now_secs() + 1200).json();
    reload_with(&daemon, &file("webhook.max_age = \"1h\""));
    assert_eq!((daemon.post(old()).status, daemon.post(early()).status), (400, 400));
    reload_with(&daemon, &file("webhook.max_age = \"3h\"\nwebhook.max_future = \"1h\""));
    assert_eq!((daemon.post(old()).status, daemon.post(early()).status), (200, 200));
}

#[test]
fn rate_limits_change_at_once() {
    let few = "rate_limit.per_second = 1\nrate_limit.burst = 3";
    let (daemon, _) = started_with_customer(options(), &file(few));
    let statuses = |name: &str| -> Vec<u16> {
        (0..20).map(|number| daemon.post(credit(format!("{name}-{number}"))).status).collect()
    };
    assert!(statuses("few").contains(&429));
    reload_with(&daemon, &file("rate_limit.per_second = 1000\nrate_limit.burst = 1000"));
    assert!(statuses("many").iter().all(|status| *status == 200));
    reload_with(&daemon, &file("rate_limit.per_second = 0\nrate_limit.bad_burst = 2\nrate_limit.bad_per_second = 1"));
    assert!(statuses("all").iter().all(|status| *status == 200));
    let forged = |_| daemon.post_with(&[("X-Webhook-Signature", "00")], "{}").status;
    assert!((0..20).map(forged).any(|status| status == 429));
}

#[test]
fn who_may_send_and_whom_a_proxy_speaks_for_change() {
    let (daemon, _) = started_with_customer(options(), &file(""));
    reload_with(&daemon, &file("webhook.allow_sources = [\"192.0.2.7\"]"));
    assert_eq!(posted_from(&daemon, "192.0.2.7", &credit("stranger")).status, 403, "the proxy is not trusted");
    reload_with(&daemon, &file("webhook.allow_sources = [\"192.0.2.7\"]\nserver.trusted_proxies = [\"127.0.0.1\"]"));
    assert_eq!(posted_from(&daemon, "192.0.2.7", &credit("friend")).status, 200);
    assert_eq!(posted_from(&daemon, "192.0.2.8", &credit("stranger")).status, 403);
    reload_with(&daemon, &file(""));
    assert_eq!(posted_from(&daemon, "192.0.2.8", &credit("stranger")).status, 200);
}

#[test]
fn bodies_are_bounded_by_the_new_size_and_time() {
    let (daemon, _) = started_with_customer(options(), &file(""));
    reload_with(&daemon, &file("server.max_body_bytes = 1024\nserver.body_timeout = \"100ms\""));
    assert_eq!(daemon.post("x".repeat(1025)).status, 413);
    let mut slow = daemon.connection();
    let request = daemon.signed_request(credit("slow"));
    slow.send(&request[..request.len() - 10]).unwrap();
    assert_eq!(slow.read_response().unwrap().status, 408);
}

#[test]
fn the_next_answer_waits_as_long_as_the_file_says() {
    let slow = options().fail_points("ledger.batch.before=sleep(4000)");
    let daemon = started(slow, &file("server.ack_timeout = \"9s\""));
    let user = daemon.add_user("user@example.com", 10);
    daemon.add_key(&user, 1);
    assert_eq!(daemon.post(credit("patient")).status, 200);
    reload_with(&daemon, &file("server.ack_timeout = \"1ms\""));
    assert_eq!(daemon.post(credit("hasty")).status, 202);
}

#[test]
fn rounding_overdraft_and_grace_hold_for_the_next_event() {
    let (daemon, _) = started_with_customer(options(), &file(""));
    let user = daemon.add_user("poor@example.com", 1);
    daemon.add_key(&user, 2);
    let post = |id: &str, quota: i64| {
        let body = Usage::new(id).remote_key(2).quota(quota).at_secs(now_secs()).json();
        assert_eq!(daemon.post(body).status, 200, "{id}");
        daemon.books().balance(&user)
    };
    assert_eq!(post("carried", 400), 1, "0.8 credits are kept");
    reload_with(&daemon, &file("ledger.rounding = \"nearest\""));
    assert_eq!(post("rounded", 300), 0, "0.6 credits are one");
    reload_with(&daemon, &file("ledger.rounding = \"nearest\"\nledger.overdraft = \"refuse\""));
    assert_eq!(post("refused", 1000), 0, "nothing is deducted");
    reload_with(&daemon, &file("ledger.overdraft = \"allow\""));
    assert_eq!(post("overdrawn", 1000), -2);

    let parked =
        |token: i64| Usage::new(format!("parked-{token}")).remote_key(token).quota(500).at_secs(now_secs() - 600);
    let charged_after = |grace: &str, token: i64| {
        reload_with(&daemon, &file(&format!("ledger.key_grace = \"{grace}\"")));
        daemon.post(parked(token).json());
        daemon.add_key(&user, token);
        wait_until("the event is tried again", PATIENCE, || {
            let (status, message) = daemon.books().inbox(&format!("parked-{token}"))?;
            let is_over = status == "processed" || message.is_some_and(|message| message.contains("older than"));
            is_over.then_some(status == "processed")
        })
    };
    assert!(charged_after("1h", 3));
    assert!(!charged_after("1m", 4), "the call is ten minutes older than its key");
}

#[test]
fn a_new_rate_counts_from_the_next_minute() {
    let (daemon, _) = started_with_customer(options().movable_clock(), &file(""));
    let user = daemon.add_user("other@example.com", 10_000);
    daemon.add_key(&user, 2);
    let dollar = |id: &str| {
        let body = Usage::new(id).remote_key(2).quota(500_000).at_secs(daemon.clock().now_secs()).json();
        assert_eq!(daemon.post(body).status, 200);
        daemon.books().balance(&user)
    };
    assert_eq!(dollar("before"), 9000);
    reload_with(&daemon, &file("ledger.usd_to_credits = 2000"));
    daemon.clock().advance(std::time::Duration::from_secs(10));
    let newest = "SELECT max(from_second) FROM hookledger_prices WHERE kind = 'usd_to_credits_micros'";
    let from =
        wait_until("the rate is dated", PATIENCE, || Some(daemon.books().scalar_i64(newest)).filter(|from| *from > 0));
    assert_eq!(from % 60, 0);
    daemon.clock().advance(std::time::Duration::from_secs(60));
    assert_eq!(dollar("after"), 7000);
}

#[test]
fn an_event_that_cannot_be_booked_is_tried_as_often_as_the_file_says() {
    let (daemon, user) = started_with_customer(options(), &file(""));
    reload_with(&daemon, &file("retry.max_attempts = 1"));
    daemon
        .books()
        .execute(&format!("UPDATE user_credit_balances SET currentCredits = -2147483647 WHERE userId = '{user}'"));
    daemon.post(Usage::new("impossible").quota(50_000_000).at_secs(now_secs()).json());
    let dead = "hookledger_events{status=\"dead\"}";
    wait_until("the event is dead after one try", PATIENCE, || (daemon.metric(dead) == Some(1.0)).then_some(()));
}

#[test]
fn the_balance_token_appears_rotates_and_goes() {
    let daemon = started(options(), &file(""));
    let user = daemon.add_user("user@example.com", 7);
    daemon.add_key(&user, 1);
    let ask = |token: &str| {
        let path = "/api/api-keys/remote/1/credit-balance";
        let request = http_request("GET", path, &[("X-API-Key", token)], b"");
        daemon.connection().request(&request).expect("an answer").status
    };
    let (one, other) = ("token-number-one-of-two", "token-number-two-of-two");
    assert_eq!(ask(one), 404);
    reload_with(&daemon, &file(&format!("balance.token = \"{one}\"")));
    assert_eq!((ask(one), ask(other)), (200, 401));
    let token_file = daemon.folder().join("token");
    fs::write(&token_file, other).unwrap();
    let text = file(&format!("balance.token_file = \"{}\"", token_file.display()));
    reload_with(&daemon, &text);
    assert_eq!((ask(one), ask(other)), (401, 200));
    fs::write(&token_file, one).unwrap();
    assert!(daemon.reload(), "the file that a key names is read again");
    assert_eq!((ask(one), ask(other)), (200, 401));
    reload_with(&daemon, &file(""));
    assert_eq!((ask(one), ask(other)), (404, 404));
    let log = log_of(&daemon);
    assert!(log.contains("changed: balance.token_file") && !log.contains(one) && !log.contains(other), "{log}");
}

#[test]
fn a_generated_secret_is_read_again_and_never_made_anew() {
    only_on_sqlite!();
    let (daemon, _) = started_with_customer(options(), "");
    let generated = daemon.folder().join("webhook-secret");
    let first = fs::read_to_string(&generated).unwrap();
    assert_eq!(status_signed(&daemon, first.trim_end(), "generated"), 200);
    fs::write(&generated, format!("{NEW_SECRET}\n{first}")).unwrap();
    assert!(daemon.reload());
    assert_eq!(status_signed(&daemon, first.trim_end(), "beside"), 200);
    assert_eq!(status_signed(&daemon, NEW_SECRET, "replaced"), 200);
    fs::remove_file(&generated).unwrap();
    assert!(!daemon.reload(), "a new secret would refuse every good event");
    assert!(!generated.exists());
    assert_eq!(status_signed(&daemon, NEW_SECRET, "still"), 200);
}

#[test]
fn a_file_of_secrets_is_read_again() {
    let (daemon, _) = started_with_customer(options(), &secrets(&[NEW_SECRET]));
    let listed = daemon.folder().join("secrets");
    fs::write(&listed, SECRET).unwrap();
    reload_with(&daemon, &format!("webhook.secrets_file = \"{}\"", listed.display()));
    assert_eq!(status_signed(&daemon, SECRET, "listed"), 200);
    assert_eq!(status_signed(&daemon, NEW_SECRET, "no longer"), 403);
    fs::write(&listed, "short").unwrap();
    assert!(!daemon.reload());
    assert_eq!(status_signed(&daemon, SECRET, "as before"), 200);
}

#[test]
fn the_level_of_the_log_changes() {
    let daemon = started(options(), &file("log.level = \"error\""));
    let unknown = |id: &str| daemon.post(Usage::new(id).remote_key(99).quota(5).at_secs(now_secs()).json());
    let lines_of = |id: &str| {
        let log = log_of(&daemon);
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event_id"] == id).count()
    };
    unknown("unheard");
    reload_with(&daemon, &file("log.level = \"warn\""));
    unknown("heard");
    wait_until("the second is logged", PATIENCE, || (lines_of("heard") == 1).then_some(()));
    assert_eq!(lines_of("unheard"), 0);
    reload_with(&daemon, &file("log.level = \"error\""));
    unknown("unheard again");
    reload_with(&daemon, &file(""));
    assert!(log_of(&daemon).contains("changed: log.level"), "the change is told at the new level");
    assert_eq!(lines_of("unheard again"), 0);
}
