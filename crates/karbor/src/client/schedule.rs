//! `karbor schedule …`: scheduled operations.

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::client::trigger::{self, id};
use crate::client::{Client, Output};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List what is scheduled
    List {
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one scheduled operation
    Show {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Protect a plan, or do something else with it, whenever a trigger says so
    Create {
        /// Its name
        name: String,
        /// Plan, by id or name
        plan: String,
        /// Trigger, by id or name
        trigger: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// What is done; without it, retention-protect where something is said of retention, and protect else
        #[arg(long = "type", value_enum)]
        kind: Option<Kind>,
        /// Make it paused
        #[arg(long)]
        paused: bool,
        #[command(flatten)]
        definition: Definition,
        #[command(flatten)]
        rules: Rules,
    },
    /// Change a scheduled operation; what is not given stays, but the definition (all that create says of retention, of
    /// --read and of --to-provider) is changed as a whole
    Update {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
        /// A new name
        #[arg(long)]
        name: Option<String>,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
        /// Another trigger, by id or name
        #[arg(long)]
        trigger: Option<String>,
        #[command(flatten)]
        definition: Definition,
        #[command(flatten)]
        rules: Rules,
    },
    /// List what was run of a scheduled operation, and what was not, and why
    Runs {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Pause a scheduled operation: what is due meanwhile is skipped
    Pause {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Resume a scheduled operation that was paused
    Resume {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Run a scheduled operation now
    Run {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Show which checkpoints retention would delete, and why
    Retention {
        /// Scheduled operation, by id or name
        scheduled_operation: String,
    },
    /// Delete scheduled operations
    Delete {
        /// Scheduled operations, by id or name
        #[arg(required = true)]
        scheduled_operations: Vec<String>,
    },
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Make a checkpoint
    Protect,
    /// Make a checkpoint, and let older ones go
    RetentionProtect,
    /// Verify the newest checkpoint
    Verify,
    /// Copy to another provider what is not there yet
    Copy,
    /// Read all of the newest checkpoint, and find out whether it could be restored
    RestoreTest,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Protect => "protect",
            Self::RetentionProtect => "retention_protect",
            Self::Verify => "verify",
            Self::Copy => "copy",
            Self::RestoreTest => "restore_test",
        }
    }
}

/// What a definition has beside plan and provider.
#[derive(Debug, Default, Args)]
pub(crate) struct Definition {
    /// Keep so many checkpoints, and delete older ones
    #[arg(long, value_name = "COUNT")]
    max_backups: Option<u32>,
    /// Keep checkpoints for so many days, and delete older ones
    #[arg(long, value_name = "DAYS")]
    retention_days: Option<u32>,
    /// Keep the newest checkpoint of each of so many hours
    #[arg(long, value_name = "COUNT")]
    keep_hourly: Option<u32>,
    /// Keep the newest checkpoint of each of so many days
    #[arg(long, value_name = "COUNT")]
    keep_daily: Option<u32>,
    /// Keep the newest checkpoint of each of so many weeks
    #[arg(long, value_name = "COUNT")]
    keep_weekly: Option<u32>,
    /// Keep the newest checkpoint of each of so many months
    #[arg(long, value_name = "COUNT")]
    keep_monthly: Option<u32>,
    /// Keep the newest checkpoint of each of so many years
    #[arg(long, value_name = "COUNT")]
    keep_yearly: Option<u32>,
    /// Never keep fewer checkpoints than so many
    #[arg(long, value_name = "COUNT")]
    keep_minimum: Option<u32>,
    /// For verify: how much is read: structure, all, or a number of percent
    #[arg(long, value_name = "HOW MUCH")]
    read: Option<String>,
    /// For copy: to which provider, by its id; without it, to where the plan's provider copies
    #[arg(long, value_name = "PROVIDER")]
    to_provider: Option<String>,
}

impl Definition {
    fn members(&self) -> (Map<String, Value>, Map<String, Value>) {
        let retention = [
            ("max_backups", self.max_backups),
            ("retention_duration", self.retention_days),
            ("keep_hourly", self.keep_hourly),
            ("keep_daily", self.keep_daily),
            ("keep_weekly", self.keep_weekly),
            ("keep_monthly", self.keep_monthly),
            ("keep_yearly", self.keep_yearly),
            ("keep_minimum", self.keep_minimum),
        ];
        let others = [("read", &self.read), ("target_provider_id", &self.to_provider)];
        let retention =
            retention.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value?))));
        let others =
            others.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))));
        (retention.collect(), others.collect())
    }

    /// Returns the members for an operation of that type, or says which of them it has no use for.
    fn of(&self, kind: &str) -> Result<Map<String, Value>> {
        let (mut members, others) = self.members();
        if kind != Kind::RetentionProtect.word() && !members.is_empty() {
            bail!(
                "only retention-protect deletes checkpoints: leave retention out, or give --type retention-protect"
            );
        }
        for (name, option, owner) in
            [("read", "--read", Kind::Verify), ("target_provider_id", "--to-provider", Kind::Copy)]
        {
            if others.contains_key(name) && kind != owner.word() {
                bail!("{option} is for {} only", owner.word());
            }
        }
        members.extend(others);
        Ok(members)
    }

    fn speaks_of_retention(&self) -> bool {
        !self.members().0.is_empty()
    }
}

/// How an operation is run; what is not given is as the service is set.
#[derive(Debug, Default, Args)]
pub(crate) struct Rules {
    /// What is done with the last occurrence that was missed
    #[arg(long, value_enum)]
    catch_up: Option<CatchUp>,
    /// Over how many seconds its start is spread
    #[arg(long, value_name = "SECONDS")]
    jitter: Option<u32>,
    /// How often a failed occurrence is tried again inside its window
    #[arg(long, value_name = "COUNT")]
    retries: Option<u32>,
    /// -1000 to 1000; the higher, the sooner, within the project
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
}

/// What is done with the last occurrence that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CatchUp {
    /// Run it once, now
    RunOnce,
    /// Skip it
    Skip,
}

impl Rules {
    fn members(&self) -> Map<String, Value> {
        let catch_up = self.catch_up.map(|rule| match rule {
            CatchUp::RunOnce => "run_once",
            CatchUp::Skip => "skip",
        });
        let members = [
            ("catch_up", catch_up.map(Value::from)),
            ("jitter_seconds", self.jitter.map(Value::from)),
            ("retries", self.retries.map(Value::from)),
            ("priority", self.priority.map(Value::from)),
        ];
        members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

const COLUMNS: [(&str, &str); 5] = [
    ("ID", "id"),
    ("Name", "name"),
    ("Type", "operation_type"),
    ("Plan", "operation_definition.plan_id"),
    ("Trigger", "trigger_id"),
];
const RUN_COLUMNS: [(&str, &str); 6] = [
    ("Occurrence", "occurrence"),
    ("Origin", "origin"),
    ("Status", "status"),
    ("Reason", "reason"),
    ("Attempt", "attempt"),
    ("Checkpoint", "checkpoint_id"),
];
const PATH: &str = "/scheduled_operations";

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    let what = "scheduled operation";
    match command {
        Command::List { limit } => output.list(&client.list(PATH, "operations", &[], limit).await?, &COLUMNS),
        Command::Show { scheduled_operation } => {
            output.object(&client.find(PATH, "operations", what, &scheduled_operation).await?)
        }
        Command::Create { name, plan, trigger, description, kind, paused, definition: more, rules } => {
            let kind = kind.unwrap_or(match more.speaks_of_retention() {
                true => Kind::RetentionProtect,
                false => Kind::Protect,
            });
            let more = more.of(kind.word())?;
            let plan = client.find("/plans", "plans", "plan", &plan).await?;
            let trigger = trigger::find(client, &trigger).await?;
            let mut definition = Map::from_iter([
                ("plan_id".to_owned(), plan["id"].clone()),
                ("provider_id".to_owned(), plan["provider_id"].clone()),
            ]);
            definition.extend(more);
            let mut made = rules.members();
            made.extend([
                ("name".to_owned(), json!(name)),
                ("description".to_owned(), json!(description)),
                ("trigger_id".to_owned(), trigger["id"].clone()),
                ("operation_type".to_owned(), json!(kind.word())),
                ("operation_definition".to_owned(), Value::Object(definition)),
                ("enabled".to_owned(), json!(!paused)),
            ]);
            let body = json!({"scheduled_operation": made});
            output.object(&client.post(PATH, &body).await?["scheduled_operation"].take())
        }
        Command::Update { scheduled_operation, name, description, trigger, definition, rules } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let mut change = rules.members();
            change.extend(name.map(|name| ("name".to_owned(), json!(name))));
            change.extend(description.map(|text| ("description".to_owned(), json!(text))));
            if let Some(trigger) = trigger {
                let trigger = trigger::find(client, &trigger).await?;
                change.insert("trigger_id".to_owned(), trigger["id"].clone());
            }
            let more = definition.of(found["operation_type"].as_str().unwrap_or_default())?;
            if !more.is_empty() {
                let mut whole = Map::new();
                for name in ["plan_id", "provider_id"] {
                    whole.insert(name.to_owned(), found["operation_definition"][name].clone());
                }
                whole.extend(more);
                change.insert("operation_definition".to_owned(), Value::Object(whole));
            }
            if change.is_empty() {
                bail!("nothing to change: say what, such as --retries 5; see karbor schedule update --help");
            }
            let body = json!({"scheduled_operation": change});
            let mut changed = client.put(&format!("{PATH}/{}", id(&found)), &body).await?;
            output.object(&changed["scheduled_operation"].take())
        }
        Command::Runs { scheduled_operation, limit } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let path = format!("{PATH}/{}/runs", id(&found));
            output.list(&client.list(&path, "runs", &[], limit).await?, &RUN_COLUMNS)
        }
        Command::Pause { scheduled_operation } => {
            set_enabled(client, output, &scheduled_operation, false).await
        }
        Command::Resume { scheduled_operation } => {
            set_enabled(client, output, &scheduled_operation, true).await
        }
        Command::Run { scheduled_operation } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let path = format!("{PATH}/{}/runs", id(&found));
            output.object(&client.post(&path, &json!({"run": {}})).await?["run"].take())
        }
        Command::Retention { scheduled_operation } => {
            let found = client.find(PATH, "operations", what, &scheduled_operation).await?;
            let mut answer = client.get(&format!("{PATH}/{}/retention", id(&found)), &[]).await?;
            let retention = answer["retention"].take();
            if output.is_json() {
                return output.json(&retention);
            }
            let columns = [
                ("ID", "id"),
                ("Created", "created_at"),
                ("Status", "status"),
                ("Would", "action"),
                ("Because", "reason"),
            ];
            output.list(retention["checkpoints"].as_array().map_or(&[], Vec::as_slice), &columns)
        }
        Command::Delete { scheduled_operations } => {
            for name in scheduled_operations {
                let found = client.find(PATH, "operations", what, &name).await?;
                client.delete(&format!("{PATH}/{}", id(&found))).await?;
                output.say(&format!("Deleted scheduled operation {name}"))?;
            }
            Ok(())
        }
    }
}

async fn set_enabled(client: &Client, output: &Output, name: &str, enabled: bool) -> Result<()> {
    let found = client.find(PATH, "operations", "scheduled operation", name).await?;
    let body = json!({"scheduled_operation": {"enabled": enabled}});
    let mut changed = client.put(&format!("{PATH}/{}", id(&found)), &body).await?;
    output.object(&changed["scheduled_operation"].take())
}
