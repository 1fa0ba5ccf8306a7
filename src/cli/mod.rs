//! The command line: what can be asked, and the way from a request to an exit code. One file for each command.
//!
//! Nothing here decides about money or knows a database; that is asked of the layers below.

mod admin_client;
mod audit;
mod audit_text;
mod backup;
mod books_access;
mod charge_text;
mod charges;
mod check_config;
mod credits;
mod disputes;
mod documentation;
mod events;
mod failure;
mod http_client;
mod key;
mod migrate;
mod output;
mod prices;
mod repair;
mod replay;
mod restore;
mod secret;
mod send;
mod send_event;
mod send_load;
mod send_summary;
mod serve;
mod status;
mod sync;
mod time;
mod user;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand};

use crate::app;
use crate::config::{self, Loaded, Settings};
use failure::{EXIT_FAILED, EXIT_FINE, EXIT_USAGE, Failure};
use output::Output;

/// Set apart from what belongs to one command.
const GLOBAL_HEADING: &str = "Options of every command";

const AFTER_HELP: &str = "Results go to standard output, everything else to standard error.\n\
    Exit codes: 0 fine; 1 differences found, or the request failed or was refused; 2 wrong usage or configuration; 3 the database is out of \
    reach; 70 the daemon gave up restarting its parts.";

/// Bills each LLM call that new-api reports exactly once.
#[derive(Debug, Parser)]
#[command(name = "hookledger", version, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArguments,
    /// Without a command, the daemon is started (`serve`)
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct GlobalArguments {
    /// The configuration file. Without it, /etc/hookledger/hookledger.toml is read if it exists
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL_HEADING)]
    config: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true, help_heading = GLOBAL_HEADING)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(serve::ServeArguments),
    /// Check the configuration and show every setting with its origin
    CheckConfig,
    /// Create the database, or bring it up to date
    Migrate,
    /// Print a new secret
    Secret,
    /// Sign an event, send it to a running daemon, and show what comes back
    Send(send::SendArguments),
    /// Show how a running daemon does
    Status,
    /// Add and list users
    #[command(subcommand)]
    User(user::UserCommand),
    /// Tie the tokens of new-api to users
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Grant and adjust credits, and look at what was booked
    #[command(subcommand)]
    Credits(credits::CreditsCommand),
    /// Look at what was charged, and give it back
    #[command(subcommand)]
    Charges(charges::ChargesCommand),
    /// Decide what nobody but a person can: whether an event and a row of new-api's log are one call
    #[command(subcommand)]
    Disputes(disputes::DisputesCommand),
    /// Look at the events that came in
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Prove that the books agree with themselves; exit code 1 tells of differences. `audit accept ID --reason R`
    /// acknowledges one: it stays listed, and no longer counts
    Audit(audit::AuditArguments),
    /// Look at what calls are priced by, and say when new-api's quota per unit changed
    #[command(subcommand)]
    Prices(prices::PricesCommand),
    /// Read new-api's log now: what was not read yet, or a span of it row by row
    Sync(sync::SyncArguments),
    /// Save the books into a new file, whether a daemon runs or not
    Backup(backup::BackupArguments),
    /// Put the books together again after the state schema and the platform's tables were restored apart from each other
    Repair(repair::RepairArguments),
    /// Put a backup where the database should be, while no daemon runs
    Restore(restore::RestoreArguments),
    /// Write the manual pages and the shells' completions, for packagers
    #[command(hide = true)]
    Documentation(documentation::DocumentationArguments),
}

/// What every command may need of the global arguments.
struct Context {
    config: Option<PathBuf>,
    output: Output,
}

impl Context {
    fn load(&self) -> Result<Loaded, Failure> {
        Ok(self.loader()()?)
    }

    /// Loads what the arguments and the environment of this process say, as often as it is called.
    fn loader(&self) -> app::Load {
        let file = self.config.clone();
        Arc::new(move || {
            // What is not UTF-8 cannot be a setting.
            let environment = std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
            config::load(file.as_deref(), environment)
        })
    }

    fn settings(&self) -> Result<Settings, Failure> {
        Ok(self.load()?.settings)
    }
}

/// Reads the arguments of this process and does what they ask.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are results; what cannot be printed cannot be reported either.
            error.print().ok();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { EXIT_FINE });
        }
    };
    let context = Context { config: cli.global.config, output: Output { json: cli.global.json } };
    let command = cli.command.unwrap_or_else(|| Command::Serve(serve::ServeArguments::default()));
    carry_out(command, &context).unwrap_or_else(|failure| {
        eprintln!("hookledger: {}", failure.message);
        ExitCode::from(failure.exit_code)
    })
}

fn carry_out(command: Command, context: &Context) -> Result<ExitCode, Failure> {
    if let Command::Serve(arguments) = command {
        return serve::run(&arguments, context);
    }
    let _fail_points = crate::failpoint::set_up();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure { exit_code: EXIT_FAILED, message: format!("the program cannot start: {error}") })?;
    runtime.block_on(async {
        match command {
            Command::Serve(_) => {}
            Command::CheckConfig => check_config::run(context)?,
            Command::Migrate => migrate::run(context).await?,
            Command::Secret => secret::run(context)?,
            Command::Send(arguments) => return send::run(arguments, context).await.map(ExitCode::from),
            Command::Status => status::run(context).await?,
            Command::User(command) => user::run(command, context).await?,
            Command::Key(command) => key::run(command, context).await?,
            Command::Credits(command) => credits::run(command, context).await?,
            Command::Charges(command) => charges::run(command, context).await?,
            Command::Disputes(command) => disputes::run(command, context).await?,
            Command::Events(command) => events::run(command, context).await?,
            Command::Audit(arguments) => return audit::run(arguments, context).await.map(ExitCode::from),
            Command::Prices(command) => prices::run(command, context).await?,
            Command::Sync(arguments) => sync::run(arguments, context).await?,
            Command::Backup(arguments) => backup::run(arguments, context).await?,
            Command::Repair(arguments) => repair::run(arguments, context).await?,
            Command::Restore(arguments) => restore::run(arguments, context).await?,
            Command::Documentation(arguments) => documentation::run(&arguments)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
