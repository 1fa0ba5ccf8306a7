//! What one request is held against, from its first byte to its answer. Made once a reload, so that no request has to.
//!
//! A request takes the policy that is in force when it begins and keeps it: no reload changes the rules under it.

use std::sync::Arc;
use std::time::Duration;

use actix_web::HttpMessage;
use ipnet::IpNet;

use super::access::AccessToken;
use crate::actors::receiver::IntakePolicy;
use crate::config::Settings;

/// The settings that concern requests, ready for use.
pub struct RequestPolicy {
    /// For the Receiver.
    pub intake: Arc<IntakePolicy>,
    /// Empty: all.
    pub allow_sources: Vec<IpNet>,
    /// Whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
    pub max_body_bytes: usize,
    pub body_timeout: Duration,
    pub ack_timeout: Duration,
    /// Of the balance question; none: it cannot be asked.
    pub balance_token: Option<AccessToken>,
    /// Of the admin routes on the senders' listener; none: they do not exist there.
    pub admin_token: Option<AccessToken>,
}

impl RequestPolicy {
    pub fn new(settings: &Settings) -> Self {
        RequestPolicy {
            intake: Arc::new(IntakePolicy::new(&settings.webhook)),
            allow_sources: settings.webhook.allow_sources.clone(),
            trusted_proxies: settings.server.trusted_proxies.clone(),
            max_body_bytes: settings.server.max_body_bytes,
            body_timeout: settings.server.body_timeout,
            ack_timeout: settings.server.ack_timeout,
            balance_token: settings.balance.token.as_ref().map(AccessToken::new),
            admin_token: settings.admin.token.as_ref().map(AccessToken::new),
        }
    }

    /// Leaves the policy with a request that begins.
    pub fn keep(self: &Arc<Self>, request: &impl HttpMessage) {
        request.extensions_mut().insert(self.clone());
    }

    /// The policy that was left with a request.
    pub fn of(request: &impl HttpMessage) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().cloned()
    }
}
