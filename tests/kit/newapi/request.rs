//! What a client asked: one request, read whole, and which endpoint of new-api it means. Answers nothing.

use std::io::{self, Read};
use std::net::TcpStream;

const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The endpoints that this new-api has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// `GET /api/status`
    Status,
    /// `GET /api/log/`
    LogRows,
    /// `GET /api/log/stat`
    LogStat,
    /// `GET /api/option/`
    Options,
    /// `PUT /api/option/`
    OptionUpdate,
    /// `GET /api/token/`
    Tokens,
    /// `PUT /api/token/`
    TokenUpdate,
    /// Any other path or method.
    Other,
}

impl Endpoint {
    fn of(method: &str, path: &str) -> Self {
        match (method, path) {
            ("GET", "/api/status") => Endpoint::Status,
            ("GET", "/api/log/") => Endpoint::LogRows,
            ("GET", "/api/log/stat") => Endpoint::LogStat,
            ("GET", "/api/option/") => Endpoint::Options,
            ("PUT", "/api/option/") => Endpoint::OptionUpdate,
            ("GET", "/api/token/") => Endpoint::Tokens,
            ("PUT", "/api/token/") => Endpoint::TokenUpdate,
            _ => Endpoint::Other,
        }
    }
}

/// One request, whole.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As it came, without the `?`.
    pub raw_query: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub endpoint: Endpoint,
}

impl Request {
    /// The first parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A parameter as Go reads it: absent and unreadable are 0.
    pub fn number(&self, name: &str) -> i64 {
        self.parameter(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The first header of that name, in whatever case it is written; an empty one is as good as none.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The client will send no further request on this connection.
    pub fn closes(&self) -> bool {
        self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Reads requests from one connection.
#[derive(Debug)]
pub struct Requests {
    stream: TcpStream,
    /// Received, and not yet part of a request.
    pending: Vec<u8>,
}

impl Requests {
    pub fn from(stream: TcpStream) -> Self {
        Requests { stream, pending: Vec::new() }
    }

    /// The next request; nothing once the client has closed.
    pub fn next(&mut self) -> io::Result<Option<Request>> {
        let head_bytes = loop {
            if let Some(at) = self.pending.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if self.pending.len() > MAX_HEAD_BYTES {
                return Err(invalid("the head of the request has no end"));
            }
            if self.fill()? == 0 {
                return if self.pending.is_empty() { Ok(None) } else { Err(invalid("a head broke off")) };
            }
        };
        let rest = self.pending.split_off(head_bytes);
        let head = std::mem::replace(&mut self.pending, rest);
        let mut request = parse_head(&head)?;
        if request.header("Transfer-Encoding").is_some() {
            return Err(invalid("this server reads bodies by their length alone"));
        }
        let length = request.header("Content-Length").map_or(Ok(0), str::parse::<usize>);
        let length = length.map_err(|_| invalid("the length is no number"))?;
        if length > MAX_BODY_BYTES {
            return Err(invalid("the body is too long"));
        }
        while self.pending.len() < length {
            if self.fill()? == 0 {
                return Err(invalid("a body broke off"));
            }
        }
        let rest = self.pending.split_off(length);
        request.body = std::mem::replace(&mut self.pending, rest);
        Ok(Some(request))
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = self.stream.read(&mut chunk)?;
        self.pending.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

fn parse_head(head: &[u8]) -> io::Result<Request> {
    let text = std::str::from_utf8(head).map_err(|_| invalid("the head is no text"))?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1"), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid("the request line is no HTTP/1.1"));
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header has no colon"))?;
        Ok((name.to_owned(), value.trim().to_owned()))
    };
    let headers = lines.map(header).collect::<io::Result<_>>()?;
    let (path, raw_query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        raw_query: raw_query.to_owned(),
        query: url::form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect(),
        headers,
        body: Vec::new(),
        endpoint: Endpoint::of(method, path),
    })
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem.to_owned())
}
