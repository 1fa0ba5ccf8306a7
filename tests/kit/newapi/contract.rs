//! Our own contract of new-api's answers: a small world, requests, and what a real gateway answers to each.
//!
//! The data is in `contract/`: values of our own making, shapes and rules as a real new-api showed them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::wire::Response;
use super::faults::RateLimit;
use super::rows::Row;
use super::world::{Role, Token, User};
use super::{NewApi, NewApiHandle};

const WORLD: &str = include_str!("contract/world.json");
const CASES: &str = include_str!("contract/cases.json");

/// All cases, and the names and types of a row's fields.
#[derive(Debug, Deserialize)]
pub struct Contract {
    pub row: BTreeMap<String, String>,
    pub cases: Vec<Case>,
}

/// A request, and what must be answered. Of the ways to say that, a case uses one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub method: String,
    pub target: String,
    /// The id of the user who asks, in due form.
    #[serde(rename = "as")]
    pub user_id: Option<i64>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub body: Option<Value>,
    /// How many calls the address has left.
    pub calls_left: Option<usize>,
    pub status: u16,
    /// The whole body.
    pub text: Option<String>,
    /// `data` is a page of rows.
    pub page: Option<ExpectedPage>,
    /// `data` is a list of these, in any order.
    pub list: Option<Vec<Value>>,
    /// `data` has at least these members.
    pub subset: Option<BTreeMap<String, Value>>,
    pub location: Option<String>,
    #[serde(default)]
    pub chunked: bool,
}

/// Its rows by their ids; of many, how many they are, the first and the last.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedPage {
    pub page: i64,
    pub page_size: i64,
    pub total: i64,
    pub ids: Option<Vec<i64>>,
    pub count: Option<usize>,
    pub first_id: Option<i64>,
    pub last_id: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractWorld {
    now_secs: i64,
    version: String,
    start_time: i64,
    users: Vec<ContractUser>,
    tokens: Vec<Token>,
    options: BTreeMap<String, String>,
    series: Series,
    /// Each has the fields that differ from an empty row.
    rows: Vec<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContractUser {
    id: i64,
    name: String,
    role: String,
    access_token: String,
    #[serde(default)]
    is_banned: bool,
}

/// Many calls: tokens and models take turns, each costs one unit more than the last.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Series {
    first_id: usize,
    count: usize,
    first_second: i64,
    rows_a_second: usize,
    tokens: Vec<(i64, String)>,
    models: Vec<String>,
    first_quota: usize,
    prompt_tokens: i64,
    completion_tokens: i64,
    row: Value,
}

impl Contract {
    pub fn read() -> Self {
        serde_json::from_str(CASES).expect("the cases are well-formed")
    }

    /// A new-api that knows the contract's world.
    pub fn fake() -> NewApi {
        let world: ContractWorld = serde_json::from_str(WORLD).expect("the world is well-formed");
        let fake = NewApi::start();
        fake.set_now_secs(world.now_secs);
        fake.set_version(&world.version);
        fake.set_start_time(world.start_time);
        fake.world(|known| {
            known.users = world.users.into_iter().map(user).collect();
            known.options = world.options;
        });
        world.tokens.into_iter().for_each(|token| fake.add_token(token));
        world.series.load(&fake);
        for row in &world.rows {
            fake.insert(row_from(row));
        }
        fake
    }

    /// What is wrong with an answer to a case; empty: it is right.
    pub fn problems(&self, case: &Case, answer: &Response) -> Vec<String> {
        let mut problems = Vec::new();
        let mut compare = |what: &str, expected: Value, found: Value| {
            if expected != found {
                problems.push(format!("{}: {what}: expected {expected}, found {found}", case.name));
            }
        };
        compare("status", json!(case.status), json!(answer.status));
        let is_json = case.status != 429 && case.location.is_none();
        let content_type = is_json.then_some("application/json; charset=utf-8");
        if case.location.is_none() {
            compare("Content-Type", json!(content_type), json!(answer.header("Content-Type")));
        }
        compare("Location", json!(case.location), json!(answer.header("Location")));
        compare("a request id", json!(true), json!(answer.header("X-Oneapi-Request-Id").is_some()));
        compare("a date", json!(true), json!(answer.header("Date").is_some()));
        if case.chunked {
            compare("in chunks", json!("chunked"), json!(answer.header("Transfer-Encoding")));
        }
        if let Some(text) = &case.text {
            compare("body", json!(text), json!(answer.text()));
            return problems;
        }
        if !is_json {
            return problems;
        }
        let body = answer.json();
        compare("success", json!([true, ""]), json!([body["success"], body["message"]]));
        compare("envelope", json!(["data", "message", "success"]), json!(names(&body)));
        if let Some(list) = &case.list {
            compare("list", json!(sorted(list)), json!(sorted(body["data"].as_array().unwrap_or(&Vec::new()))));
        }
        for (name, value) in case.subset.iter().flatten() {
            compare(name, value.clone(), body["data"][name].clone());
        }
        if let Some(page) = &case.page {
            problems.extend(self.problems_of_page(&case.name, page, &body["data"]));
        }
        problems
    }

    fn problems_of_page(&self, name: &str, expected: &ExpectedPage, data: &Value) -> Vec<String> {
        let items = data["items"].as_array().cloned().unwrap_or_default();
        let ids: Vec<i64> = items.iter().filter_map(|row| row["id"].as_i64()).collect();
        let mut problems = Vec::new();
        let mut compare = |what: &str, expected: Value, found: Value| {
            if expected != found {
                problems.push(format!("{name}: {what}: expected {expected}, found {found}"));
            }
        };
        compare("a page", json!(["items", "page", "page_size", "total"]), json!(names(data)));
        let expected_counts = json!([expected.page, expected.page_size, expected.total]);
        compare("counts", expected_counts, json!([data["page"], data["page_size"], data["total"]]));
        match &expected.ids {
            Some(expected_ids) => compare("ids", json!(expected_ids), json!(ids)),
            None => {
                let ends = json!([expected.count, expected.first_id, expected.last_id]);
                compare("count and ends", ends, json!([items.len(), ids.first(), ids.last()]));
            }
        }
        let place = |row: &Value| (row["created_at"].as_i64(), row["id"].as_i64());
        compare("newest first", json!(true), json!(items.is_sorted_by(|one, next| place(one) > place(next))));
        for row in &items {
            let shape: BTreeMap<&str, &str> =
                row.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), type_of(value))).collect();
            compare("a row's fields", json!(self.row), json!(shape));
        }
        problems
    }
}

impl Case {
    /// Its headers, with those of the user who asks.
    pub fn request_headers(&self, fake: &NewApiHandle) -> Vec<(String, String)> {
        let mut headers: Vec<_> = self.headers.clone().into_iter().collect();
        if let Some(user_id) = self.user_id {
            let access_token = fake.world(|world| world.user(user_id).map(|user| user.access_token.clone()));
            headers.push(("Authorization".to_owned(), access_token.expect("the user is in the contract's world")));
            headers.push(("New-Api-User".to_owned(), user_id.to_string()));
        }
        headers
    }

    /// The contract's world, and what this case needs besides.
    pub fn fake(&self) -> NewApi {
        let fake = Contract::fake();
        fake.limit_calls(self.calls_left.map(|calls| RateLimit { calls, window_secs: 180 }));
        fake
    }
}

impl Series {
    fn load(&self, fake: &NewApiHandle) {
        let number = |number: usize| i64::try_from(number).expect("a number of the contract fits");
        for index in 0..self.count {
            let (token_id, token_name) = &self.tokens[index % self.tokens.len()];
            let mut row = row_from(&self.row).token(*token_id, token_name);
            row.id = number(self.first_id + index);
            row.created_at = self.first_second + number(index / self.rows_a_second);
            row.model_name.clone_from(&self.models[index % self.models.len()]);
            row = row.tokens(self.prompt_tokens, self.completion_tokens).quota(number(self.first_quota + index));
            fake.insert(row.request_id(&format!("contract-call-{index}")));
        }
    }
}

fn user(user: ContractUser) -> User {
    let role = match user.role.as_str() {
        "root" => Role::Root,
        "admin" => Role::Admin,
        _ => Role::Common,
    };
    User { id: user.id, name: user.name, role, access_token: user.access_token, is_banned: user.is_banned }
}

fn row_from(fields: &Value) -> Row {
    let mut whole = serde_json::to_value(Row::new(0, 0)).expect("a row is JSON");
    for (name, value) in fields.as_object().expect("a row is an object") {
        whole[name] = value.clone();
    }
    serde_json::from_value(whole).expect("a row of the contract has a row's fields")
}

/// The names of an object's members, sorted.
fn names(value: &Value) -> Vec<&String> {
    value.as_object().map(|object| object.keys().collect()).unwrap_or_default()
}

fn sorted(list: &[Value]) -> Vec<String> {
    let mut texts: Vec<String> = list.iter().map(Value::to_string).collect();
    texts.sort();
    texts
}

/// JSON's name of a value's type, with whole numbers told from others.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
