//! What the tests of the intake share: bodies, expected answers, and the one check that each row goes through.

use std::fmt::Display;
use std::ops::Add;

use crate::kit::books::{Books, Row, quoted};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::{Usage, ping};
use crate::kit::sign::{EVENTS_PATH, signature};
use crate::kit::wire::{Connection, DEFAULT_TIMEOUT, Response, http_request};

pub const SIGNATURE: &str = "X-Webhook-Signature";

/// Rows, by table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub logs: i64,
    pub records: i64,
    pub transactions: i64,
    pub claims: i64,
    pub inbox: i64,
}

pub const NOTHING: Counts = Counts { logs: 0, records: 0, transactions: 0, claims: 0, inbox: 0 };
/// Recorded, and never charged.
pub const LOGGED: Counts = Counts { logs: 1, ..NOTHING };
/// Recorded, and not charged yet.
pub const WAITING: Counts = Counts { inbox: 1, ..LOGGED };
pub const CHARGED: Counts = Counts { transactions: 1, ..CHARGED_NO_CREDIT };
/// A call that cost less than the next whole credit.
pub const CHARGED_NO_CREDIT: Counts = Counts { logs: 1, records: 1, transactions: 0, claims: 1, inbox: 0 };

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            logs: self.logs + other.logs,
            records: self.records + other.records,
            transactions: self.transactions + other.transactions,
            claims: self.claims + other.claims,
            inbox: self.inbox + other.inbox,
        }
    }
}

impl Counts {
    #[track_caller]
    pub fn of(books: &Books) -> Self {
        let rows = books.rows(
            "SELECT (SELECT count(*) FROM webhook_logs) AS logs, (SELECT count(*) FROM usage_records) AS records,
               (SELECT count(*) FROM credit_transactions) AS transactions,
               (SELECT count(*) FROM hookledger_claims) AS claims, (SELECT count(*) FROM hookledger_inbox) AS inbox",
        );
        let number = |name: &str| rows[0][name].as_i64().expect("a count is a number");
        Counts {
            logs: number("logs"),
            records: number("records"),
            transactions: number("transactions"),
            claims: number("claims"),
            inbox: number("inbox"),
        }
    }
}

/// What must be answered.
#[derive(Debug, Clone)]
pub struct Expected {
    status: u16,
    success: bool,
    words: Words,
    event_id: Told,
}

#[derive(Debug, Clone)]
enum Words {
    Exactly(String),
    Containing(String),
    Any,
}

/// Whether the answer has an `eventId`.
#[derive(Debug, Clone)]
enum Told {
    Id(String),
    Nothing,
    Free,
}

/// Refused with these words, and without a word of the content.
pub fn refused(status: u16, message: &str) -> Expected {
    Expected { status, success: false, words: Words::Exactly(message.to_owned()), event_id: Told::Nothing }
}

/// Refused in whatever words, and without a word of the content.
pub fn turned_away(status: u16) -> Expected {
    Expected { status, success: false, words: Words::Any, event_id: Told::Nothing }
}

pub fn unsigned() -> Expected {
    refused(400, "Missing webhook signature")
}

pub fn badly_signed() -> Expected {
    refused(403, "Invalid webhook signature")
}

/// A body that is wrong: the message says which field.
pub fn blames(field: &str) -> Expected {
    Expected { status: 400, success: false, words: Words::Containing(field.to_owned()), event_id: Told::Free }
}

pub fn conflict() -> Expected {
    Expected { status: 409, success: false, words: Words::Any, event_id: Told::Free }
}

pub fn disabled() -> Expected {
    let words = Words::Exactly("Webhook is disabled".to_owned());
    Expected { status: 503, success: false, words, event_id: Told::Free }
}

pub fn processed(event_id: &str) -> Expected {
    answered(true, "Event processed successfully", event_id)
}

pub fn repeated(event_id: &str) -> Expected {
    answered(true, "Event already processed (idempotent)", event_id)
}

pub fn unknown_key(remote_key_id: &str, event_id: &str) -> Expected {
    answered(false, &format!("API Key not found for remoteKeyId: {remote_key_id}"), event_id)
}

pub fn unknown_type(kind: &str, event_id: &str) -> Expected {
    answered(false, &format!("Unknown event type: {kind}"), event_id)
}

/// A notification has no id of its own; it may be told the derived one.
pub fn notified(kind: &str) -> Expected {
    Expected { event_id: Told::Free, ..unknown_type(kind, "") }
}

pub fn working() -> Expected {
    Expected { event_id: Told::Free, ..answered(true, "Webhook is working", "") }
}

/// Stored, and not chargeable for a reason in words of its own.
pub fn stored_uncharged(event_id: &str) -> Expected {
    Expected { words: Words::Any, ..answered(false, "", event_id) }
}

fn answered(success: bool, message: &str, event_id: &str) -> Expected {
    let (words, event_id) = (Words::Exactly(message.to_owned()), Told::Id(event_id.to_owned()));
    Expected { status: 200, success, words, event_id }
}

impl Expected {
    #[track_caller]
    pub fn assert_met(&self, what: &str, answer: &Response) {
        let seen = format!("{what}: {} {}", answer.status, answer.text());
        assert_eq!(answer.status, self.status, "{seen}");
        let content_type = answer.header("Content-Type").unwrap_or_default();
        assert!(content_type.starts_with("application/json"), "{seen} is {content_type:?}");
        let body = answer.json();
        assert_eq!(body["success"], self.success, "{seen}");
        let message = body["message"].as_str().unwrap_or_else(|| panic!("{seen} has no message"));
        match &self.words {
            Words::Exactly(words) => assert_eq!(message, words, "{seen}"),
            Words::Containing(words) => assert!(message.contains(words.as_str()), "{seen} should name {words}"),
            Words::Any => assert!(!message.is_empty(), "{seen}"),
        }
        match &self.event_id {
            Told::Id(id) => assert_eq!(body["eventId"], id.as_str(), "{seen}"),
            Told::Nothing => assert!(body.get("eventId").is_none(), "{seen} should not name the event"),
            Told::Free => {}
        }
    }
}

/// A body whose fields can be set to any JSON text, right or wrong. A path is a field's name, or `data.` and it.
#[derive(Debug, Clone)]
pub struct Body {
    envelope: Vec<(String, String)>,
    data: Vec<(String, String)>,
}

impl Body {
    /// A call of token 1 that costs one credit, made now.
    pub fn usage(event_id: &str) -> Self {
        let body = Body { envelope: Vec::new(), data: Vec::new() };
        body.set("eventId", json_text(event_id))
            .set("eventType", r#""usage""#)
            .set("timestamp", now_secs())
            .set("data", "")
            .set("data.remoteKeyId", 1)
            .set("data.model", r#""gpt-4""#)
            .set("data.promptTokens", 100)
            .set("data.completionTokens", 50)
            .set("data.quota", 500)
    }

    pub fn set(mut self, path: &str, json: impl Display) -> Self {
        let (fields, name) = self.fields_of(path);
        let json = json.to_string();
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => *value = json,
            None => fields.push((name.to_owned(), json)),
        }
        self
    }

    pub fn without(mut self, path: &str) -> Self {
        let (fields, name) = self.fields_of(path);
        fields.retain(|(known, _)| known != name);
        self
    }

    pub fn json(&self) -> String {
        let data = object(&self.data);
        // An empty text stands for the fields of `data`.
        let filled = self.envelope.iter().map(|(name, json)| match json.as_str() {
            "" => (name.clone(), data.clone()),
            _ => (name.clone(), json.clone()),
        });
        object(&filled.collect::<Vec<_>>())
    }

    fn fields_of<'a>(&mut self, path: &'a str) -> (&mut Vec<(String, String)>, &'a str) {
        match path.strip_prefix("data.") {
            Some(name) => (&mut self.data, name),
            None => (&mut self.envelope, path),
        }
    }
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, json)| format!("{}:{json}", json_text(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// A text as JSON writes it.
pub fn json_text(text: &str) -> String {
    serde_json::to_string(text).expect("every text is a JSON string")
}

/// A request to the events' path with these headers, and no signature but one among them.
pub fn events_request(headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    http_request("POST", EVENTS_PATH, headers, body.as_ref())
}

/// A body in chunks of that many bytes, without its end.
pub fn unfinished_chunks(body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    body.chunks(chunk_bytes).flat_map(chunk).collect()
}

/// A rightly signed request whose body comes in chunks.
pub fn chunked_request(secret: &str, body: &[u8], chunk_bytes: usize) -> Vec<u8> {
    let signature = signature(secret, body);
    let headers = [("Transfer-Encoding", "chunked"), (SIGNATURE, signature.as_str())];
    let chunks = [unfinished_chunks(body, chunk_bytes), b"0\r\n\r\n".to_vec()].concat();
    events_request(&headers, chunks)
}

/// A daemon with two users: the rows of a table charge token 1, the good events between them token 2.
#[derive(Debug)]
pub struct Intake {
    pub daemon: Daemon,
    /// Whom token 1 belongs to.
    pub user: String,
    /// What the tables must hold by now.
    counts: Counts,
    takes_usage: bool,
    served: usize,
}

impl Intake {
    #[track_caller]
    pub fn start() -> Self {
        Intake::start_with(DaemonOptions::new())
    }

    /// Wrongly signed requests are not limited: that is what the tests of the limits are about.
    #[track_caller]
    pub fn start_with(options: DaemonOptions) -> Self {
        let daemon = Daemon::start(options.set("HOOKLEDGER__RATE_LIMIT__BAD_PER_SECOND", 0));
        Intake::with_users(daemon, true)
    }

    /// A daemon that is told to take no events. It is not ready, and never will be.
    #[track_caller]
    pub fn start_disabled() -> Self {
        let daemon = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__ENABLED", false));
        daemon.launch();
        crate::kit::wait::wait_until("the disabled daemon lives", DEFAULT_TIMEOUT, || {
            let mut connection = Connection::open(daemon.address(), DEFAULT_TIMEOUT).ok()?;
            let answer = connection.request(&http_request("GET", "/healthz", &[], b"")).ok()?;
            (answer.status == 200).then_some(())
        });
        Intake::with_users(daemon, false)
    }

    #[track_caller]
    fn with_users(daemon: Daemon, takes_usage: bool) -> Self {
        let user = daemon.add_user("tabled@example.com", 1_000_000);
        daemon.add_key(&user, 1);
        let other = daemon.add_user("good@example.com", 1_000_000);
        daemon.add_key(&other, 2);
        let counts = Counts::of(&daemon.books());
        Intake { daemon, user, counts, takes_usage, served: 0 }
    }

    /// Sends one request on a connection of its own; its answer, its rows and the next good event must be right.
    #[track_caller]
    pub fn check(&mut self, what: &str, request: &[u8], expected: &Expected, left: Counts) {
        let answer = self.daemon.connection().request(request);
        let answer = answer.unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        expected.assert_met(what, &answer);
        self.assert_left(what, left);
    }

    /// The same for a body that is rightly signed.
    #[track_caller]
    pub fn check_body(&mut self, what: &str, body: impl AsRef<[u8]>, expected: &Expected, left: Counts) {
        self.check(what, &self.daemon.signed_request(body), expected, left);
    }

    /// What was done since the last look left these rows, and the next good event is served.
    #[track_caller]
    pub fn assert_left(&mut self, what: &str, left: Counts) {
        self.counts = self.counts + left;
        assert_eq!(Counts::of(&self.daemon.books()), self.counts, "rows after: {what}");
        self.served += 1;
        let event_id = format!("good-{}", self.served);
        let (body, expected, left) = if self.takes_usage {
            (Usage::new(&event_id).remote_key(2).quota(500).json(), processed(&event_id), CHARGED)
        } else {
            (ping(&event_id), working(), LOGGED)
        };
        expected.assert_met(&format!("the next good event after: {what}"), &self.daemon.post(body));
        self.counts = self.counts + left;
    }

    /// The books must agree with themselves in the end.
    #[track_caller]
    pub fn finish(self) {
        let books = self.daemon.books();
        assert_eq!(Counts::of(&books), self.counts, "rows in the end");
        books.assert_whole();
        books.assert_carried_exactly();
    }

    /// `status` and `errorMsg` of a row that must be there.
    #[track_caller]
    pub fn logged(&self, event_id: &str) -> (String, Option<String>) {
        self.daemon.books().inbox(event_id).unwrap_or_else(|| panic!("{event_id:?} is not in webhook_logs"))
    }

    /// The claim and the usage record of an event that must be charged.
    #[track_caller]
    pub fn charge(&self, event_id: &str) -> Row {
        let rows = self.daemon.books().rows(&format!(
            "SELECT claim.*, record.totalTokens, record.model AS shownModel, record.creditCost
             FROM hookledger_claims AS claim JOIN usage_records AS record ON record.id = claim.claim_id
             WHERE claim.event_id = {}",
            quoted(event_id)
        ));
        assert_eq!(rows.len(), 1, "charges of {event_id:?}");
        rows[0].clone()
    }
}
