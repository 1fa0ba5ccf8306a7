//! Recorded answers of a real new-api: reads them, and loads a fake with what they say that gateway knew.
//!
//! A file is one exchange. The request stands on lines that begin with `> `: request line, headers, and last a body if
//! there is one. After an empty line comes the answer: status line, headers, an empty line, the body.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use chrono::NaiveDateTime;
use serde_json::Value;

use super::faults::RateLimit;
use super::rows::{LOGIN, Row};
use super::world::Token;
use super::{NewApi, NewApiHandle};

/// One request, and what a real new-api answered.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Of its file, without the ending.
    pub name: String,
    pub method: String,
    pub target: String,
    pub request_headers: Vec<(String, String)>,
    pub request_body: String,
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Exchange {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// When it was answered: the first 14 digits of its request id.
    pub fn at_secs(&self) -> i64 {
        let moment = self.header("X-Oneapi-Request-Id").and_then(|id| id.get(..14));
        let moment = moment.and_then(|moment| NaiveDateTime::parse_from_str(moment, "%Y%m%d%H%M%S").ok());
        moment.unwrap_or_else(|| panic!("{} says when it was answered", self.name)).and_utc().timestamp()
    }

    fn data(&self) -> Value {
        serde_json::from_str::<Value>(&self.body).unwrap_or_default()["data"].clone()
    }

    fn parse(name: &str, text: &str) -> Option<Self> {
        let (request, answer) = text.split_once("\n\n")?;
        let mut lines = request.lines().map(|line| line.strip_prefix("> ").unwrap_or_default());
        let (method, target) = lines.next()?.split_once(' ')?;
        let (mut request_headers, mut request_body) = (Vec::new(), String::new());
        for line in lines {
            match line.split_once(": ") {
                Some((header, value)) if !line.starts_with('{') => {
                    request_headers.push((header.to_owned(), value.to_owned()));
                }
                _ => line.clone_into(&mut request_body),
            }
        }
        let (head, body) = answer.split_once("\n\n").unwrap_or((answer.trim_end(), ""));
        let mut head = head.lines();
        let status = head.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = head.filter_map(|line| line.split_once(": "));
        Some(Exchange {
            name: name.to_owned(),
            method: method.to_owned(),
            target: target.to_owned(),
            request_headers,
            request_body,
            status,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            body: body.trim_end_matches('\n').to_owned(),
        })
    }
}

/// Every exchange in a folder's `.http` files.
#[derive(Debug)]
pub struct Recording {
    pub exchanges: Vec<Exchange>,
    /// Every row in any answer, by its id.
    rows: BTreeMap<i64, Row>,
}

impl Recording {
    pub fn read(folder: &Path) -> Self {
        let mut exchanges = Vec::new();
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("the folder can be read").path()) {
            if path.extension().is_some_and(|ending| ending == "http") {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let text = fs::read_to_string(&path).expect("a recording is a text");
                let exchange = Exchange::parse(&name, &text);
                exchanges.push(exchange.unwrap_or_else(|| panic!("{name} is no recorded exchange")));
            }
        }
        exchanges.sort_by(|one, other| one.name.cmp(&other.name));
        let mut rows = BTreeMap::new();
        for exchange in exchanges.iter().filter(|exchange| exchange.target.starts_with("/api/log/?")) {
            for item in exchange.data()["items"].as_array().into_iter().flatten() {
                let row: Row = serde_json::from_value(item.clone()).expect("a recorded row has a row's fields");
                let former = rows.insert(row.id, row.clone());
                assert!(former.is_none_or(|former| former == row), "row {} is the same everywhere", row.id);
            }
        }
        Recording { exchanges, rows }
    }

    /// A new-api as it was when it answered this exchange.
    pub fn fake_at(&self, exchange: &Exchange) -> NewApi {
        let fake = NewApi::start();
        fake.set_now_secs(exchange.at_secs());
        self.load_rows(&fake, exchange.at_secs());
        self.load_root(&fake);
        for recorded in &self.exchanges {
            let data = recorded.data();
            match recorded.target.split('?').next() {
                Some("/api/token/") if recorded.method == "GET" => load_tokens(&fake, &data),
                Some("/api/option/") if recorded.method == "GET" => load_options(&fake, &data),
                Some("/api/status") => load_status(&fake, &data),
                _ => {}
            }
        }
        if exchange.status == 429 {
            fake.limit_calls(Some(RateLimit { calls: 0, window_secs: 180 }));
        }
        fake
    }

    /// Those that were written by then. Where ids are missing among them, rows were that no recorded answer shows.
    fn load_rows(&self, fake: &NewApiHandle, at_secs: i64) {
        let written: BTreeMap<_, _> = self.rows.iter().filter(|(_, row)| row.created_at <= at_secs).collect();
        let last = written.keys().next_back().map_or(0, |id| **id);
        let mut second = written.values().next().map_or(at_secs, |row| row.created_at);
        fake.log(|log| {
            for id in 1..=last {
                let row = written.get(&id).map(|row| (**row).clone());
                let row = row.unwrap_or_else(|| Row { id, ..Row::new(LOGIN, second) });
                second = row.created_at;
                log.insert(row);
            }
        });
    }

    /// Whom the recorded answers accept: the access token of the first success that needed one.
    fn load_root(&self, fake: &NewApiHandle) {
        let accepted = self.exchanges.iter().filter(|exchange| !exchange.data().is_null());
        let header = |exchange: &Exchange| {
            let found = exchange.request_headers.iter().find(|(name, _)| name == "Authorization");
            found.map(|(_, value)| value.trim_start_matches("Bearer ").to_owned())
        };
        let tokens: BTreeSet<String> = accepted.filter_map(header).collect();
        assert_eq!(tokens.len(), 1, "one administrator asked");
        tokens.iter().for_each(|token| fake.set_access_token(1, token));
    }
}

fn load_tokens(fake: &NewApiHandle, data: &Value) {
    for item in data["items"].as_array().into_iter().flatten() {
        fake.add_token(serde_json::from_value::<Token>(item.clone()).expect("a recorded token has a token's fields"));
    }
}

fn load_options(fake: &NewApiHandle, data: &Value) {
    fake.world(|world| world.options.clear());
    for option in data.as_array().into_iter().flatten() {
        let text = |name: &str| option[name].as_str().expect("an option is two texts").to_owned();
        fake.set_option(&text("key"), &text("value"));
    }
    fake.set_option("webhook_secret", "never shown");
}

fn load_status(fake: &NewApiHandle, data: &Value) {
    fake.set_version(data["version"].as_str().expect("a version is a text"));
    fake.set_start_time(data["start_time"].as_i64().expect("a start is a second"));
}
