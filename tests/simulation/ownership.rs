//! Users and keys as the platform writes them, and what happens to them on the way.

use super::driver::Driver;
use super::scenario::Step;
use super::world::{BEGINS, Stretch, Whose};

fn stamp(second: i64) -> String {
    // Scenarios last some days: the date is counted from that of their beginning, 2026-11-24 06:00:00.
    let since = second - (BEGINS - 21_600);
    let (day, rest) = (since.div_euclid(86_400), since.rem_euclid(86_400));
    format!("2026-11-{:02} {:02}:{:02}:{:02}.000", 24 + day, rest / 3600, rest / 60 % 60, rest % 60)
}

pub fn user_name(user: usize) -> String {
    format!("user-{user}")
}

pub fn new_user(user: usize, credits: i64) -> String {
    let (id, at) = (user_name(user), stamp(BEGINS - 86_400));
    format!(
        "INSERT INTO users (id, email, createdAt, updatedAt) VALUES ('{id}', '{id}@example.com', '{at}', '{at}'); \
         INSERT INTO user_credit_balances (id, userId, currentCredits, createdAt, updatedAt, lastReplenishAt) \
         VALUES ('balance-{user}', '{id}', {credits}, '{at}', '{at}', '{at}'); \
         INSERT INTO credit_transactions (id, userId, type, amount, balance, createdAt) \
         VALUES ('opening-{user}', '{id}', 'BONUS', {credits}, {credits}, '{at}')"
    )
}

pub fn new_key(key: &str, user: usize, token: usize, created: i64) -> String {
    let (user, at, remote) = (user_name(user), stamp(created), token + 1);
    format!(
        "INSERT INTO api_keys (id, userId, label, remoteKeyId, maskedValue, fullValue, createdAt, updatedAt) \
         VALUES ('{key}', '{user}', 'a key', '{remote}', '', '', '{at}', '{at}')"
    )
}

impl Driver {
    /// Changes whose a token is, if that makes sense now; a look sees it at once.
    pub async fn change_owner(&mut self, step: &Step) -> String {
        let Some((token, whose)) = self.change_of(step) else { return "does not apply".to_owned() };
        self.settle_down().await;
        let now = self.world.now;
        match step {
            Step::GiveKey { user, .. } | Step::Share { user, .. } => self.add_key(token, *user, now).await,
            Step::RePoint { user, .. } => {
                let key = self.world.tokens[token].keys.last().cloned().unwrap_or_default();
                self.own.execute(&format!("UPDATE api_keys SET remoteKeyId = NULL WHERE id = '{key}'")).await;
                self.add_key(token, *user, now).await;
            }
            Step::HandOver { user, .. } => {
                let (key, user) = (self.world.tokens[token].keys.last().cloned(), user_name(*user));
                let key = key.unwrap_or_default();
                self.own.execute(&format!("UPDATE api_keys SET userId = '{user}' WHERE id = '{key}'")).await;
            }
            Step::Unshare { first_stays, .. } => {
                let keys = &mut self.world.tokens[token].keys;
                let gone = if *first_stays { keys.len() - 1 } else { keys.len() - 2 };
                let key = keys.remove(gone);
                // Names of keys count on, so the place of the one that is gone is kept.
                keys.insert(0, key.clone());
                self.own.execute(&format!("UPDATE api_keys SET remoteKeyId = NULL WHERE id = '{key}'")).await;
            }
            _ => {}
        }
        let by_hand_over = matches!(step, Step::HandOver { .. });
        self.world.tokens[token].stretches.push(Stretch { from: now, whose, by_hand_over });
        if matches!(step, Step::GiveKey { .. }) {
            self.world.tokens[token].is_sighted = false;
        }
        self.must_do_now(&Step::LookAtTokens).await;
        let reach = self.world.rules.match_window_secs + 5;
        self.world.wait(reach);
        format!("{whose:?}")
    }

    /// Which token it concerns, and whose that is afterwards. Only what a look has seen is changed: of an owner whom
    /// nobody saw, nothing can be known.
    fn change_of(&self, step: &Step) -> Option<(usize, Whose)> {
        let seen = |token: usize| match self.world.whose(token) {
            Whose::One(user) if self.world.tokens[token].is_sighted => Some(user),
            _ => None,
        };
        match *step {
            Step::GiveKey { token, user } => {
                (self.world.whose(token) == Whose::Nobody).then_some((token, Whose::One(user)))
            }
            Step::RePoint { token, user } | Step::HandOver { token, user } => {
                seen(token).filter(|owner| *owner != user).map(|_| (token, Whose::One(user)))
            }
            Step::Share { token, user } => {
                seen(token).filter(|owner| *owner != user).map(|owner| (token, Whose::Two(owner, user)))
            }
            Step::Unshare { token, first_stays } => match self.world.whose(token) {
                Whose::Two(first, second) => Some((token, Whose::One(if first_stays { first } else { second }))),
                _ => None,
            },
            _ => None,
        }
    }
}
