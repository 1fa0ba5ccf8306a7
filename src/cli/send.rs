//! `hookledger send`: what to send, where to and with which secret. Building events, sending many and counting answers
//! are the files beside this one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, value_parser};
use reqwest::Url;
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::Context;
use super::failure::Failure;
use super::send_event::{Content, Feed, UsageData};
use super::send_load::{self, Target};
use crate::clock;
use crate::config::{SECRET_FILE_NAME, Settings};
use crate::domain::decimal::Decimal;
use crate::domain::ids::EventId;

/// What an event costs if nobody says otherwise: a tenth of a cent at new-api's 500,000 units a dollar.
const DEFAULT_QUOTA: i64 = 500;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["ping", "remote_key_id"]))]
#[command(group = ArgGroup::new("price").args(["quota", "cost", "credit_cost"]))]
pub struct SendArguments {
    /// Only prove that the way works: nothing is charged
    #[arg(long, conflicts_with_all = ["price", "model", "prompt_tokens", "completion_tokens"])]
    ping: bool,
    /// Charge the user whose key stands for this token of new-api
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(0..))]
    remote_key_id: Option<i64>,
    /// The price in new-api's quota units [default: 500]
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(0..))]
    quota: Option<i64>,
    /// The price in US dollars, such as 0.0123
    #[arg(long, value_name = "USD", value_parser = parse_cost)]
    cost: Option<Cost>,
    /// The price in whole credits
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(0..))]
    credit_cost: Option<i64>,
    /// The model that was called
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(i32).range(0..))]
    prompt_tokens: i32,
    /// Tokens of the answer
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(i32).range(0..))]
    completion_tokens: i32,
    /// The event's id; the same one with the same content is charged once. Only for a single event [default: a new one]
    #[arg(long, value_name = "ID", value_parser = parse_event_id)]
    event_id: Option<String>,
    /// How many events to send
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u64).range(1..=1_000_000_000))]
    count: u64,
    /// How many requests are under way at once, each on a connection of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1024))]
    concurrency: u32,
    /// How many requests begin each second; latencies then count from when each was to begin [default: no pace]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100_000))]
    per_second: Option<u32>,
    /// How often each event is sent in all, as a sender does that had no answer
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=1_000_000))]
    repeat: u32,
    /// Send again, up to 5 times, what is answered 429 or 503, after the time that the answer asks for
    #[arg(long)]
    retry: bool,
    /// Where to send to [default: the address that the configuration listens on]
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    url: Option<Url>,
    /// The file whose first secret signs [default: the secret of the configuration, or the generated one]
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// A price in US dollars, kept as it was written: no float rounds it.
type Cost = std::sync::Arc<RawValue>;

/// Answers the exit code: fine only if every answer was.
pub async fn run(arguments: SendArguments, context: &Context) -> Result<u8, Failure> {
    if arguments.event_id.is_some() && arguments.count > 1 {
        return Err(Failure::usage("--event-id names a single event: leave it out, or --count"));
    }
    let settings = context.settings()?;
    let url = match arguments.url.clone() {
        Some(url) => url,
        None => {
            parse_url(&default_url(settings.server.listen, &settings.server.webhook_path)?).map_err(Failure::usage)?
        }
    };
    let secret = find_secret(&settings, arguments.secret_file.as_deref())?;
    let SendArguments { concurrency, per_second, retry, .. } = arguments;
    let target = Target { url, concurrency, per_second, retry };
    let (count, repeat) = (arguments.count, arguments.repeat);
    let event_id = arguments.event_id.clone();
    let feed = Feed::new(arguments.into_content(), secret, clock::for_daemon(), event_id, count, repeat);
    if count == 1 && repeat == 1 {
        send_load::send_one(&target, feed, context.output).await
    } else {
        send_load::send_many(&target, feed, context.output).await
    }
}

impl SendArguments {
    /// The arguments name a key or ask for a ping.
    fn into_content(self) -> Content {
        let Some(remote_key_id) = self.remote_key_id else {
            return Content::Ping;
        };
        let is_priced = self.quota.is_some() || self.cost.is_some() || self.credit_cost.is_some();
        Content::Usage(UsageData {
            remote_key_id,
            model: self.model,
            prompt_tokens: self.prompt_tokens,
            completion_tokens: self.completion_tokens,
            total_tokens: i64::from(self.prompt_tokens) + i64::from(self.completion_tokens),
            quota: if is_priced { self.quota } else { Some(DEFAULT_QUOTA) },
            cost: self.cost,
            credit_cost: self.credit_cost,
        })
    }
}

fn parse_cost(text: &str) -> Result<Cost, String> {
    Decimal::parse(text).map_err(|error| error.to_string())?;
    let raw = RawValue::from_string(text.to_owned()).map_err(|_| "must be a number as JSON writes it".to_owned())?;
    Ok(raw.into())
}

fn parse_event_id(text: &str) -> Result<String, String> {
    EventId::parse(text).map(|id| id.as_str().to_owned()).map_err(|error| error.to_string())
}

fn parse_url(text: &str) -> Result<Url, String> {
    const FORM: &str = "must be a whole URL, such as http://127.0.0.1:4000/api/webhooks/events";
    let url = Url::parse(text).map_err(|_| FORM.to_owned())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(FORM.to_owned());
    }
    Ok(url)
}

/// Where a daemon with this configuration takes events, seen from its own machine.
fn default_url(listen: SocketAddr, webhook_path: &str) -> Result<String, Failure> {
    if listen.port() == 0 {
        return Err(Failure::usage("server.listen has port 0, so the daemon's port is not known: name it with --url"));
    }
    let host = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(address) if address.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    };
    Ok(format!("http://{}{webhook_path}/events", SocketAddr::new(host, listen.port())))
}

/// The named file's, the configured or the generated one, in this order. None is made: the daemon would not know it.
fn find_secret(settings: &Settings, file: Option<&Path>) -> Result<SecretString, Failure> {
    if let Some(file) = file {
        return read_secret(file);
    }
    if let Some(secret) = settings.webhook.secrets.first() {
        return Ok(secret.clone());
    }
    let generated = settings.database.url.state_folder().join(SECRET_FILE_NAME);
    if !generated.exists() {
        return Err(Failure::usage(format!(
            "there is no secret to sign with: none is configured, and {} does not exist. `hookledger serve` makes it; \
             for a daemon elsewhere, name its secret's file with --secret-file",
            generated.display()
        )));
    }
    read_secret(&generated)
}

fn read_secret(file: &Path) -> Result<SecretString, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("the secret's file {} cannot be read: {error}", file.display())))?;
    first_secret(&text)
        .map(SecretString::from)
        .ok_or_else(|| Failure::usage(format!("the file {} holds no secret", file.display())))
}

/// As the daemon reads such files: one secret a line, without blank lines and comments.
fn first_secret(text: &str) -> Option<&str> {
    text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_url_can_be_reached_from_here() {
        for (listen, url) in [
            ("127.0.0.1:4000", "http://127.0.0.1:4000/hooks/events"),
            ("0.0.0.0:80", "http://127.0.0.1:80/hooks/events"),
            ("[::]:4000", "http://[::1]:4000/hooks/events"),
            ("192.0.2.7:4000", "http://192.0.2.7:4000/hooks/events"),
        ] {
            assert_eq!(default_url(listen.parse().unwrap(), "/hooks").unwrap(), url);
        }
        assert!(default_url("127.0.0.1:0".parse().unwrap(), "/hooks").is_err());
    }

    #[test]
    fn only_whole_urls_are_taken() {
        assert!(parse_url("https://example.org/api/webhooks/events").is_ok());
        for odd in ["127.0.0.1:4000", "localhost:4000/events", "/events", "ftp://example.org/"] {
            assert!(parse_url(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_cost_is_kept_as_it_was_written() {
        for text in ["0.0123", "2e-06", "150", "0.10"] {
            assert_eq!(parse_cost(text).unwrap().get(), text);
        }
        for odd in ["-1", "1,5", ".5", "01", "NaN", "", "\"1\"", "1 "] {
            assert!(parse_cost(odd).is_err(), "{odd:?}");
        }
    }

    #[test]
    fn the_first_secret_of_a_file_signs() {
        assert_eq!(first_secret("# rotated in May\n\nfirst \nsecond\n"), Some("first "));
        assert_eq!(first_secret("# none\n \n"), None);
    }
}
