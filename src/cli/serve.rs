//! `hookledger serve`: tells the daemon where its settings are. Everything that runs is `app`.

use std::process::ExitCode;

use clap::Args;

use super::Context;
use super::failure::Failure;
use crate::app::{self, ServeOptions};

#[derive(Debug, Default, Args)]
pub struct ServeArguments {
    /// Print what to paste into new-api, the webhook secret included, on standard output
    #[arg(long)]
    print_setup: bool,
}

pub fn run(arguments: &ServeArguments, context: &Context) -> Result<ExitCode, Failure> {
    Ok(app::serve(context.loader(), ServeOptions { print_setup: arguments.print_setup })?)
}
