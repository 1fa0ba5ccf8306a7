//! Whose call it is: the user whose key the token is.
//!
//! The owner is that of the call's own second, as far as looks have seen it. History is never billed by surprise: a
//! token that nobody had charges nobody for what was called before, beyond the grace that a late `key add` is given.

use std::time::Duration;

use super::ids::{KeyId, RemoteKeyId, UserId};
use super::outcome::Failure;
use super::planted;
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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenHistory {
    /// The last look at which no key had it.
    pub last_unknown_at: Option<UnixMillis>,
    /// A person said that it is nobody's here.
    pub is_ignored: bool,
    /// Whose it was, oldest first.
    pub owners: Vec<PastOwner>,
}

/// A user who was seen to own a token, from an instant on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastOwner {
    pub from: UnixMillis,
    pub user_id: UserId,
    pub key_id: KeyId,
    /// His key is still there, and still his.
    pub has_key: bool,
}

impl TokenHistory {
    /// The same, whatever the order in which its owners were read.
    pub fn oldest_first(mut self) -> Self {
        self.owners.sort_by_key(|owner| owner.from);
        self
    }

    /// From when on the present holder is the owner, if no look has seen him as such before.
    ///
    /// A key that was made since the last change dates its owner's beginning; else it is this look's instant.
    pub fn change_to(&self, holder: &KeyHolder, now: UnixMillis) -> Option<UnixMillis> {
        let Some(last) = self.owners.last() else { return Some(holder.key_created_at.min(now)) };
        if last.user_id == holder.user_id {
            return None;
        }
        let since = if holder.key_created_at > last.from { holder.key_created_at.min(now) } else { now };
        // Stretches follow each other, also where a clock was set back.
        Some(since.max(UnixMillis::new(last.from.as_millis() + 1)))
    }

    /// Since when the present holder is the owner lies ahead of the clock: it was seen while a clock was wrong.
    fn is_dated_ahead(&self, now: UnixMillis) -> bool {
        self.owners.last().is_some_and(|last| last.from > now)
    }

    /// The owner of a call's instant, where that was another than the present holder.
    fn former_owner(&self, called_at: UnixMillis, holder: &KeyHolder, now: UnixMillis) -> Option<&PastOwner> {
        if self.change_to(holder, now).is_some_and(|from| from <= called_at) {
            return None;
        }
        let of_call = self.owners.iter().rev().find(|owner| owner.from <= called_at).or(self.owners.first());
        of_call.filter(|owner| owner.user_id != holder.user_id)
    }
}

/// How old a call may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grace {
    Within(Duration),
    /// A person saw the sum and said yes.
    Unlimited,
}

/// A token's call, and the look that decides whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub token: RemoteKeyId,
    pub called_at: UnixMillis,
    pub now: UnixMillis,
    /// It has waited because several users had its token.
    pub was_ambiguous: bool,
}

/// Who is charged for a call, or why nobody is.
pub fn who_pays(
    call: Call,
    owner: Option<&Owner>,
    history: &TokenHistory,
    grace: Grace,
) -> Result<KeyHolder, (Failure, WaitReason)> {
    let Call { token, called_at, now, was_ambiguous } = call;
    let holder = match owner.filter(|_| !token.is_nobody()) {
        None if history.is_ignored => return Err((Failure::IgnoredKey(token), WaitReason::Ignored)),
        None => return Err((Failure::UnknownKey(token), WaitReason::UnknownKey)),
        Some(Owner::Several) => return Err((Failure::AmbiguousKey(token), WaitReason::AmbiguousKey)),
        Some(Owner::One(holder)) => holder,
    };
    let former = history.former_owner(called_at, holder, now).filter(|_| !planted::is_on("former_owner_ignored"));
    match (former, grace) {
        // Whose call it is can't be told by dates that a wrong clock wrote: nobody is charged by himself.
        (Some(former), _) if former.has_key && !history.is_dated_ahead(now) => {
            let (user_id, key_id) = (former.user_id.clone(), former.key_id.clone());
            return Ok(KeyHolder { user_id, key_id, key_created_at: former.from });
        }
        (Some(_), Grace::Within(_)) => return Err((Failure::FormerOwner(token), WaitReason::BeyondGrace)),
        (Some(_), Grace::Unlimited) | (None, _) => {}
    }
    // Whoever is left when an ambiguity ends was one of them only if he had his key by then.
    // Events tell whole seconds.
    let came_later = holder.key_created_at.as_secs() > called_at.as_secs();
    let was_one_of_them = history.owners.iter().any(|owner| owner.from <= called_at);
    let is_third = was_ambiguous && !was_one_of_them && came_later;
    if is_third && grace != Grace::Unlimited {
        return Err((Failure::FormerOwner(token), WaitReason::BeyondGrace));
    }
    if let (Grace::Within(grace), Some(last_unknown_at)) = (grace, history.last_unknown_at) {
        // A look that a clock ahead of time has dated counts as now.
        let known_since = last_unknown_at.min(now).max(holder.key_created_at);
        if called_at < known_since.minus(grace) && !planted::is_on("key_grace_ignored") {
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

    fn payer(minute: i64, owner: &KeyHolder, history: &TokenHistory, grace: Grace) -> Result<String, WaitReason> {
        let owner = Owner::One(owner.clone());
        let call = Call { token: token(), called_at: at(minute), now: at(2000), was_ambiguous: false };
        let payer = who_pays(call, Some(&owner), history, grace);
        payer.map(|holder| holder.user_id.to_string()).map_err(|(_, reason)| reason)
    }

    #[test]
    fn a_late_key_gets_the_calls_of_its_grace_and_no_history() {
        let parked = TokenHistory { last_unknown_at: Some(at(1000)), ..TokenHistory::default() };
        let late = holder("u", "k", 1001);
        assert_eq!(payer(981, &late, &parked, Grace::Within(HOUR)), Ok("u".to_owned()), "20 minutes late");
        assert_eq!(payer(941, &late, &parked, Grace::Within(HOUR)), Ok("u".to_owned()), "to the minute");
        assert_eq!(payer(940, &late, &parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
        assert_eq!(payer(-500_000, &late, &parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace), "a year");
        assert_eq!(payer(-500_000, &late, &parked, Grace::Unlimited), Ok("u".to_owned()), "a person said so");
    }

    #[test]
    fn a_key_that_was_made_earlier_counts_from_the_last_look_without_it() {
        let parked = TokenHistory { last_unknown_at: Some(at(1000)), ..TokenHistory::default() };
        let old = holder("u", "k", 0);
        assert_eq!(payer(945, &old, &parked, Grace::Within(HOUR)), Ok("u".to_owned()));
        assert_eq!(payer(900, &old, &parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
    }

    #[test]
    fn a_token_that_was_never_parked_has_no_grace_to_exceed() {
        let fresh = TokenHistory::default();
        assert_eq!(payer(-500, &holder("u", "k", 0), &fresh, Grace::Within(HOUR)), Ok("u".to_owned()));
    }

    fn past(user: &str, from_minute: i64, has_key: bool) -> PastOwner {
        let (user_id, key_id) = (UserId::parse(user).unwrap(), KeyId::parse("past").unwrap());
        PastOwner { from: at(from_minute), user_id, key_id, has_key }
    }

    fn owned(owners: &[PastOwner]) -> TokenHistory {
        TokenHistory { owners: owners.to_vec(), ..TokenHistory::default() }
    }

    #[test]
    fn a_call_is_its_own_seconds_owners() {
        let within = Grace::Within(HOUR);
        let moved = owned(&[past("former", 0, true), past("present", 100, true)]);
        let present = holder("present", "k", 50);
        assert_eq!(payer(99, &present, &moved, within), Ok("former".to_owned()));
        assert_eq!(payer(-99, &present, &moved, within), Ok("former".to_owned()), "before the first look as well");
        assert_eq!(payer(100, &present, &moved, within), Ok("present".to_owned()));
    }

    #[test]
    fn what_follows_an_owner_whose_key_is_gone_is_listed() {
        let gone = owned(&[past("former", 0, false)]);
        let fresh = holder("present", "k", 100);
        assert_eq!(payer(99, &fresh, &gone, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
        assert_eq!(payer(99, &fresh, &gone, Grace::Unlimited), Ok("present".to_owned()), "a person said so");
        assert_eq!(payer(101, &fresh, &gone, Grace::Within(HOUR)), Ok("present".to_owned()), "his own call");
    }

    #[test]
    fn the_calls_of_an_ambiguous_stretch_are_those_of_the_owner_who_is_left() {
        // Both had it from minute 50 to 100; the first one's key is gone now.
        let first = owned(&[past("first", 0, false)]);
        let left = holder("left", "k", 50);
        assert_eq!(payer(70, &left, &first, Grace::Within(HOUR)), Ok("left".to_owned()));
        let third = holder("third", "k", 150);
        assert_eq!(payer(70, &third, &first, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace), "was none of them");
    }

    #[test]
    fn dates_that_a_clock_ahead_wrote_charge_nobody_by_themselves() {
        // The change was seen at minute 9000; the clock shows 2000 again.
        let ahead = owned(&[past("former", 0, true), past("present", 9000, true)]);
        let present = holder("present", "k", 9000);
        assert_eq!(payer(1990, &present, &ahead, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
        let parked = TokenHistory { last_unknown_at: Some(at(9000)), ..TokenHistory::default() };
        let made = holder("present", "k", 1995);
        assert_eq!(payer(1990, &made, &parked, Grace::Within(HOUR)), Ok("present".to_owned()), "within the grace");
    }

    #[test]
    fn a_clock_that_is_behind_gives_a_key_no_longer_grace() {
        // The clock shows 2000 again; the platform's own says when the key was made.
        let parked = TokenHistory { last_unknown_at: Some(at(9000)), ..TokenHistory::default() };
        let present = holder("present", "k", 9001);
        assert_eq!(payer(1990, &present, &parked, Grace::Within(HOUR)), Err(WaitReason::BeyondGrace));
    }

    #[test]
    fn a_third_user_gets_no_call_of_an_ambiguous_stretch() {
        let owner = |created| Owner::One(holder("third", "k", created));
        let call = Call { token: token(), called_at: at(70), now: at(200), was_ambiguous: true };
        let payer = |created| who_pays(call, Some(&owner(created)), &owned(&[]), Grace::Within(HOUR));
        assert_eq!(payer(150).unwrap_err().1, WaitReason::BeyondGrace, "his key came later");
        assert_eq!(payer(50).unwrap().user_id.as_str(), "third", "he was one of them");
    }

    #[test]
    fn a_change_of_owner_is_dated_once_and_forward() {
        let one = holder("one", "k", 10);
        assert_eq!(owned(&[]).change_to(&one, at(20)), Some(at(10)));
        assert_eq!(owned(&[past("one", 10, true)]).change_to(&one, at(20)), None);
        let re_pointed = holder("other", "k", 5);
        assert_eq!(owned(&[past("one", 10, true)]).change_to(&re_pointed, at(20)), Some(at(20)), "seen now");
        let set_back = owned(&[past("one", 30, true)]).change_to(&re_pointed, at(20)).unwrap();
        assert!(set_back > at(30));
    }

    #[test]
    fn an_ignored_token_is_nobodys_until_it_has_a_key() {
        let ignored = TokenHistory { is_ignored: true, ..TokenHistory::default() };
        let call = Call { token: token(), called_at: at(0), now: at(1), was_ambiguous: false };
        let refused = who_pays(call, None, &ignored, Grace::Unlimited).unwrap_err();
        assert_eq!(refused.1, WaitReason::Ignored);
        assert_eq!(payer(0, &holder("u", "k", 0), &ignored, Grace::Within(HOUR)), Ok("u".to_owned()));
    }
}
