//! What the daemon tells of itself: logs and metrics. Every metric is named and described here, nowhere else.

mod labels;
pub mod logs;
pub mod metrics;
