//! The reading of an answer without the asking: a door for the fuzzer, by the road that every page takes.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use url::Url;

use super::answer::RawAnswer;
use super::error::GatewayError;
use super::log_page::{self, LogPage};
use super::request::Endpoint;
use super::row::Asked;
use super::window::Window;
use crate::domain::log_row::RowKind;

/// What was asked for, and with which token.
#[derive(Debug, Clone, Copy)]
pub struct AskedPage<'a> {
    pub url: &'a Url,
    pub token: &'a str,
    pub window: Window,
    pub kind: RowKind,
    pub group: Option<&'a str>,
    pub number: u32,
}

/// Makes a page of an answer with this status and body.
pub fn page_of(asked: AskedPage<'_>, status: u16, body: Vec<u8>) -> Result<LogPage, GatewayError> {
    let AskedPage { url, token, window, kind, group, number } = asked;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let answer = RawAnswer { endpoint: Endpoint::Log, url: url.clone(), status, headers: HeaderMap::new(), body };
    let answer = answer.judge(token)?;
    let asked = Asked { window, kind, group, username: None };
    log_page::split(&answer.data)?.read(asked, number, answer.source_time)
}
