//! What can go wrong with an answer, and scripts that say when it does.

use std::time::Duration;

use super::answer::Answer;
use super::request::{Endpoint, Request};

/// One way to fail. Alone, it is a [`Script`] for every request until the fake is healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 429, with an empty body and no `Retry-After`.
    TooManyRequests,
    /// A page of a reverse proxy, with this status.
    Html(u16),
    /// No answer until the fake is healed; then the connection is closed.
    Hang,
    /// The connection is closed at once.
    Cut,
    /// The head promises the whole answer; half of the body comes, then the connection is closed.
    HalfABody,
    /// The answer of this moment comes so much later, or when the fake is healed.
    Delay(Duration),
    /// 500, with the body of a panic.
    ServerError,
    /// HTTP 200 with `success:false` and this message.
    Refused(String),
    /// 302 to the same path and query on this origin (`http://host:port`).
    Redirect(String),
    /// At least so many bytes of JSON, without a declared length.
    Oversized(usize),
    /// The statistics are all 0 and a success: what old versions answer when their database fails.
    StatisticsOfZero,
    /// The times that a request for rows or statistics asks for are passed over.
    TimesIgnored,
}

impl Fault {
    /// Only for requests to this endpoint.
    pub fn on(self, endpoint: Endpoint) -> Script {
        Script::from(self).on(endpoint)
    }

    /// Only so many times.
    pub fn times(self, count: u64) -> Script {
        Script::from(self).times(count)
    }

    /// Only after so many requests that it lets pass.
    pub fn after(self, count: u64) -> Script {
        Script::from(self).after(count)
    }

    fn can_befall(&self, endpoint: Endpoint) -> bool {
        match self {
            Fault::StatisticsOfZero => endpoint == Endpoint::LogStat,
            Fault::TimesIgnored => matches!(endpoint, Endpoint::LogStat | Endpoint::LogRows),
            _ => true,
        }
    }

    /// The answer, if it is one that the gateway itself has no part in.
    pub fn answer(&self, request: &Request) -> Option<Answer> {
        Some(match self {
            Fault::TooManyRequests => Answer::empty(429),
            Fault::Html(status) => {
                let page = "<html>\r\n<head><title>Bad Gateway</title></head>\r\n<body>\r\n\
                            <center><h1>Bad Gateway</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n\
                            </html>\r\n";
                Answer::html(*status, page).by_a_proxy()
            }
            Fault::ServerError => {
                let body = r#"{"error":{"message":"Panic detected, error: runtime error","type":"new_api_panic"}}"#;
                Answer::json(500, body)
            }
            Fault::Refused(message) => Answer::refused(message),
            Fault::Redirect(origin) => {
                let query = if request.raw_query.is_empty() { "" } else { "?" };
                let location = format!("{origin}{}{query}{}", request.path, request.raw_query);
                Answer::redirect(302, &location).by_a_proxy()
            }
            _ => return None,
        })
    }
}

/// A fault, and which requests it befalls.
#[derive(Debug, Clone)]
pub struct Script {
    fault: Fault,
    endpoint: Option<Endpoint>,
    passing: u64,
    remaining: Option<u64>,
}

impl From<Fault> for Script {
    fn from(fault: Fault) -> Self {
        Script { fault, endpoint: None, passing: 0, remaining: None }
    }
}

impl Script {
    pub fn on(mut self, endpoint: Endpoint) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    pub fn times(mut self, count: u64) -> Self {
        self.remaining = Some(count);
        self
    }

    pub fn after(mut self, count: u64) -> Self {
        self.passing = count;
        self
    }

    fn concerns(&self, endpoint: Endpoint) -> bool {
        self.fault.can_befall(endpoint) && self.endpoint.is_none_or(|only| only == endpoint)
    }
}

/// The scripts in force. A request meets the first that concerns it and is not used up; those before it that let it
/// pass count it.
#[derive(Debug, Default)]
pub struct Scripts(Vec<Script>);

impl Scripts {
    pub fn add(&mut self, script: Script) {
        self.0.push(script);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn next(&mut self, endpoint: Endpoint) -> Option<Fault> {
        for script in self.0.iter_mut().filter(|script| script.concerns(endpoint)) {
            if script.passing > 0 {
                script.passing -= 1;
                continue;
            }
            match &mut script.remaining {
                Some(0) => continue,
                Some(remaining) => *remaining -= 1,
                None => {}
            }
            return Some(script.fault.clone());
        }
        None
    }
}

/// How many calls a client address has within some seconds.
#[derive(Debug, Clone, Copy)]
pub struct RateLimit {
    pub calls: usize,
    pub window_secs: i64,
}

impl RateLimit {
    /// What was measured on a new-api with its settings untouched: the 360th call within 3 minutes is refused.
    pub const REAL: RateLimit = RateLimit { calls: 359, window_secs: 180 };
}

/// Keeps a limit as new-api does: by the times of the calls that were taken.
#[derive(Debug)]
pub struct Limiter {
    limit: RateLimit,
    taken_secs: std::collections::VecDeque<i64>,
}

impl Limiter {
    pub fn new(limit: RateLimit) -> Self {
        Limiter { limit, taken_secs: std::collections::VecDeque::new() }
    }

    /// Whether a call at that second is taken.
    pub fn takes(&mut self, now_secs: i64) -> bool {
        if self.taken_secs.len() >= self.limit.calls {
            let is_free = self.taken_secs.front().is_some_and(|oldest| now_secs - oldest >= self.limit.window_secs);
            if !is_free {
                return false;
            }
            self.taken_secs.pop_front();
        }
        self.taken_secs.push_back(now_secs);
        true
    }
}
