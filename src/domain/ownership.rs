//! Whose call it is: the user whose key the token is.
//!
//! History is never billed by surprise: a token that nobody had charges nobody for what was called before, beyond the
//! grace that a late `key add` is given.

use std::time::Duration;

use super::ids::{KeyId, RemoteKeyId, UserId};
use super::outcome::Failure;
use super::recording::WaitReason;
use super::time::UnixMillis;

/// Whose a token is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    One(KeyHolder),
    /// Several users have it: nobody is charged.
    Several,
}

/// A user and the key by which he has a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    pub user_id: UserId,
    pub key_id: KeyId,
    /// `api_keys.createdAt`
    pub key_created_at: UnixMillis,
}

/// What earlier looks saw of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenHistory {
    /// The last look at which no key had it.
    pub last_unknown_at: Option<UnixMillis>,
}

/// How old a call may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    Within(Duration),
    /// A person saw the sum and said yes.
    Unlimited,
}

/// Who is charged for a call, or why nobody is.
pub fn who_pays(
    token: RemoteKeyId,
    called_at: UnixMillis,
    owner: Option<&Owner>,
    history: TokenHistory,
    grace: Grace,
) -> Result<KeyHolder, (Failure, WaitReason)> {
    let holder = match owner.filter(|_| !token.is_nobody()) {
        None => return Err((Failure::UnknownKey(token), WaitReason::UnknownKey)),
        Some(Owner::Several) => return Err((Failure::AmbiguousKey(token), WaitReason::AmbiguousKey)),
        Some(Owner::One(holder)) => holder,
    };
    if let (Grace::Within(grace), Some(last_unknown_at)) = (grace, history.last_unknown_at) {
        let known_since = last_unknown_at.max(holder.key_created_at);
        if called_at < known_since.minus(grace) {
            return Err((Failure::BeyondGrace(token), WaitReason::BeyondGrace));
        }
    }
    Ok(holder.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(minutes: i64) -> UnixMillis {
        UnixMillis::new(1_795_500_000_000 + minutes * 60_000)
    }

    fn token() -> RemoteKeyId {
        RemoteKeyId::new(7).unwrap()
    }

    fn holder(user: &str, key: &str, created_minute: i64) -> KeyHolder {
        let (user_id, key_id) = (UserId::parse(user).unwrap(), KeyId::parse(key).unwrap());
        KeyHolder { user_id, key_id, key_created_at: at(created_minute) }
    }

    fn payer(call: i64, owner: &KeyHolder, history: TokenHistory, grace: Grace) -> Result<String, WaitReason> {
        let owner = Owner::One(owner.clone());
        let payer = who_pays(token(), at(call), Some(&owner), history, grace);
        payer.map(|holder| holder.user_id.to_string()).map_err(|(_, reason)| reason)
    }

    #[test]
    fn a_late_key_gets_the_calls_of_its_grace_and_no_history() {
        let parked = TokenHistory { last_unknown_at: Some(at(1000)) };
        let late = holder("u", "k", 1001);
        assert_eq!(payer(981, &late, parked, Grace::Within(HOUR)), Ok("u".to_owned()), "20 minutes late");
        assert_eq!(payer(941, &late, parked, Grace::Within(HOUR)), Ok("u".to_owned()), "to the minute");
        assert_eq!(payer(940, &late, parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
        assert_eq!(payer(-500_000, &late, parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace), "a year");
        assert_eq!(payer(-500_000, &late, parked, Grace::Unlimited), Ok("u".to_owned()), "a person said so");
    }

    #[test]
    fn a_key_that_was_made_earlier_counts_from_the_last_look_without_it() {
        let parked = TokenHistory { last_unknown_at: Some(at(1000)) };
        let old = holder("u", "k", 0);
        assert_eq!(payer(945, &old, parked, Grace::Within(HOUR)), Ok("u".to_owned()));
        assert_eq!(payer(900, &old, parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
    }

    #[test]
    fn a_token_that_was_never_parked_has_no_grace_to_exceed() {
        let fresh = TokenHistory::default();
        assert_eq!(payer(-500, &holder("u", "k", 0), fresh, Grace::Within(HOUR)), Ok("u".to_owned()));
    }
}
