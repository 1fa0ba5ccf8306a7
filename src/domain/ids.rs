//! Identities, parsed once at the door and compared by their bytes ever after.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use uuid::{ContextV7, Timestamp, Uuid};

use super::planted;
use super::time::UnixMillis;

/// Longest id that the shared tables hold, in characters (`VARCHAR(191)`).
pub const MAX_ID_CHARS: usize = 191;

/// Why a text cannot be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("must not be empty")]
    Empty,
    #[error("must be at most 191 characters, has {0}")]
    TooLong(usize),
    #[error("must not contain the character U+0000")]
    Nul,
}

fn checked(text: &str) -> Result<Arc<str>, IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    let length = text.chars().count();
    if length > MAX_ID_CHARS {
        return Err(IdError::TooLong(length));
    }
    if text.contains('\0') {
        return Err(IdError::Nul);
    }
    Ok(Arc::from(text))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to 191 characters without NUL, kept byte for byte.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if planted::is_on("ids_without_case") {
                    return checked(&text.to_lowercase()).map($name);
                }
                checked(text).map($name)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// The sender's name for an event; a retry repeats it. Opaque.
    EventId
);
text_id!(
    /// new-api's `request_id` of a call.
    RequestId
);
text_id!(
    /// `users.id`.
    UserId
);
text_id!(
    /// `api_keys.id`.
    KeyId
);
text_id!(
    /// Id of a row that we write (`webhook_logs`, `usage_records`, `credit_transactions`): a UUIDv7 in lower case.
    RecordId
);

impl RecordId {
    /// Whether a text has the form of the ids that we write. Other programs may write such ids as well.
    pub fn is_form_of_ours(text: &str) -> bool {
        Uuid::try_parse(text).is_ok_and(|id| id.get_version_num() == 7 && id.hyphenated().to_string() == text)
    }
}

impl EventId {
    /// The name under which it is stored where a shared table holds another id that it takes for equal: `#` and 8 hex
    /// digits of its SHA-256 behind it, cut to fit.
    pub fn set_apart(&self) -> String {
        const MARK_CHARS: usize = 9;
        let kept: String = self.0.chars().take(MAX_ID_CHARS - MARK_CHARS).collect();
        let digest = hex::encode(Sha256::digest(self.0.as_bytes()));
        format!("{kept}#{}", &digest[..MARK_CHARS - 1])
    }

    /// An id for a body that carries none, derived from its bytes so that a repeat gets the same.
    pub fn derived(prefix: &str, body: &[u8]) -> Self {
        let digest = hex::encode(Sha256::digest(body));
        EventId(Arc::from(format!("{prefix}-{digest}").as_str()))
    }
}

/// new-api's token id: canonical decimal digits, 0 to 9223372036854775807. 0 is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKeyId(i64);

impl RemoteKeyId {
    pub fn new(id: i64) -> Option<Self> {
        (id >= 0).then_some(RemoteKeyId(id))
    }

    /// Canonical digits only: no sign, no spaces, no leading zeros.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = digits && (text == "0" || !text.starts_with('0'));
        canonical.then(|| text.parse().ok()).flatten().and_then(RemoteKeyId::new)
    }

    pub fn get(self) -> i64 {
        self.0
    }

    /// `token_id` 0 marks calls of the gateway's own (channel tests): no key can have it.
    pub fn is_nobody(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for RemoteKeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How the ids of one installation end: the last 32 of a UUIDv7's random bits, which for all of its ids are the same. So
/// an index that holds ids tells our rows from others'; what ends so by chance is one row in four thousand million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMark(u32);

impl IdMark {
    /// Hex digits that it takes at an id's end.
    pub const DIGITS: usize = 8;

    pub fn of(installation: &str) -> Self {
        let digest = Sha256::digest(installation.as_bytes());
        IdMark(digest.iter().take(4).fold(0, |bits, byte| (bits << 8) | u32::from(*byte)))
    }
}

impl fmt::Display for IdMark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

/// Makes UUIDv7 ids that increase within this process.
#[derive(Debug, Default)]
pub struct RecordIds {
    context: std::sync::Mutex<Option<ContextV7>>,
    /// The mark at their end, above it one bit: there is one.
    mark: AtomicU64,
}

impl RecordIds {
    const MARKED: u64 = 1 << 32;

    pub fn new() -> Self {
        Self::default()
    }

    /// From here on, ids end in this.
    pub fn end_in(&self, mark: IdMark) {
        self.mark.store(RecordIds::MARKED | u64::from(mark.0), Ordering::Release);
    }

    fn mark(&self) -> Option<u128> {
        let mark = self.mark.load(Ordering::Acquire);
        (mark & RecordIds::MARKED != 0).then_some(u128::from(mark & u64::from(u32::MAX)))
    }

    /// A fresh id whose time part is `at`.
    pub fn next(&self, at: UnixMillis) -> RecordId {
        let seconds = u64::try_from(at.as_secs()).unwrap_or(0);
        let nanos = u32::try_from(at.as_millis().rem_euclid(1000)).unwrap_or(0) * 1_000_000;
        let mut guard = self.context.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let context = guard.get_or_insert_with(ContextV7::new);
        // What counts within a millisecond lies above the last 32 bits.
        let id = Uuid::new_v7(Timestamp::from_unix(&*context, seconds, nanos)).as_u128();
        record_id(self.mark().map_or(id, |mark| (id >> 32 << 32) | mark))
    }

    /// A fresh id that sorts after `previous`, also where the clock was set back in between.
    pub fn next_after(&self, at: UnixMillis, previous: Option<&RecordId>) -> RecordId {
        let fresh = self.next(at);
        let Some(previous) = previous.filter(|previous| **previous >= fresh) else {
            return fresh;
        };
        match Uuid::try_parse(previous.as_str()) {
            Ok(id) if id.get_version_num() == 7 => record_id(match self.mark() {
                Some(mark) => ((id.as_u128() >> 32).wrapping_add(1) << 32) | mark,
                None => id.as_u128().wrapping_add(1),
            }),
            // An id that another program chose: its order is not ours to continue.
            _ => fresh,
        }
    }
}

fn record_id(bits: u128) -> RecordId {
    RecordId(Arc::from(Uuid::from_u128(bits).hyphenated().to_string().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_opaque_and_bounded() {
        assert_eq!(EventId::parse(""), Err(IdError::Empty));
        assert!(EventId::parse(&"é".repeat(191)).is_ok());
        assert_eq!(EventId::parse(&"é".repeat(192)), Err(IdError::TooLong(192)));
        assert_eq!(EventId::parse("a\0b"), Err(IdError::Nul));
        assert_ne!(EventId::parse("evt-A").unwrap(), EventId::parse("evt-A ").unwrap());
    }

    #[test]
    fn an_id_that_is_set_apart_fits_its_column() {
        let id = EventId::parse("evt-A").unwrap();
        assert_eq!(id.set_apart().len(), "evt-A#".len() + 8);
        assert_ne!(id.set_apart(), EventId::parse("evt-a").unwrap().set_apart().replace("evt-a", "evt-A"));
        let long = EventId::parse(&"é".repeat(191)).unwrap();
        assert_eq!(long.set_apart().chars().count(), 191);
    }

    #[test]
    fn only_canonical_digits_name_a_token() {
        assert_eq!(RemoteKeyId::parse("42").map(RemoteKeyId::get), Some(42));
        assert_eq!(RemoteKeyId::parse("0").map(RemoteKeyId::is_nobody), Some(true));
        for odd in ["", "042", "42 ", "+42", "-1", "4.2", "９", "9223372036854775808"] {
            assert_eq!(RemoteKeyId::parse(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn ids_that_others_write_have_another_form() {
        assert!(RecordId::is_form_of_ours(RecordIds::new().next(UnixMillis::new(1_795_500_000_000)).as_str()));
        let others =
            ["clx0a2b3c4d5e6f7g8h9", "0a9d1c3e-6a0f-4f5e-9f61-2f9a4bb0a1c7", "019AB0C0-0000-7000-8000-000000000000"];
        for other in others {
            assert!(!RecordId::is_form_of_ours(other), "{other}");
        }
    }

    #[test]
    fn record_ids_increase_even_when_the_clock_steps_back() {
        let later = RecordIds::new().next(UnixMillis::new(2_000_000));
        let restarted = RecordIds::new();
        let next = restarted.next_after(UnixMillis::new(1_000_000), Some(&later));
        assert!(next > later);
        let third = restarted.next_after(UnixMillis::new(1_000_000), Some(&next));
        assert!(third > next);
    }
    #[test]
    fn marked_ids_are_different_increase_and_end_alike() {
        let ids = RecordIds::new();
        ids.end_in(IdMark::of("installation"));
        let mark = IdMark::of("installation").to_string();
        let at = UnixMillis::new(2_000_000);
        let mut made: Vec<RecordId> = (0..10_000).map(|_| ids.next(at)).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "in their order");
        made.push(ids.next_after(UnixMillis::new(1_000_000), made.last()));
        assert!(made[9_999] < made[10_000], "the clock was set back");
        for id in &made {
            assert!(id.as_str().ends_with(&mark) && mark.len() == IdMark::DIGITS, "{id}");
            assert_eq!(Uuid::try_parse(id.as_str()).unwrap().get_version_num(), 7, "{id}");
        }
        assert_ne!(IdMark::of("another").to_string(), mark);
    }
}
