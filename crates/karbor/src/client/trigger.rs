//! `karbor trigger …`

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::{Client, Output};

/// When something is done.
#[derive(Debug, Args)]
pub(crate) struct Times {
    /// Five fields of a crontab, such as "0 3 * * *"
    #[arg(long, value_name = "FIELDS", conflicts_with = "calendar")]
    crontab: Option<String>,
    /// An iCalendar VEVENT with its rule
    #[arg(long, value_name = "VEVENT")]
    calendar: Option<String>,
    /// When it begins, in UTC: YYYY-MM-DD HH:MM:SS
    #[arg(long, value_name = "TIME")]
    start_time: Option<String>,
    /// When it ends, in UTC
    #[arg(long, value_name = "TIME")]
    end_time: Option<String>,
    /// The time zone of the pattern, such as Europe/Rome; UTC when left out
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// How many seconds late it may be
    #[arg(long, value_name = "SECONDS")]
    window: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List triggers
    List {
        /// At most so many
        #[arg(long)]
        limit: Option<usize>,
    },
    /// Show one trigger
    Show {
        /// Trigger, by id or name
        trigger: String,
    },
    /// Make a trigger
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        times: Times,
    },
    /// Make a trigger that fires when its address is called, and show the address once
    CreateEvent {
        /// Its name
        name: String,
        /// How many seconds late it may be
        #[arg(long, value_name = "SECONDS")]
        window: Option<u32>,
    },
    /// Make a new address for a trigger that is called; the old one answers no longer
    Rotate {
        /// Trigger, by id or name
        trigger: String,
    },
    /// Change a trigger; what is not given stays
    Update {
        /// Trigger, by id or name
        trigger: String,
        /// Its new name
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        times: Times,
    },
    /// Show when a trigger fires next, or would
    Preview {
        /// Trigger, by id or name; left out, the times are those of --crontab or --calendar
        #[arg(conflicts_with_all = ["crontab", "calendar"])]
        trigger: Option<String>,
        /// How many times, at most 100
        #[arg(long, default_value_t = 10)]
        count: u32,
        #[command(flatten)]
        times: Times,
    },
    /// Delete triggers
    Delete {
        /// Triggers, by id or name
        #[arg(required = true)]
        triggers: Vec<String>,
    },
}

const COLUMNS: [(&str, &str); 4] =
    [("ID", "id"), ("Name", "name"), ("Format", "properties.format"), ("Pattern", "properties.pattern")];

/// Finds a trigger by its id or name.
pub(crate) async fn find(client: &Client, text: &str) -> Result<Value> {
    client.find("/triggers", "triggers", "trigger", text).await
}

pub(crate) async fn run(client: &Client, output: &Output, command: Command) -> Result<()> {
    match command {
        Command::List { limit } => {
            output.list(&client.list("/triggers", "triggers", &[], limit).await?, &COLUMNS)
        }
        Command::Show { trigger } => output.object(&find(client, &trigger).await?),
        Command::Create { name, times } => {
            let properties = times.properties();
            if properties.get("pattern").is_none() {
                bail!("a trigger needs its times: give --crontab or --calendar");
            }
            let body = json!({"trigger_info": {"name": name, "type": "time", "properties": properties}});
            output.object(&client.post("/triggers", &body).await?["trigger_info"].take())
        }
        Command::CreateEvent { name, window } => {
            let properties: Map<String, Value> =
                window.map(|seconds| ("window".to_owned(), json!(seconds))).into_iter().collect();
            let body = json!({"trigger_info": {"name": name, "type": "event", "properties": properties}});
            output.object(&client.post("/triggers", &body).await?["trigger_info"].take())
        }
        Command::Rotate { trigger } => {
            let path = format!("/triggers/{}/address", id(&find(client, &trigger).await?));
            output.object(&client.put(&path, &json!({})).await?["trigger_info"].take())
        }
        Command::Update { trigger, name, times } => {
            let mut change = Map::new();
            change.extend(name.map(|name| ("name".to_owned(), json!(name))));
            let properties = times.properties();
            if !properties.is_empty() {
                change.insert("properties".to_owned(), Value::Object(properties));
            }
            if change.is_empty() {
                bail!(
                    "nothing to change: give --name, --crontab, --calendar, --start-time, --end-time, --time-zone or --window"
                );
            }
            let path = format!("/triggers/{}", id(&find(client, &trigger).await?));
            output.object(&client.put(&path, &json!({"trigger_info": change})).await?["trigger_info"].take())
        }
        Command::Preview { trigger, count, times } => {
            let mut answer = match trigger {
                Some(trigger) => {
                    let path = format!("/triggers/{}/preview", id(&find(client, &trigger).await?));
                    client.get(&path, &[("count", count.to_string())]).await?
                }
                None => {
                    let properties = times.properties();
                    if properties.get("pattern").is_none() {
                        bail!("name a trigger, or give --crontab or --calendar");
                    }
                    let body = json!({"preview": {"properties": properties, "count": count}});
                    client.post("/trigger_previews", &body).await?
                }
            };
            let preview = answer["preview"].take();
            if output.is_json() {
                return output.json(&preview);
            }
            for at in preview["occurrences"].as_array().into_iter().flatten() {
                output.line(at.as_str().unwrap_or_default())?;
            }
            Ok(())
        }
        Command::Delete { triggers } => {
            for trigger in triggers {
                client.delete(&format!("/triggers/{}", id(&find(client, &trigger).await?))).await?;
                output.say(&format!("Deleted trigger {trigger}"))?;
            }
            Ok(())
        }
    }
}

impl Times {
    fn properties(self) -> Map<String, Value> {
        let mut properties = Map::new();
        let pattern = match (self.crontab, self.calendar) {
            (Some(fields), _) => Some(("crontab", fields)),
            (None, Some(event)) => Some(("calendar", event)),
            (None, None) => None,
        };
        if let Some((format, pattern)) = pattern {
            properties.insert("format".to_owned(), json!(format));
            properties.insert("pattern".to_owned(), json!(pattern));
        }
        properties.extend(self.start_time.map(|time| ("start_time".to_owned(), json!(time))));
        properties.extend(self.end_time.map(|time| ("end_time".to_owned(), json!(time))));
        properties.extend(self.time_zone.map(|zone| ("time_zone".to_owned(), json!(zone))));
        properties.extend(self.window.map(|seconds| ("window".to_owned(), json!(seconds))));
        properties
    }
}

/// Returns the id of what the service sent.
pub(crate) fn id(item: &Value) -> &str {
    item["id"].as_str().unwrap_or_default()
}
