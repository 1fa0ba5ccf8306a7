//! What watches the daemon: rules, dashboard and metrics fit each other, and each alert fires in its case.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::exposition::{OwnedSeries, all_series};
use crate::kit::folder::TestFolder;
use crate::kit::newapi::NewApi;
use crate::kit::process::run;
use crate::kit::promql::{Query, Selector, read_query};
use crate::kit::wait::wait_until;
use crate::kit::wire::http_request;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: &str = "a-balance-token-of-some-length";

/// Of a server's disk only the server could tell: its free space is known beside the embedded database alone.
const OF_THE_DISK: &str = "hookledger_database_free_bytes";

/// Labels that Prometheus adds by itself.
const TARGET_LABELS: [&str; 2] = ["job", "instance"];

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("monitoring")
}

fn read(name: &str) -> String {
    fs::read_to_string(monitoring().join(name)).unwrap()
}

#[track_caller]
fn promtool(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new("promtool");
    run(command.args(arguments).current_dir(monitoring()), input, Duration::from_secs(120))
}

#[track_caller]
fn assert_fine(output: Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "promtool, {}:\n{printed}{complaint}", output.status);
}

/// Keys of one alert in `alerts.yml`, its labels and annotations among them.
type Alert = BTreeMap<String, String>;

/// Reads the YAML in which the rules are written: `key: value`, or a block below the key.
fn alerts() -> Vec<Alert> {
    let text = read("alerts.yml");
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut alerts: Vec<Alert> = Vec::new();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.trim_start_matches([' ', '-']).split_once(':') else { continue };
        let mut value = value.trim().to_owned();
        if matches!(value.as_str(), "|" | ">-") {
            value.clear();
            while let Some(part) = lines.next_if(|next| indent(next) > indent(line)) {
                value = format!("{value}{} ", part.trim());
            }
        }
        if line.trim_start().starts_with("- alert:") {
            alerts.push(Alert::new());
        }
        if let Some(alert) = alerts.last_mut() {
            alert.insert(key.to_owned(), value.trim().to_owned());
        }
    }
    assert!(alerts.len() > 30, "the rules were read");
    alerts
}

fn dashboard() -> Value {
    serde_json::from_str(&read("grafana-dashboard.json")).unwrap()
}

/// Every query of the dashboard, with the title of its panel.
fn dashboard_queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().replace("$__rate_interval", "5m");
            queries.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        // label_values(SELECTOR, label)
        let selector = variable["definition"].as_str().and_then(|text| text.strip_prefix("label_values("));
        let selector = selector.and_then(|text| text.rsplit_once(',')).map(|(selector, _)| selector.to_owned());
        queries.extend(selector.map(|selector| (variable["name"].as_str().unwrap().to_owned(), selector)));
    }
    assert!(queries.len() > 30, "the dashboard was read");
    queries
}

/// A daemon that reads the log of a new-api, which is to outlive it.
fn fresh_daemon() -> (Daemon, NewApi) {
    let newapi = NewApi::start();
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__BALANCE__TOKEN", TOKEN)
        .set("HOOKLEDGER__NEWAPI__BASE_URL", newapi.url())
        .set("HOOKLEDGER__NEWAPI__ACCESS_TOKEN", newapi.root_access_token())
        .set("HOOKLEDGER__NEWAPI__USER_ID", "1");
    let daemon = Daemon::start(options);
    wait_until("the inbox is counted", PATIENCE, || daemon.metric("hookledger_events{status=\"dead\"}"));
    wait_until("the log was read", PATIENCE, || daemon.metric("hookledger_coverage_timestamp_seconds"));
    (daemon, newapi)
}

/// Gives the daemon a little of everything.
fn keep_busy(daemon: &Daemon) {
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    daemon.grant(&user, 10);
    // A repeat tells the same second.
    let at = now_secs();
    let usage = |id: &str, key, quota| Usage::new(id).remote_key(key).quota(quota).at_secs(at).json();
    assert_eq!(daemon.post(usage("e-1", 1, 1000)).status, 200);
    assert_eq!(daemon.post(usage("e-1", 1, 1000)).status, 200);
    assert_eq!(daemon.post(usage("e-1", 1, 2000)).status, 409);
    assert_eq!(daemon.post(usage("e-2", 99, 1000)).status, 200);
    assert_eq!(daemon.post_with(&[("X-Webhook-Signature", "00")], b"{}").status, 403);
    for token in [TOKEN, "another"] {
        let path = "/api/api-keys/remote/1/credit-balance";
        let request = http_request("GET", path, &[("X-API-Key", token)], b"");
        daemon.connection().request(&request).unwrap();
    }
    wait_until("the parked token is counted", PATIENCE, || {
        (daemon.metric("hookledger_parked_tokens") == Some(1.0)).then_some(())
    });
}

#[test]
fn the_rules_are_sound() {
    assert_fine(promtool(&["check", "rules", "--lint=all", "--lint-fatal", "alerts.yml"], b""));
}

#[test]
fn each_alert_fires_in_its_case_and_is_quiet_in_a_near_miss() {
    assert_fine(promtool(&["test", "rules", "alerts_test.yml", "alerts_days_test.yml"], b""));
    let tests = read("alerts_test.yml") + &read("alerts_days_test.yml");
    let (mut firing, mut quiet) = (BTreeSet::new(), BTreeSet::new());
    let (mut lines, mut case) = (tests.lines().map(str::trim), "");
    while let Some(line) = lines.next() {
        case = line.strip_prefix("- name: '").unwrap_or(case);
        let Some(name) = line.strip_prefix("alertname: ") else { continue };
        let stated = case.strip_prefix(name).unwrap_or_else(|| panic!("{case} is about {name}"));
        match lines.next() {
            Some("exp_alerts:") if stated.starts_with(" fires: ") => firing.insert(name.to_owned()),
            Some("exp_alerts: []") if stated.starts_with(" is quiet: ") => quiet.insert(name.to_owned()),
            Some("exp_alerts: []") => false, // not for long enough yet
            other => panic!("{case}: {other:?}"),
        };
    }
    let alerts: BTreeSet<String> = alerts().iter().map(|alert| alert["alert"].clone()).collect();
    assert_eq!(firing, alerts, "every alert has a case in which it fires");
    assert_eq!(quiet, alerts, "every alert has a case in which it is quiet");
}

#[test]
fn each_alert_says_what_to_do() {
    let page = fs::read_to_string(monitoring().join("../docs/OPERATIONS.md")).unwrap();
    let mut sections: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("### Alert: ")).collect();
    for alert in alerts() {
        let name = alert["alert"].as_str();
        assert!(sections.remove(name), "docs/OPERATIONS.md has a section for {name}");
        assert_eq!(alert["runbook_url"], format!("docs/OPERATIONS.md#alert-{}", name.to_lowercase()));
        assert!(["critical", "warning"].contains(&alert["severity"].as_str()), "{name}: {}", alert["severity"]);
        for words in ["summary", "description", "runbook"] {
            assert!(alert.get(words).is_some_and(|text| text.len() > 20), "{name} has a {words}");
        }
    }
    assert!(sections.is_empty(), "sections without an alert: {sections:?}");
}

#[test]
fn the_metrics_are_clean() {
    let (daemon, _newapi) = fresh_daemon();
    keep_busy(&daemon);
    assert_fine(promtool(&["check", "metrics"], daemon.metrics().as_bytes()));
}

/// What a selector asks for and nothing has.
fn missing(selector: &Selector, series: &BTreeSet<OwnedSeries>) -> Vec<String> {
    let named: Vec<_> = series.iter().filter(|(name, _)| *name == selector.name).collect();
    if named.is_empty() && selector.name != "up" {
        return vec![selector.name.clone()];
    }
    let own = selector.matchers.iter().filter(|matcher| !TARGET_LABELS.contains(&matcher.label.as_str()));
    let wanted = own.flat_map(|matcher| matcher.values.iter().map(|value| (matcher.label.clone(), value)));
    let unknown = wanted.filter(|(label, value)| !named.iter().any(|(_, labels)| labels.get(label) == Some(value)));
    unknown.map(|(label, value)| format!("{}{{{label}=\"{value}\"}}", selector.name)).collect()
}

#[test]
fn rules_and_dashboard_ask_for_what_exists() {
    let (daemon, _newapi) = fresh_daemon();
    keep_busy(&daemon);
    let series = all_series(&daemon.metrics());
    assert_eq!(series.iter().any(|(name, _)| name == OF_THE_DISK), is_sqlite());
    let labels: BTreeSet<&str> = series.iter().flat_map(|(_, labels)| labels.keys().map(String::as_str)).collect();
    let rules = alerts().into_iter().map(|alert| (alert["alert"].clone(), alert["expr"].clone()));
    let mut offenders = Vec::new();
    for (place, text) in rules.chain(dashboard_queries()) {
        let Query { selectors, grouping } = read_query(&text);
        assert!(!selectors.is_empty(), "{place} asks for nothing: {text}");
        let can_be = selectors.iter().filter(|selector| is_sqlite() || selector.name != OF_THE_DISK);
        let unknown = can_be.flat_map(|selector| missing(selector, &series));
        offenders.extend(unknown.map(|unknown| format!("{place}: {unknown}")));
        let foreign = grouping.iter().filter(|label| !labels.contains(label.as_str()));
        let foreign = foreign.filter(|label| !TARGET_LABELS.contains(&label.as_str()));
        offenders.extend(foreign.map(|label| format!("{place}: no series has the label {label}")));
    }
    assert!(offenders.is_empty(), "{offenders:#?}");
}

#[test]
fn the_dashboards_queries_can_be_read() {
    let folder = TestFolder::new();
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, (_, query)) in dashboard_queries().iter().enumerate() {
        rules.push_str(&format!("      - record: query:{number}\n        expr: '{}'\n", query.replace('\'', "''")));
    }
    let file = folder.path().join("queries.yml");
    fs::write(&file, rules).unwrap();
    assert_fine(promtool(&["check", "rules", file.to_str().unwrap()], b""));
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    assert!(dashboard["id"].is_null(), "an import gives it an id");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids of panels are unique");
    let (rows, panels): (Vec<_>, Vec<_>) = panels.iter().partition(|panel| panel["type"] == "row");
    let rows: Vec<&str> = rows.iter().map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(
        rows,
        ["Intake", "Ledger", "Backlog", "Channel", "Log", "Actors", "Process", "Balance question", "Disk"],
        "in the order in which an event passes"
    );
    for panel in panels {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(panel["description"].as_str().is_some_and(|text| !text.is_empty()), "{}", panel["title"]);
    }
}

fn counters(daemon: &Daemon) -> BTreeSet<OwnedSeries> {
    let is_ours = |name: &str| name.starts_with("hookledger_") && name.ends_with("_total");
    all_series(&daemon.metrics()).into_iter().filter(|(name, _)| is_ours(name)).collect()
}

#[test]
fn every_counter_is_there_from_the_start() {
    let (daemon, _newapi) = fresh_daemon();
    let from_start = counters(&daemon);
    for (name, value) in [
        ("hookledger_webhook_requests_total{outcome=\"conflict\"}", 0.0),
        ("hookledger_ledger_settlements_total{source=\"webhook\",outcome=\"error\"}", 0.0),
        ("hookledger_ledger_settlements_total{source=\"log\",outcome=\"settled\"}", 0.0),
        ("hookledger_poll_rows_total{result=\"charged\"}", 0.0),
        ("hookledger_poll_runs_total{outcome=\"failed\"}", 0.0),
        ("hookledger_source_condition{condition=\"source_changed\"}", 0.0),
        ("hookledger_actor_restarts_total{actor=\"ledger\",cause=\"panic\"}", 0.0),
        ("hookledger_balance_requests_total{outcome=\"unavailable\"}", 0.0),
        ("hookledger_ledger_credits_total{type=\"DEDUCT\"}", 0.0),
        ("hookledger_events{status=\"pending\"}", 0.0),
        ("hookledger_events{status=\"failed\"}", 0.0),
        ("hookledger_events{status=\"dead\"}", 0.0),
        ("hookledger_oldest_pending_age_seconds", 0.0),
        ("hookledger_parked_tokens", 0.0),
        ("hookledger_disputes_open", 0.0),
        ("hookledger_refunds_open", 0.0),
        ("hookledger_ledger_unpaid_credits", 0.0),
    ] {
        assert_eq!(daemon.metric(name), Some(value), "{name}");
    }
    keep_busy(&daemon);
    let late: Vec<_> = counters(&daemon).difference(&from_start).cloned().collect();
    assert!(late.is_empty(), "a counter that appears late has no increase: {late:?}");
}

#[test]
fn the_database_and_its_disk_are_measured() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    assert_eq!(daemon.post(Usage::new("e-1").remote_key(1).quota(1000).json()).status, 200);
    let size = |name: &str| fs::metadata(daemon.folder().join(name)).map_or(0, |found| found.len());
    assert!(size("hookledger.db-wal") > 0, "the log counts, so there must be one");
    wait_until("the size is that of the files", PATIENCE, || {
        daemon.clock().advance(Duration::from_secs(15));
        let bytes = size("hookledger.db") + size("hookledger.db-wal");
        (daemon.metric("hookledger_database_size_bytes") == Some(bytes as f64)).then_some(())
    });
    let mut command = Command::new("stat");
    let output = run(command.args(["-f", "-c", "%a %S"]).arg(daemon.folder()), b"", PATIENCE);
    let printed = String::from_utf8(output.stdout).unwrap();
    let (blocks, block_bytes) = printed.trim().split_once(' ').unwrap();
    let expected = blocks.parse::<f64>().unwrap() * block_bytes.parse::<f64>().unwrap();
    let free = daemon.metric(OF_THE_DISK).unwrap();
    // Others write to the same disk meanwhile.
    assert!((free / expected - 1.0).abs() < 0.2, "{free} is about {expected}");
}
