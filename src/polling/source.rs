//! The gateway that is configured, and what was learned of it: kept while its configuration stays the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::ExposeSecret;

use super::recognition::GatewayIdentity;
use crate::config::{Live, NewApiSettings, Settings};
use crate::domain::time::UnixMillis;
use crate::gateway::{Gateway, GatewayError, HttpGateway, Ids, StatedQuota};
use crate::storage::log::{NewestId, SourceFilter};

/// What was seen of a gateway so far, in memory: a restarted process sees it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceMemory {
    pub ids: Ids,
    /// The newest row with a stable id.
    pub newest_id: Option<NewestId>,
    /// What it said of itself last.
    pub gateway: Option<GatewayIdentity>,
    /// Under which source's name what answers is the gateway that the books know.
    pub recognised: Option<(String, GatewayIdentity)>,
    /// Under which source's name it is another, and why: nothing is read of it.
    pub refused: Option<(String, String)>,
    /// None: not heard yet.
    pub quota_per_unit: Option<StatedQuota>,
    /// When it was last heard.
    pub quota_heard_at: Option<UnixMillis>,
    /// When the one before was last heard.
    pub former_quota_heard_at: Option<UnixMillis>,
    /// Whether new-api has somewhere to send webhooks to. None: not known, or not for us to see.
    pub has_webhook_url: Option<bool>,
    /// Since when it has not answered.
    pub out_of_reach_since: Option<UnixMillis>,
    /// How far its clock is ahead of ours, in seconds.
    pub clock_ahead_secs: Option<i64>,
    /// When that was heard, by our clock.
    pub clock_heard_at: Option<UnixMillis>,
}

impl Default for SourceMemory {
    fn default() -> Self {
        SourceMemory {
            ids: Ids::Unknown,
            newest_id: None,
            gateway: None,
            recognised: None,
            refused: None,
            quota_per_unit: None,
            quota_heard_at: None,
            former_quota_heard_at: None,
            has_webhook_url: None,
            out_of_reach_since: None,
            clock_ahead_secs: None,
            clock_heard_at: None,
        }
    }
}

/// The gateway in force.
#[derive(Clone)]
pub struct Source {
    live: Live<Settings>,
    built: Arc<Mutex<Option<Built>>>,
    memory: Arc<Mutex<SourceMemory>>,
}

struct Built {
    /// Everything that it depends on.
    key: String,
    gateway: Arc<dyn Gateway>,
}

impl Source {
    pub fn new(live: Live<Settings>) -> Self {
        Source { live, built: Arc::default(), memory: Arc::default() }
    }

    /// None where no gateway is configured.
    pub fn gateway(&self) -> Result<Option<Arc<dyn Gateway>>, GatewayError> {
        let settings = self.live.get();
        let Some(access) = &settings.newapi.access else { return Ok(None) };
        let key = key(&settings.newapi);
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = built.as_ref().filter(|known| known.key == key) {
            return Ok(Some(known.gateway.clone()));
        }
        let gateway: Arc<dyn Gateway> = Arc::new(HttpGateway::new(access, &settings.newapi)?);
        if built.is_some() {
            *self.lock() = SourceMemory::default();
        }
        *built = Some(Built { key, gateway: gateway.clone() });
        Ok(Some(gateway))
    }

    /// Under which name and filter its rows are known.
    pub fn source_filter(&self) -> SourceFilter {
        let settings = self.live.get();
        let part = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name}={value}"));
        let parts = [part("group", &settings.newapi.group), part("username", &settings.newapi.username)];
        let filter = parts.into_iter().flatten().collect::<Vec<_>>().join("&");
        SourceFilter { source: settings.newapi.source.clone(), filter }
    }

    pub fn memory(&self) -> SourceMemory {
        self.lock().clone()
    }

    pub fn remember(&self, learn: impl FnOnce(&mut SourceMemory)) {
        learn(&mut self.lock());
    }

    /// It said its quota per unit.
    pub fn heard_quota(&self, stated: StatedQuota, now: UnixMillis) {
        self.remember(|memory| {
            if memory.quota_per_unit.as_ref() != Some(&stated) {
                memory.former_quota_heard_at = memory.quota_heard_at;
            }
            memory.quota_per_unit = Some(stated);
            memory.quota_heard_at = Some(now);
        });
    }

    /// It answered, or not.
    pub fn answered(&self, reached: bool, now: UnixMillis) {
        self.remember(|memory| {
            memory.out_of_reach_since = match reached {
                true => None,
                false => memory.out_of_reach_since.or(Some(now)),
            };
        });
    }

    fn lock(&self) -> MutexGuard<'_, SourceMemory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never shown: it holds the token.
fn key(settings: &NewApiSettings) -> String {
    let access = settings
        .access
        .as_ref()
        .map(|access| (access.base_url.to_string(), access.access_token.expose_secret().to_owned(), access.user_id));
    let NewApiSettings { timeout, page_size, requests_per_second, max_retries, base_backoff, group, username, .. } =
        settings;
    let rest = (timeout, page_size, requests_per_second, max_retries, base_backoff, group, username);
    format!("{access:?} {rest:?}")
}
