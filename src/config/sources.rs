//! The layers of a configuration and their order: defaults, file, the guide's names, `HOOKLEDGER__…`; later wins.
//!
//! Each layer names the origin of its values and loses its unknown keys here, before the layers are merged, so that
//! a mistake is told even where a later layer would hide it. What the values mean is none of its business.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use ::config::{Config, File, FileFormat, Map, Source, Value, ValueKind};

use super::error::Problem;
use super::keys::{self, Kind, SECTIONS, VARIABLE_PREFIX};
use super::report::DEFAULT_ORIGIN;
use super::{balance, database, secret, suggest, values};

/// The commented reference, which is the defaults as well.
const DEFAULT_TEXT: &str = include_str!("../../config/default.toml");

/// Names of LetAiCode's guide that stand for one key each. `HOST` and `PORT` are half a key, and
/// `NEW_API_ADMIN_TOKEN` lends itself to a second one.
const GUIDE_NAMES: [(&str, &str); 6] = [
    ("WEBHOOK_SECRET", "webhook.secrets"),
    ("WEBHOOK_ENABLED", "webhook.enabled"),
    (database::URL_VARIABLE, "database.url"),
    ("NEW_API_BASE_URL", "newapi.base_url"),
    ("NEW_API_USER_ID", "newapi.user_id"),
    (balance::ADMIN_TOKEN_VARIABLE, ACCESS_TOKEN),
];

const ACCESS_TOKEN: &str = "newapi.access_token";
const ACCESS_TOKEN_FILE: &str = "newapi.access_token_file";

const LISTEN: &str = "server.listen";

/// All layers merged, and what was wrong with them.
pub(super) struct Layers {
    /// By `section.key`; known keys only.
    pub(super) values: BTreeMap<String, Value>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Layers {
    pub(super) fn collect(default_file: &Path, file: Option<&Path>, environment: BTreeMap<String, String>) -> Self {
        let mut layers = Layers { values: BTreeMap::new(), problems: Vec::new(), warnings: Vec::new() };
        let defaults = layers.text_layer(DEFAULT_TEXT, DEFAULT_ORIGIN);
        let mut file = layers.file_layer(default_file, file);
        let listen = file.text(LISTEN).or_else(|| defaults.text(LISTEN));
        let mut guide = guide_layer(&environment, listen);
        let variables = layers.variable_layer(&environment);
        // The guide's token takes the rank of its layer over the key's twin as well.
        if variables.values.contains_key(ACCESS_TOKEN_FILE) {
            guide.values.remove(ACCESS_TOKEN);
        } else if guide.values.contains_key(ACCESS_TOKEN) {
            file.values.remove(ACCESS_TOKEN_FILE);
        }
        match merge([defaults, file, guide, variables]) {
            Ok(values) => layers.values = with_admin_token(values, &environment),
            Err(error) => layers.refuse(None, DEFAULT_ORIGIN, format!("the layers can't be merged: {error}")),
        }
        layers
    }

    fn refuse(&mut self, key: Option<&str>, place: &str, message: String) {
        self.problems.push(Problem { key: key.map(str::to_owned), place: place.to_owned(), message });
    }

    /// An unreadable file is a problem and an empty layer: the rest is still looked through.
    fn file_layer(&mut self, default_file: &Path, file: Option<&Path>) -> Layer {
        let path = file.unwrap_or(default_file);
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let place = path.display().to_string();
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let layer = self.text_layer(&text, &place);
                if layer.holds_secrets() && secret::is_open_to_everyone(&path) {
                    self.warnings
                        .push(format!("{place} holds secrets and everyone on this machine can read it: chmod 640 it"));
                }
                if secret::is_changeable_by_others(&path) {
                    self.warnings.push(format!("{place} can be changed by others than its owner: chmod 640 it"));
                }
                layer
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && file.is_none() => Layer::default(),
            Err(error) => {
                self.refuse(None, &place, format!("must be a readable configuration file: {error}"));
                Layer::default()
            }
        }
    }

    fn text_layer(&mut self, text: &str, place: &str) -> Layer {
        match File::from_str(text, FileFormat::Toml).collect() {
            Ok(table) => self.sift(table, place),
            Err(error) => {
                self.refuse(None, place, syntax_message(&error));
                Layer::default()
            }
        }
    }

    /// Takes the known keys out of a file and refuses the rest.
    fn sift(&mut self, table: Map<String, Value>, place: &str) -> Layer {
        let mut layer = Layer::default();
        for (name, value) in BTreeMap::from_iter(table) {
            let section = SECTIONS.iter().find(|section| section.name == name);
            match (section, value.kind) {
                (Some(section), ValueKind::Table(entries)) => {
                    for (key, value) in BTreeMap::from_iter(entries) {
                        let is_known = section.keys.iter().any(|(known, ..)| *known == key);
                        let path = format!("{name}.{key}");
                        match value.kind {
                            _ if !is_known => self.refuse_unknown_key(&path, place),
                            ValueKind::Table(_) => {
                                self.refuse(Some(&path), place, "must be a value, not a section".to_owned())
                            }
                            kind => layer.insert(&path, kind, place),
                        }
                    }
                }
                (Some(_), _) => self.refuse(Some(&name), place, format!("must be a section, written [{name}]")),
                (None, ValueKind::Table(_)) => self.refuse_unknown_section(&name, place),
                (None, _) => self.refuse_unknown_key(&name, place),
            }
        }
        layer
    }

    fn refuse_unknown_section(&mut self, name: &str, place: &str) {
        let meant = suggest::nearest(name, SECTIONS.iter().map(|section| section.name));
        let hint = meant.map_or(String::new(), |meant| format!("; did you mean [{meant}]?"));
        self.refuse(Some(name), place, format!("is not a section of this version{hint}"));
    }

    fn refuse_unknown_key(&mut self, key: &str, place: &str) {
        let known: Vec<String> = keys::all().map(|(known, _)| known).collect();
        let hint = suggest::key(key, &known).map_or(String::new(), |meant| format!("; did you mean {meant}?"));
        self.refuse(Some(key), place, format!("is not a key of this version{hint}"));
    }

    /// `HOOKLEDGER__SECTION__KEY`, in capitals.
    fn variable_layer(&mut self, environment: &BTreeMap<String, String>) -> Layer {
        let known: BTreeMap<String, (String, Kind)> =
            keys::all().map(|(key, kind)| (keys::variable_of(&key), (key, kind))).collect();
        let nearest = |name: &str| suggest::nearest(&name.to_uppercase(), known.keys().map(String::as_str));
        let mut layer = Layer::default();
        for (name, text) in environment {
            if let Some((key, kind)) = known.get(name) {
                layer.insert(key, value_of(text, *kind), &place_of(name));
            } else if let Some(rest) = name.strip_prefix(VARIABLE_PREFIX) {
                let key = rest.replace("__", ".").to_lowercase();
                let hint = nearest(name).map_or(String::new(), |meant| format!("; did you mean {meant}?"));
                self.refuse(Some(&key), &place_of(name), format!("is not a key of this version{hint}"));
            } else if let Some(meant) = nearest(name).filter(|_| name.starts_with("HOOKLEDGER_")) {
                // Other programs may have names like this one, so it is only pointed out.
                self.warnings.push(format!("environment variable {name} has no effect; did you mean {meant}?"));
            }
        }
        layer
    }
}

/// The guide's names. Empty ones count as unset: its templates leave them so.
fn guide_layer(environment: &BTreeMap<String, String>, lower_listen: Option<&str>) -> Layer {
    let set = |name: &str| environment.get(name).filter(|text| !text.trim().is_empty());
    let mut layer = Layer::default();
    for (name, key) in GUIDE_NAMES {
        let Some(text) = set(name) else { continue };
        let value = match key {
            // One secret, whole: it may hold a comma.
            "webhook.secrets" => ValueKind::Array(vec![Value::new(Some(&place_of(name)), text.as_str())]),
            "webhook.enabled" => value_of(text, Kind::Boolean),
            "newapi.user_id" => value_of(text, Kind::Number),
            _ => value_of(text, Kind::Text),
        };
        layer.insert(key, value, &place_of(name));
    }
    // A broken address below is told where it stands, and can't lend its other half.
    let lower = lower_listen.and_then(|text| values::address(text.trim()).ok());
    if let Some((listen, place)) = guide_listen(set("HOST"), set("PORT"), lower) {
        layer.insert(LISTEN, ValueKind::String(listen), &place);
    }
    layer
}

/// new-api's own token opens the balance question where the operator named none for it, in whatever layer.
fn with_admin_token(
    mut values: BTreeMap<String, Value>,
    environment: &BTreeMap<String, String>,
) -> BTreeMap<String, Value> {
    let name = balance::ADMIN_TOKEN_VARIABLE;
    let token = environment.get(name).filter(|text| !text.trim().is_empty());
    let is_named = ["balance.token", "balance.token_file"].iter().any(|key| values.contains_key(*key));
    if let Some(token) = token.filter(|_| !is_named) {
        values.insert("balance.token".to_owned(), Value::new(Some(&place_of(name)), token.as_str()));
    }
    values
}

/// `HOST` and `PORT` each replace their part of the address below.
fn guide_listen(host: Option<&String>, port: Option<&String>, lower: Option<SocketAddr>) -> Option<(String, String)> {
    let place = match (host, port) {
        (Some(_), Some(_)) => "environment variables HOST and PORT".to_owned(),
        (Some(_), None) => place_of("HOST"),
        (None, Some(_)) => place_of("PORT"),
        (None, None) => return None,
    };
    let host = host.map(|host| host.trim().to_owned()).or_else(|| lower.map(|lower| lower.ip().to_string()))?;
    let port = port.map(|port| port.trim().to_owned()).or_else(|| lower.map(|lower| lower.port().to_string()))?;
    let is_ipv6 = host.parse::<Ipv6Addr>().is_ok();
    let listen = if is_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Some((listen, place))
}

pub(super) fn place_of(variable: &str) -> String {
    format!("environment variable {variable}")
}

/// Text that doesn't fit its kind stays text: the reader then says what would be right.
fn value_of(text: &str, kind: Kind) -> ValueKind {
    let trimmed = text.trim();
    match kind {
        Kind::Text | Kind::Secret => ValueKind::String(text.to_owned()),
        Kind::Number => trimmed.parse().map_or_else(|_| ValueKind::String(text.to_owned()), ValueKind::I64),
        Kind::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => ValueKind::Boolean(true),
            "false" | "0" | "no" | "off" => ValueKind::Boolean(false),
            _ => ValueKind::String(text.to_owned()),
        },
        Kind::List | Kind::Secrets => {
            let elements = text.split(',').map(str::trim).filter(|element| !element.is_empty());
            ValueKind::Array(elements.map(|element| Value::new(None, element)).collect())
        }
    }
}

/// The parser's message without the line it quotes: that line may hold a secret.
fn syntax_message(error: &::config::ConfigError) -> String {
    let ::config::ConfigError::FileParse { cause, .. } = error else { return error.to_string() };
    let text = cause.to_string();
    let Some(rest) = text.strip_prefix("TOML parse error at ") else { return format!("must be TOML: {text}") };
    let mut lines = rest.lines();
    let position = lines.next().unwrap_or_default();
    // Three lines show the place in the text.
    let message: Vec<&str> = lines.skip(3).collect();
    format!("{position}: must be TOML: {}", message.join(", "))
}

/// Values of one origin by `section.key`. Debug shows the keys alone.
#[derive(Clone, Default)]
struct Layer {
    values: Map<String, Value>,
}

impl Layer {
    fn insert(&mut self, key: &str, kind: ValueKind, origin: &str) {
        self.values.insert(key.to_owned(), Value::new(Some(&origin.to_owned()), kind));
    }

    fn holds_secrets(&self) -> bool {
        keys::all().any(|(key, kind)| kind.is_secret() && self.values.contains_key(&key))
            || self.values.get("database.url").is_some_and(|url| database::holds_password(&url.kind))
    }

    fn text(&self, key: &str) -> Option<&str> {
        match &self.values.get(key)?.kind {
            ValueKind::String(text) => Some(text),
            _ => None,
        }
    }
}

impl fmt::Debug for Layer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.values.clone())
    }
}

fn merge(layers: [Layer; 4]) -> Result<BTreeMap<String, Value>, ::config::ConfigError> {
    let builder = layers.into_iter().fold(Config::builder(), |builder, layer| builder.add_source(layer));
    let mut values = BTreeMap::new();
    for (section, value) in builder.build()?.collect()? {
        if let ValueKind::Table(entries) = value.kind {
            values.extend(entries.into_iter().map(|(key, value)| (format!("{section}.{key}"), value)));
        }
    }
    Ok(values)
}
