//! Is a body from someone who knows the shared secret? HMAC-SHA256 over its bytes as received.
//!
//! Nothing of a body is parsed before this holds.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Fewer characters than this can be guessed.
pub const MIN_SECRET_CHARS: usize = 32;

/// The secrets that are live at once, ready for use. Prints nothing of them.
#[derive(Clone)]
pub struct Verifier {
    keys: Vec<Hmac<Sha256>>,
}

impl Verifier {
    /// Each secret's UTF-8 bytes are a key; several are live while the operator rotates them.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = secrets.into_iter().filter_map(|secret| Hmac::new_from_slice(secret.as_bytes()).ok());
        Verifier { keys: keys.collect() }
    }

    /// `signature` is 64 hex digits of either case, after an optional `sha256=`. Compared in constant time.
    pub fn verify(&self, body: &[u8], signature: &[u8]) -> bool {
        let digits = signature.strip_prefix(b"sha256=").unwrap_or(signature);
        let mut expected = [0u8; 32];
        if hex::decode_to_slice(digits, &mut expected).is_err() {
            return false;
        }
        // Every key is tried, so that the time taken does not tell which one matched.
        self.keys.iter().fold(false, |matched, key| {
            let mut mac = key.clone();
            mac.update(body);
            mac.verify_slice(&expected).is_ok() | matched
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Verifier({} secrets)", self.keys.len())
    }
}

/// The header value that a sender puts beside `body`: lower-case hex.
pub fn sign(secret: &str, body: &[u8]) -> String {
    match Hmac::<Sha256>::new_from_slice(secret.as_bytes()) {
        Ok(mut mac) => {
            mac.update(body);
            hex::encode(mac.finalize().into_bytes())
        }
        // HMAC takes keys of any length; this arm keeps the signature's type honest.
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a-secret-that-is-long-enough-00000000";

    #[test]
    fn accepts_what_the_sender_signs_and_nothing_else() {
        let verifier = Verifier::new(["another-secret-that-is-long-enough-1", SECRET]);
        let body = "{\"model\" : \"通义\"}".as_bytes();
        let signature = sign(SECRET, body);
        assert!(verifier.verify(body, signature.as_bytes()));
        assert!(verifier.verify(body, signature.to_uppercase().as_bytes()));
        assert!(verifier.verify(body, format!("sha256={signature}").as_bytes()));
        assert!(!verifier.verify(b"{}", signature.as_bytes()));
        for wrong in ["", "00", &signature[..63], &format!("{signature}0"), &sign("other", body), "sha256="] {
            assert!(!verifier.verify(body, wrong.as_bytes()), "{wrong:?}");
        }
        assert!(!Verifier::new([]).verify(body, signature.as_bytes()));
    }

    #[test]
    fn a_known_answer() {
        // RFC 4231, test case 2.
        assert_eq!(
            sign("Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
