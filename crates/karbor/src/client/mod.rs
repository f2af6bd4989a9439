//! The client commands: a thin, honest face of the REST API.
//!
//! Every command is one or a few calls that anybody's client could make; nothing here reaches around the API.
//! An error says what was asked, what the service answered, and what to do next.

mod bank_account;
mod checkpoint;
mod elsewhere;
mod follow;
mod http;
mod keystone;
mod log;
mod operation;
mod output;
mod plan;
mod protectable;
mod provider;
mod quota;
mod restore;
mod schedule;
mod service;
mod settings;
mod trigger;
mod verification;

use anyhow::Result;
use clap::{Args, Subcommand};

pub(crate) use http::Client;
pub(crate) use output::{Format, Output, bytes};
pub(crate) use settings::{ConnectionFile, default_state_dir};

/// How to reach the service; every client command takes these.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Endpoint with the project, such as http://127.0.0.1:8799/v1/PROJECT
    #[arg(long, env = "KARBOR_URL", global = true, value_name = "URL", help_heading = "Connection")]
    pub(crate) url: Option<String>,
    /// Token of the local identity, or of Keystone
    #[arg(
        long,
        env = "KARBOR_TOKEN",
        global = true,
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Connection"
    )]
    pub(crate) token: Option<String>,
    /// Name of a cloud in clouds.yaml
    #[arg(long, env = "OS_CLOUD", global = true, value_name = "CLOUD", help_heading = "Connection")]
    pub(crate) os_cloud: Option<String>,
    /// State directory of a local service, whose address and token are used when nothing else is given
    #[arg(long, env = "KARBOR_STATE_DIR", global = true, value_name = "DIR", help_heading = "Connection")]
    pub(crate) state_dir: Option<std::path::PathBuf>,
    /// How to print
    #[arg(long, short = 'o', global = true, value_enum, default_value_t = Format::Table, help_heading = "Output")]
    pub(crate) output: Format,
}

/// The commands that talk to a service.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what can protect, and where to
    #[command(subcommand)]
    Provider(provider::Command),
    /// Show what can be protected
    #[command(subcommand)]
    Protectable(protectable::Command),
    /// Choose what belongs together and is protected as one
    #[command(subcommand)]
    Plan(plan::Command),
    /// Protect a plan now, and look after what was protected
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Bring a checkpoint back
    #[command(subcommand)]
    Restore(restore::Command),
    /// Check that a checkpoint is whole
    #[command(subcommand)]
    Verification(verification::Command),
    /// Watch and cancel the work behind checkpoints, restores and verifications
    #[command(subcommand)]
    Operation(operation::Command),
    /// Say when something is done
    #[command(subcommand)]
    Trigger(trigger::Command),
    /// Protect plans by themselves, when triggers say so
    #[command(subcommand)]
    Schedule(schedule::Command),
    /// Look at what was done
    #[command(subcommand)]
    Log(log::Command),
    /// Show and set how much a project may have
    #[command(subcommand)]
    Quota(quota::Command),
    /// Show and set the limits of classes of projects
    #[command(subcommand)]
    QuotaClass(quota::ClassCommand),
    /// Show a project's areas in banks, and how much they may hold
    #[command(subcommand)]
    BankAccount(bank_account::Command),
    /// Look at the processes, and switch them off and on (administrators)
    #[command(subcommand)]
    Service(service::Command),
}

/// Runs one client command.
pub(crate) async fn run(connection: &Connection, command: Command) -> Result<()> {
    let output = Output::new(connection.output);
    let client = Client::connect(connection).await?;
    match command {
        Command::Provider(command) => provider::run(&client, &output, command).await,
        Command::Protectable(command) => protectable::run(&client, &output, command).await,
        Command::Plan(command) => plan::run(&client, &output, command).await,
        Command::Checkpoint(command) => checkpoint::run(&client, &output, command).await,
        Command::Restore(command) => restore::run(&client, &output, command).await,
        Command::Verification(command) => verification::run(&client, &output, command).await,
        Command::Operation(command) => operation::run(&client, &output, command).await,
        Command::Trigger(command) => trigger::run(&client, &output, command).await,
        Command::Schedule(command) => schedule::run(&client, &output, command).await,
        Command::Log(command) => log::run(&client, &output, command).await,
        Command::Quota(command) => quota::run(&client, &output, command).await,
        Command::QuotaClass(command) => quota::run_class(&client, &output, command).await,
        Command::BankAccount(command) => bank_account::run(&client, &output, command).await,
        Command::Service(command) => service::run(&client, &output, command).await,
    }
}
