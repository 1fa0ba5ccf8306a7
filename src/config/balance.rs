//! Settings of the balance question: with which token new-api asks whether a key's owner still has credits.

use secrecy::SecretString;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::token;

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "balance",
    keys: &[("token", Kind::Secret, Effect::AtReload), ("token_file", Kind::Text, Effect::AtReload)],
};

/// The guide's name for new-api's own token, which opens the question where no other token is set.
pub(super) const ADMIN_TOKEN_VARIABLE: &str = "NEW_API_ADMIN_TOKEN";

/// Fewer characters than this can be guessed; new-api's own tokens are longer.
const SHORT_TOKEN_CHARS: usize = 16;

/// Who may ask for balances.
#[derive(Debug, Clone)]
pub struct BalanceSettings {
    /// What the asker sends as `X-API-Key`. None: nobody can ask.
    pub token: Option<SecretString>,
}

impl BalanceSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let token = token::read(&mut section)?.map(|given| given.text);
        if token.as_ref().is_some_and(|token| token.chars().count() < SHORT_TOKEN_CHARS) {
            section.warn(format!(
                "balance.token has fewer than {SHORT_TOKEN_CHARS} characters and can be guessed: \
                 `hookledger secret` makes a better one"
            ));
        }
        Some(BalanceSettings { token: token.map(SecretString::from) })
    }
}
