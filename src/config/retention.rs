//! Settings of what is cleared after how long. Clearing it is `actors::retaining`; why that is safe, `domain::retention`.

use std::time::Duration;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::{DatabaseUrl, database, values};
use crate::domain::retention::RetentionPolicy;

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "retention",
    keys: &[
        ("webhook_logs", Kind::Text, Effect::AtReload),
        ("dead", Kind::Text, Effect::AtReload),
        ("claims", Kind::Text, Effect::AtReload),
    ],
};

/// What is kept, and how long.
#[derive(Debug, Clone)]
pub struct RetentionSettings {
    pub policy: RetentionPolicy,
}

impl RetentionSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let max_age = reader.peek("webhook.max_age", values::duration);
        let max_future = reader.peek("webhook.max_future", values::duration);
        // Claims have to outlive every second look at the calls of a gateway's log.
        let looks = ["polling.recheck", "polling.full_read_interval"].map(|key| reader.peek(key, values::duration));
        let is_guest = matches!(reader.peek("database.url", database::parse_url), Some(DatabaseUrl::Mysql(_)));
        let mut section = reader.section(KEYS.name);
        let webhook_logs = if is_guest && !section.is_set("webhook_logs") {
            // Nothing is cleared from a platform's own tables before somebody said so.
            section.show("webhook_logs", values::FOREVER);
            Some(None)
        } else {
            section.parse("webhook_logs", values::retention)
        };
        let dead = section.parse("dead", values::retention);
        let claims = section.parse("claims", values::retention);
        let (max_age, max_future) = (max_age.unwrap_or_default(), max_future.unwrap_or_default());
        let tolerance = max_age + max_future;
        if let Some(Some(kept)) = webhook_logs
            && kept <= tolerance
        {
            let (least, got) = (values::show_duration(tolerance), values::show_duration(kept));
            section.refuse(
                "webhook_logs",
                format!("must be longer than webhook.max_age and webhook.max_future together, {least}; got {got}"),
            );
        }
        if let (true, Some(Some(logs)), Some(Some(claims))) = (is_guest, webhook_logs, claims)
            && claims <= logs
        {
            section.warn(
                "retention.webhook_logs is no shorter than retention.claims: on a platform's database a row of a charged \
                 event is known as our own by its claim, so that rows whose claims went first stay",
            );
        }
        if let Some(Some(kept)) = claims {
            let look_back = looks.into_iter().flatten().fold(max_age, Duration::saturating_add);
            let got = values::show_duration(kept);
            if kept <= look_back {
                let least = values::show_duration(look_back);
                section.refuse(
                    "claims",
                    format!(
                        "must be longer than webhook.max_age, polling.recheck and polling.full_read_interval together, \
                         {least}; got {got}"
                    ),
                );
            }
            match dead {
                Some(None) => section.refuse("claims", "must be \"forever\" where retention.dead is".to_owned()),
                Some(Some(dead)) if kept <= dead => {
                    let least = values::show_duration(dead);
                    section.refuse("claims", format!("must be longer than retention.dead, {least}; got {got}"));
                }
                _ => {}
            }
        }
        Some(RetentionSettings {
            policy: RetentionPolicy { webhook_logs: webhook_logs?, dead: dead?, claims: claims? },
        })
    }
}
