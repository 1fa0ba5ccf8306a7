//! Settings of the metrics listener. Names and help of the metrics are `telemetry`.

use std::net::SocketAddr;

use ::config::ValueKind;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys { name: "metrics", keys: &[("listen", Kind::Text, Effect::AtStart)] };

/// Where `/metrics` is served.
#[derive(Debug, Clone)]
pub struct MetricsSettings {
    /// `None`: off.
    pub listen: Option<SocketAddr>,
}

impl MetricsSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let listen = reader.section(KEYS.name).parse("listen", parse_listen);
        Some(MetricsSettings { listen: listen? })
    }
}

pub(super) fn parse_listen(kind: &ValueKind) -> Parsed<Option<SocketAddr>> {
    match values::text(kind)? {
        "" => Ok(None),
        text => values::address(text).map(Some).map_err(|message| format!("{message}, or \"\" for off")),
    }
}
