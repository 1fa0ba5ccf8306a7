//! Tokens that requests carry in a header, compared without telling anything of them.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// A token that requests carry in a header. Prints nothing of it.
#[derive(Clone)]
pub struct AccessToken {
    fingerprint: Option<Hmac<Sha256>>,
}

impl AccessToken {
    pub fn new(token: &SecretString) -> Self {
        AccessToken { fingerprint: fingerprint(token.expose_secret().as_bytes()) }
    }

    /// Compares fingerprints in constant time, so that the time taken tells nothing of where a guess went wrong.
    pub fn is(&self, given: &[u8]) -> bool {
        let (Some(expected), Some(given)) = (self.fingerprint.clone(), fingerprint(given)) else { return false };
        expected.verify(&given.finalize().into_bytes()).is_ok()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AccessToken")
    }
}

/// HMAC takes keys of any length, so this always gives one. The key only sets these fingerprints apart from others.
fn fingerprint(token: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"hookledger access token").ok()?;
    mac.update(token);
    Some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_opens() {
        let token = AccessToken::new(&SecretString::from("a-token-of-some-length"));
        assert!(token.is(b"a-token-of-some-length"));
        for wrong in ["", "a-token-of-some-lengt", "a-token-of-some-length0", "A-token-of-some-length"] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "AccessToken");
    }
}
