//! The tests' new-api, held against what a real one answers: a fake that is kinder than the gateway proves nothing.

use std::path::Path;

use serde_json::Value;

use crate::kit::newapi::contract::{Contract, type_of};
use crate::kit::newapi::recorded::{Exchange, Recording};
use crate::kit::newapi::{Endpoint, NewApiHandle};
use crate::kit::wire::{Connection, DEFAULT_TIMEOUT, Response, http_request};

/// Names a folder with recorded answers of a real new-api, which are compared as well.
const RECORDED: &str = "HOOKLEDGER_NEWAPI_FIXTURES";

fn ask(fake: &NewApiHandle, method: &str, target: &str, headers: &[(String, String)], body: &str) -> Response {
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut connection = Connection::open(fake.address(), DEFAULT_TIMEOUT).unwrap();
    connection.request(&http_request(method, target, &headers, body.as_bytes())).unwrap()
}

#[test]
fn the_fake_keeps_our_contract() {
    let contract = Contract::read();
    let mut problems = Vec::new();
    for case in &contract.cases {
        let fake = case.fake();
        let body = case.body.as_ref().map(Value::to_string).unwrap_or_default();
        let answer = ask(&fake, &case.method, &case.target, &case.request_headers(&fake), &body);
        problems.extend(contract.problems(case, &answer));
    }
    assert!(contract.cases.len() > 45, "the contract has its cases: {}", contract.cases.len());
    assert!(problems.is_empty(), "the fake breaks the contract:\n  {}", problems.join("\n  "));
}

#[test]
fn what_a_case_changes_is_changed() {
    let contract = Contract::read();
    let changed_by = |name: &str| {
        let case = contract.cases.iter().find(|case| case.name == name).unwrap();
        let fake = case.fake();
        let body = case.body.as_ref().unwrap().to_string();
        let rows = fake.log(|log| log.rows().len());
        assert_eq!(ask(&fake, &case.method, &case.target, &case.request_headers(&fake), &body).status, 200);
        let added = fake.log(|log| log.rows().len()) - rows;
        (fake, added)
    };
    let (fake, added) = changed_by("token-disable");
    let token = fake.token(5);
    assert_eq!((token.status, token.name.as_str(), token.remain_quota, added), (2, "south", 39_992_900, 0));
    let (fake, _) = changed_by("token-blanked");
    let token = fake.token(5);
    assert_eq!((token.status, token.name.as_str(), token.remain_quota, token.unlimited_quota), (1, "", 0, false));
    let (fake, _) = changed_by("token-of-another-user");
    assert_eq!(fake.token(8).status, 1);
    let (fake, added) = changed_by("option-update");
    assert_eq!((fake.option("webhook_url").as_deref(), added), (Some(""), 1));
    let row = &fake.log(|log| log.rows())[0];
    assert_eq!((row.kind, row.content.as_str()), (3, "Updated system setting webhook_url"), "a setting leaves a row");
    assert_eq!(fake.count(Endpoint::OptionUpdate), 1);
}

/// Recorded answers that were cut to a few members before they were kept.
fn is_cut(recorded: &Exchange) -> bool {
    recorded.target.starts_with("/api/status") || recorded.target.starts_with("/api/option/")
}

fn problems_with(recorded: &Exchange, answer: &Response) -> Vec<String> {
    let mut problems = Vec::new();
    let mut compare = |what: &str, expected: &str, found: &str| {
        if expected != found {
            problems.push(format!("{}: {what}:\n    recorded {expected}\n    found    {found}", recorded.name));
        }
    };
    compare("status", &recorded.status.to_string(), &answer.status.to_string());
    for name in ["Content-Type", "Content-Length", "Transfer-Encoding"] {
        if !is_cut(recorded) || name == "Content-Type" {
            compare(name, recorded.header(name).unwrap_or("none"), answer.header(name).unwrap_or("none"));
        }
    }
    let id = |header: Option<&str>| header.map(|id| format!("{} characters of {}", id.len(), &id[..12]));
    let ids = (id(recorded.header("X-Oneapi-Request-Id")), id(answer.header("X-Oneapi-Request-Id")));
    compare("a request id", &format!("{:?}", ids.0), &format!("{:?}", ids.1));
    if is_cut(recorded) {
        let (expected, found): (Value, Value) = (serde_json::from_str(&recorded.body).unwrap(), answer.json());
        compare("success", &expected["success"].to_string(), &found["success"].to_string());
        for (name, value) in expected["data"].as_object().into_iter().flatten() {
            compare(name, &value.to_string(), &found["data"][name].to_string());
            compare(name, type_of(value), type_of(&found["data"][name]));
        }
        let sorted = |data: &Value| {
            let mut texts: Vec<String> = data.as_array().into_iter().flatten().map(Value::to_string).collect();
            texts.sort();
            texts.join(",")
        };
        compare("list", &sorted(&expected["data"]), &sorted(&found["data"]));
    } else {
        compare("body", &recorded.body, &answer.text());
    }
    problems
}

#[test]
fn the_fake_answers_as_recorded() {
    let Some(folder) = std::env::var_os(RECORDED) else {
        return; // our own contract stands for them
    };
    let recording = Recording::read(Path::new(&folder));
    let mut problems = Vec::new();
    for recorded in &recording.exchanges {
        let fake = recording.fake_at(recorded);
        let body = &recorded.request_body;
        let answer = ask(&fake, &recorded.method, &recorded.target, &recorded.request_headers, body);
        problems.extend(problems_with(recorded, &answer));
    }
    assert!(!recording.exchanges.is_empty(), "{RECORDED} names a folder of .http files");
    assert!(problems.is_empty(), "the fake answers otherwise:\n  {}", problems.join("\n  "));
}
