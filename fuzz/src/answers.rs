//! Reads answers as a client would, and says what every one of them must be.

use serde_json::Value;

/// One answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// None: it is no JSON, as where the server refuses what is no request at all.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The answers in these bytes, as far as they are whole. Bytes that are no answer end the run.
///
/// With `HEAD` among the requests nobody can tell where an answer ends: then the first is all that is read.
pub fn split(mut bytes: &[u8], has_head: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        assert!(bytes.starts_with(b"HTTP/1.") || b"HTTP/1.".starts_with(bytes), "no answer: {}", shown(bytes));
        let Some(end) = find(bytes, b"\r\n\r\n") else { break };
        let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a head has a status");
        bytes = &bytes[end + 4..];
        if has_head {
            answers.push(Answer { status, body: Vec::new() });
            break;
        }
        let length = head.lines().filter_map(|line| line.split_once(": "));
        let length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.map(|(_, value)| value.parse::<usize>().expect("a length is a number")).next();
        let Some((body, rest)) = bytes.split_at_checked(length.unwrap_or_default()) else { break };
        answers.push(Answer { status, body: body.to_vec() });
        bytes = rest;
    }
    answers
}

/// Puts a value where a seed names it.
pub fn filled(request: &[u8], name: &[u8], value: &str) -> Vec<u8> {
    let mut filled = Vec::new();
    let mut rest = request;
    while let Some(at) = find(rest, name) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(value.as_bytes());
        rest = &rest[at + name.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}

/// What lies behind the first head.
pub fn body_of(request: &[u8]) -> &[u8] {
    find(request, b"\r\n\r\n").map_or(&[], |end| &request[end + 4..])
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

pub fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
