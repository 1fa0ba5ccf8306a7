//! Reading new-api's log into the books: which seconds, in which order, and what counts as proved.
//!
//! Plain functions over the gateway and the store, each one step that can be repeated at any time; whoever calls them
//! decides when. Rows come down the same road to the ledger as events. The rules: LEDGER, "Reading the log".

mod beginning;
mod channel_facts;
mod figures;
mod gaps;
mod last_hour;
mod newest_id;
mod pass;
mod pieces;
mod probe;
mod recognition;
mod refunds;
pub mod rows;
mod source;
mod sync;
mod trial;
mod turn;
mod waiting;

pub use channel_facts::ChannelFacts;
pub use figures::{RowsMissing, Verdict, compare_booked};
pub use gaps::{Gap, covered_gaps};
pub use last_hour::LastHour;
pub use pass::{Coverage, Eagerness, Pass, PassError, Report};
pub use probe::{Probe, probe};
pub use recognition::{GatewayIdentity, another as another_gateway};
pub use rows::Tally;
pub use source::{Source, SourceMemory};
pub use sync::{SyncOrder, SyncPlan, SyncProgress, SyncRefused, Tell};
pub use turn::LogTurn;
