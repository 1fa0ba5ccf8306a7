//! A tiny HTTP server for the tests of this folder: each request gets what a function of the test says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use url::Url;

use super::HttpGateway;
use crate::config::{NewApiAccess, NewApiSettings};

pub(super) const TOKEN: &str = "aTokenThatNobodyMaySee";

/// One request as it came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// Lower-case names.
    pub(super) headers: BTreeMap<String, String>,
}

impl Request {
    fn parse(head: &str) -> Self {
        let mut lines = head.lines();
        let target = lines.next().unwrap().split(' ').nth(1).unwrap();
        let url = Url::parse("http://server").unwrap().join(target).unwrap();
        let headers = lines.filter_map(|line| line.split_once(": "));
        Request {
            path: url.path().to_owned(),
            query: url.query_pairs().into_owned().collect(),
            headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        }
    }

    pub(super) fn number(&self, name: &str) -> i64 {
        self.query[name].parse().unwrap()
    }
}

/// What the server does with a request.
pub(super) enum Reply {
    Bytes(Vec<u8>),
    /// Never answers.
    Hang,
}

/// Any status with any body; headers as they stand in an answer, each with its line end.
pub(super) fn answer(status: u16, headers: &str, body: &str) -> Reply {
    Reply::Bytes(format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes())
}

/// new-api's envelope around data, with the source's clock.
pub(super) fn success(data: &Value) -> Reply {
    let body = json!({"data": data, "message": "", "success": true}).to_string();
    answer(200, "Date: Tue, 24 Nov 2026 22:19:49 GMT\r\nContent-Type: application/json; charset=utf-8\r\n", &body)
}

pub(super) fn refusal(message: &str) -> Reply {
    answer(200, "Content-Type: application/json\r\n", &json!({"message": message, "success": false}).to_string())
}

/// Listens on a free port of this machine until it is dropped.
pub(super) struct Scripted {
    url: Url,
    requests: Arc<Mutex<Vec<Request>>>,
    serving: JoinHandle<()>,
}

impl Scripted {
    pub(super) async fn serve(reply: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, reply) = (requests.clone(), Arc::new(Mutex::new(reply)));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, seen.clone(), reply.clone()));
            }
        });
        Scripted { url, requests, serving }
    }

    /// Answers in this order, the last one for ever.
    pub(super) async fn script(replies: Vec<fn() -> Reply>) -> Self {
        let mut next = 0;
        Self::serve(move |_| {
            let reply = replies[next.min(replies.len() - 1)];
            next += 1;
            reply()
        })
        .await
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// A gateway here, which waits for nothing, after some changes to its settings.
    pub(super) fn gateway_with(&self, change: impl FnOnce(&mut NewApiAccess, &mut NewApiSettings)) -> HttpGateway {
        gateway_at(self.url.clone(), change)
    }

    pub(super) fn gateway(&self) -> HttpGateway {
        self.gateway_with(|_, _| {})
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) fn gateway_at(base_url: Url, change: impl FnOnce(&mut NewApiAccess, &mut NewApiSettings)) -> HttpGateway {
    let mut access = NewApiAccess { base_url, access_token: SecretString::from(TOKEN), user_id: 7 };
    let mut settings = NewApiSettings {
        access: None,
        timeout: Duration::from_secs(30),
        page_size: 100,
        requests_per_second: None,
        max_retries: 2,
        base_backoff: Duration::from_millis(1),
        group: None,
        username: None,
        source: "default".to_owned(),
    };
    change(&mut access, &mut settings);
    HttpGateway::new(&access, &settings).unwrap()
}

async fn answer_all<F: FnMut(&Request) -> Reply>(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    reply: Arc<Mutex<F>>,
) {
    while let Some(head) = read_head(&mut stream).await {
        let request = Request::parse(&head);
        seen.lock().unwrap().push(request.clone());
        let reply = (reply.lock().unwrap())(&request);
        let Reply::Bytes(bytes) = reply else { return std::future::pending().await };
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).to_lowercase();
        if stream.write_all(&bytes).await.is_err() || head.contains("connection: close") {
            return;
        }
    }
}

/// GET requests have no body.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
