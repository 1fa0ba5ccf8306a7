//! Settings of new-api: where it is, who asks there, and how often. What is asked and when is `gateway` and `polling`.

use std::net::IpAddr;
use std::time::Duration;

use ::config::ValueKind;
use secrecy::SecretString;
use url::{Host, Url};

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::{Reader, Section};
use super::token;
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "newapi",
    keys: &[
        ("base_url", Kind::Text, Effect::AtReload),
        ("access_token", Kind::Secret, Effect::AtReload),
        ("access_token_file", Kind::Text, Effect::AtReload),
        ("user_id", Kind::Number, Effect::AtReload),
        ("timeout", Kind::Text, Effect::AtReload),
        ("page_size", Kind::Number, Effect::AtReload),
        ("requests_per_second", Kind::Text, Effect::AtReload),
        ("max_retries", Kind::Number, Effect::AtReload),
        ("base_backoff", Kind::Text, Effect::AtReload),
        ("group", Kind::Text, Effect::AtReload),
        ("username", Kind::Text, Effect::AtReload),
        ("source", Kind::Text, Effect::AtReload),
    ],
};

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// new-api cuts a longer page silently.
const LARGEST_PAGE: i64 = 100;

/// Far above what a gateway allows.
const MOST_REQUESTS_PER_SECOND: f64 = 1000.0;

/// Below this a single look takes longer than anybody waits.
const FEWEST_REQUESTS_PER_SECOND: f64 = 0.01;

/// A name, group or user is a column of 64 characters there and here.
const MAX_NAME_CHARS: usize = 64;

/// How new-api is asked.
#[derive(Debug, Clone)]
pub struct NewApiSettings {
    /// None: no gateway is asked for anything.
    pub access: Option<NewApiAccess>,
    /// How long one answer may take.
    pub timeout: Duration,
    pub page_size: u32,
    /// Over all requests to this gateway. None: no limit.
    pub requests_per_second: Option<f64>,
    /// Further tries of a request whose failure may pass.
    pub max_retries: u32,
    /// Pause before the first of them; it doubles each time, with jitter.
    pub base_backoff: Duration,
    /// Narrows the log to one group.
    pub group: Option<String>,
    /// Narrows the log to one user.
    pub username: Option<String>,
    /// The name under which this gateway's rows are known.
    pub source: String,
}

/// Where the gateway is, and who asks.
#[derive(Debug, Clone)]
pub struct NewApiAccess {
    /// http or https, without credentials, query and slash at the end of its path.
    pub base_url: Url,
    pub access_token: SecretString,
    pub user_id: i64,
}

impl NewApiSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let access = read_access(&mut section);
        let timeout = section.duration("timeout", MILLISECOND..=TEN_MINUTES);
        let page_size = section.integer("page_size", 1..=LARGEST_PAGE);
        let requests_per_second =
            section.parse("requests_per_second", |kind| values::fraction(kind, 0.0..=MOST_REQUESTS_PER_SECOND));
        if let Some(rate) = requests_per_second {
            section.show("requests_per_second", rate);
            if rate > 0.0 && rate < FEWEST_REQUESTS_PER_SECOND {
                let message = format!("must be at least {FEWEST_REQUESTS_PER_SECOND}, or 0 for no limit; got {rate}");
                section.refuse("requests_per_second", message);
            }
        }
        let max_retries = section.integer("max_retries", 0..=20);
        let base_backoff = section.duration("base_backoff", MILLISECOND..=TEN_MINUTES);
        let group = section.parse_optional("group", parse_name);
        let username = section.parse_optional("username", parse_name);
        let source = section.parse("source", parse_source);
        Some(NewApiSettings {
            access: access?,
            timeout: timeout?,
            page_size: page_size?,
            requests_per_second: requests_per_second.map(|rate| Some(rate).filter(|rate| *rate > 0.0))?,
            max_retries: max_retries?,
            base_backoff: base_backoff?,
            group: group?,
            username: username?,
            source: source?,
        })
    }
}

/// `Some(None)`: no base_url, so that the rest has no use yet.
fn read_access(section: &mut Section<'_>) -> Option<Option<NewApiAccess>> {
    let base_url = section.parse_optional("base_url", parse_base_url);
    let access_token = token::read_named(section, "access_token", "access_token_file");
    let user_id = section.is_set("user_id").then(|| section.integer("user_id", 1..=i64::MAX));
    let Some(base_url) = base_url? else {
        let is_sound = access_token.is_some() && user_id != Some(None);
        return is_sound.then_some(None);
    };
    if let Some(Some(given)) = &access_token
        && !given.text.is_ascii()
    {
        section.refuse(given.key, "must consist of ASCII characters, since it goes into a header");
    }
    if matches!(access_token, Some(None)) {
        section.refuse(
            "access_token",
            "must be set where newapi.base_url is, or newapi.access_token_file: an administrator makes the token in \
             new-api's console, under personal settings",
        );
    }
    if user_id.is_none() {
        section.refuse(
            "user_id",
            "must be set where newapi.base_url is: the number of the user in new-api whose access token it is, often 1",
        );
    }
    if crosses_a_network_in_the_clear(&base_url) {
        section.warn(format!(
            "newapi.base_url is {base_url}, and an administrator's token goes there in the clear: use https"
        ));
    }
    Some(Some(NewApiAccess { base_url, access_token: SecretString::from(access_token??.text), user_id: user_id?? }))
}

fn parse_base_url(kind: &ValueKind) -> Parsed<Url> {
    let text = values::text(kind)?;
    // No message repeats the text: it may hold a password.
    let mut url = Url::parse(text)
        .map_err(|error| format!("must be a URL such as http://127.0.0.1:3000 or https://api.example.com ({error})"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("must begin with http:// or https://; got {}:", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("must hold no name and no password: they belong into newapi.user_id and newapi.access_token".into());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must end with its path: what follows `?` or `#` has no use here".to_owned());
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if path.ends_with("/api") {
        return Err("must be the address of the console, without /api at its end".to_owned());
    }
    url.set_path(&path);
    Ok(url)
}

/// Names without a dot are those of containers and of a local network.
fn crosses_a_network_in_the_clear(url: &Url) -> bool {
    let is_near = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Some(Host::Ipv6(address)) => is_near(address.into()) || address.is_unique_local(),
        Some(Host::Domain(name)) => !name.contains('.') || name.ends_with(".internal") || name.ends_with(".local"),
        None => true,
    };
    url.scheme() == "http" && !is_near
}

fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_loopback() || address.is_private(),
        IpAddr::V6(address) => address.is_loopback(),
    }
}

/// A group or a user of new-api.
fn parse_name(kind: &ValueKind) -> Parsed<String> {
    let text = values::text(kind)?;
    let is_plain = !text.is_empty() && !text.chars().any(char::is_control) && text.chars().count() <= MAX_NAME_CHARS;
    is_plain.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "must be a name of 1 to {MAX_NAME_CHARS} characters; leave the key out for all; got {}",
            values::describe(kind)
        )
    })
}

fn parse_source(kind: &ValueKind) -> Parsed<String> {
    let text = values::text(kind)?;
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._".contains(letter);
    if text.is_empty() || text.len() > MAX_NAME_CHARS || !text.chars().all(is_plain) {
        return Err(format!(
            "must consist of 1 to {MAX_NAME_CHARS} letters, digits, `-`, `.` and `_`; got {}",
            values::describe(kind)
        ));
    }
    Ok(text.to_owned())
}
