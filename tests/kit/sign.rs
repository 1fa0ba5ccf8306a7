//! The sender's half of the signature, made by the kit's own hands.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::wire::http_request;

/// Where new-api posts its events.
pub const EVENTS_PATH: &str = "/api/webhooks/events";

/// The lower-case hex digits of HMAC-SHA256 of `body` under the UTF-8 bytes of `secret`.
pub fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// A complete, rightly signed request.
pub fn signed_request(secret: &str, body: &[u8]) -> Vec<u8> {
    let signature = signature(secret, body);
    let headers = [("Content-Type", "application/json"), ("X-Webhook-Signature", signature.as_str())];
    http_request("POST", EVENTS_PATH, &headers, body)
}
