//! Answers as Go's HTTP server and gin write them: envelope, headers, and the bytes on the wire.

use chrono::DateTime;
use serde::Serialize;

/// Up to this many bytes Go knows the length when it writes the head; longer bodies go out in chunks.
const LARGEST_COUNTED_BYTES: usize = 2048;

/// Status, headers of its own, body.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// False: something in front of the gateway answers.
    pub is_gateways: bool,
}

impl Answer {
    /// A body of JSON, with the characters escaped that Go escapes.
    pub fn json(status: u16, body: &str) -> Self {
        let mut escaped = String::with_capacity(body.len());
        for character in body.chars() {
            match character {
                '<' => escaped.push_str("\\u003c"),
                '>' => escaped.push_str("\\u003e"),
                '&' => escaped.push_str("\\u0026"),
                '\u{2028}' => escaped.push_str("\\u2028"),
                '\u{2029}' => escaped.push_str("\\u2029"),
                other => escaped.push(other),
            }
        }
        let headers = vec![("Content-Type", "application/json; charset=utf-8".to_owned())];
        Answer { status, headers, body: escaped.into_bytes(), is_gateways: true }
    }

    pub fn html(status: u16, body: &str) -> Self {
        let headers = vec![("Content-Type", "text/html; charset=utf-8".to_owned())];
        Answer { status, headers, body: body.as_bytes().to_vec(), is_gateways: true }
    }

    pub fn empty(status: u16) -> Self {
        Answer { status, headers: Vec::new(), body: Vec::new(), is_gateways: true }
    }

    pub fn redirect(status: u16, location: &str) -> Self {
        let page = format!("<a href=\"{}\">{}</a>.\n\n", location.replace('&', "&amp;"), reason(status));
        let mut answer = Answer::html(status, &page);
        answer.headers.push(("Location", location.to_owned()));
        answer
    }

    /// From a proxy in front of the gateway.
    pub fn by_a_proxy(mut self) -> Self {
        self.is_gateways = false;
        self
    }

    /// Success: `{"data":…,"message":"","success":true}`.
    pub fn data(data: &impl Serialize) -> Self {
        let data = serde_json::to_string(data).expect("the answer can be written as JSON");
        Answer::json(200, &format!(r#"{{"data":{data},"message":"","success":true}}"#))
    }

    /// Success with nothing to say.
    pub fn done() -> Self {
        Answer::json(200, r#"{"message":"","success":true}"#)
    }

    /// A failure as most are: HTTP 200 and `success:false`.
    pub fn refused(message: &str) -> Self {
        Answer::refused_with(200, message)
    }

    pub fn refused_with(status: u16, message: &str) -> Self {
        let message = serde_json::to_string(message).expect("every text is a JSON string");
        Answer::json(status, &format!(r#"{{"message":{message},"success":false}}"#))
    }

    /// The head and the body, apart.
    pub fn bytes(&self, request_id: &str, date: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.is_gateways {
            head.push_str(&format!("X-Oneapi-Request-Id: {request_id}\r\n"));
        }
        if let Some(date) = date {
            head.push_str(&format!("Date: {date}\r\n"));
        }
        if self.body.len() <= LARGEST_COUNTED_BYTES {
            head.push_str(&format!("Content-Length: {}\r\n\r\n", self.body.len()));
            return (head.into_bytes(), self.body.clone());
        }
        head.push_str("Transfer-Encoding: chunked\r\n\r\n");
        let mut body = Vec::with_capacity(self.body.len() + 1024);
        for chunk in self.body.chunks(LARGEST_COUNTED_BYTES) {
            body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        (head.into_bytes(), body)
    }
}

/// A moment as the `Date` header writes it.
pub fn http_date(unix_secs: i64) -> String {
    let moment = DateTime::from_timestamp(unix_secs, 0).expect("the year fits");
    moment.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// An id as new-api makes them for its requests: the moment, the machine, and letters that differ by `number`.
pub fn request_id(unix_secs: i64, number: u64) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let moment = DateTime::from_timestamp(unix_secs, 0).expect("the year fits").format("%Y%m%d%H%M%S");
    let letter = |place: u32| {
        let digit = number / 62_u64.pow(place) % 62;
        char::from(LETTERS[usize::try_from(digit).expect("a digit fits")])
    };
    let letters: String = (0..8).rev().map(letter).collect();
    format!("{moment}{:09}5a17c0de{letters}", number.wrapping_mul(7_919) % 1_000_000_000)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
