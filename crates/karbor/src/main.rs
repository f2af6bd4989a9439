//! The one binary of Karbor: the service, the bank's tools, the database's tools, and the client.

mod bank;
mod client;
mod db;
mod identity;
mod key;
mod place;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Requests are many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Protects whole applications: what belongs together is stored together, and comes back together.
#[derive(Debug, Parser)]
#[command(name = "karbor", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    connection: client::Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    #[command(flatten)]
    Client(client::Command),
    /// Run the service
    Serve(serve::Options),
    /// Say who may use a service that has the local identity
    Identity(identity::Options),
    /// Work on a bank with only its key, without service and database
    #[command(subcommand)]
    Bank(bank::Command),
    /// Work on the service's database
    #[command(subcommand)]
    Db(db::Command),
    /// List the places that KARBOR_CRASH_AT can name
    #[cfg(feature = "failpoints")]
    CrashPoints,
    /// Write the completion script of a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Client(command) => client::run(&arguments.connection, command).await,
        Command::Serve(options) => {
            let state_dir = arguments.connection.state_dir.unwrap_or_else(client::default_state_dir);
            serve::run(&options, &state_dir).await
        }
        Command::Identity(options) => {
            let state_dir = arguments.connection.state_dir.unwrap_or_else(client::default_state_dir);
            identity::run(options, &state_dir, &client::Output::new(arguments.connection.output))
        }
        #[cfg(feature = "failpoints")]
        Command::CrashPoints => {
            client::Output::new(arguments.connection.output).line(&karbor_worker::CRASH_POINTS.join("\n"))
        }
        Command::Db(command) => {
            let output = client::Output::new(arguments.connection.output);
            let state_dir = arguments.connection.state_dir.unwrap_or_else(client::default_state_dir);
            db::run(&output, &state_dir, command).await
        }
        Command::Bank(command) => bank::run(&client::Output::new(arguments.connection.output), command).await,
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "karbor", &mut std::io::stdout());
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            report(&err);
            // 1: it failed; 2: wrong arguments (clap); 3: it did its work and found damage.
            if err.is::<bank::Damage>() { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}

/// Writes an error with all its causes, the first line being what was to be done.
#[expect(clippy::print_stderr, reason = "this is where the program speaks to people")]
fn report(err: &anyhow::Error) {
    eprintln!("error: {err}");
    for cause in err.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}
