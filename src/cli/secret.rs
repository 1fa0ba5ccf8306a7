//! `hookledger secret`: prints a new secret. It is stored nowhere.

use serde_json::json;

use super::Context;
use super::failure::Failure;
use crate::config::generate_secret;

pub fn run(context: &Context) -> Result<(), Failure> {
    let secret = generate_secret();
    context.output.show(&json!({ "secret": secret }), |_| secret.clone())
}
