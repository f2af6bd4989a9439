//! Following an operation to its end: bars on a terminal, plain lines elsewhere, nothing for programs.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::client::output::bytes;
use crate::client::{Client, Output};

/// How often the service is asked, at first and at most.
const FIRST_POLL: Duration = Duration::from_millis(100);
const LAST_POLL: Duration = Duration::from_millis(250);
/// How often a plain line is written while nothing else changes.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Follows an operation until it has ended, and returns it.
pub(crate) async fn to_the_end(client: &Client, output: &Output, id: &str) -> Result<Value> {
    let mut view = View::new(output);
    let mut pause = FIRST_POLL;
    loop {
        let operation = client.get(&format!("/operations/{id}"), &[]).await?["operation"].take();
        let ended = matches!(operation["state"].as_str(), Some("succeeded" | "failed" | "cancelled"));
        if view.wants_resources() {
            let mut answer = client.get(&format!("/operations/{id}/resources"), &[]).await?;
            view.show(&operation, answer["resources"].take().as_array().map_or(&[], Vec::as_slice));
        } else {
            view.line(&operation, ended);
        }
        if ended {
            view.close();
            let mut operation = operation;
            let mut answer = client.get(&format!("/operations/{id}/resources"), &[]).await?;
            operation["resources"] = answer["resources"].take();
            return Ok(operation);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LAST_POLL);
    }
}

/// Waits until a checkpoint is gone.
pub(crate) async fn until_deleted(client: &Client, provider: &str, id: &str) -> Result<()> {
    let mut pause = FIRST_POLL;
    loop {
        let mut answer = client.get(&format!("/providers/{provider}/checkpoints/{id}"), &[]).await?;
        let checkpoint = answer["checkpoint"].take();
        match checkpoint["status"].as_str() {
            Some("deleted") => return Ok(()),
            Some("deleting") => {}
            Some(other) => {
                let reason = checkpoint["reason"].as_str().unwrap_or("the service gave no reason");
                bail!("checkpoint {id} is {other} instead of deleted: {reason}; delete it again to go on");
            }
            None => bail!("the service sent a checkpoint without a status"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LAST_POLL);
    }
}

/// Says what failed of an operation: resource, step and reason, a line each.
pub(crate) fn failure(what: &str, operation: &Value) -> String {
    let state = operation["state"].as_str().unwrap_or("failed");
    let mut text = match operation["reason"].as_str() {
        Some(reason) => format!("{what} {state}: {reason}"),
        None => format!("{what} {state}"),
    };
    for resource in operation["resources"].as_array().into_iter().flatten() {
        if resource["status"] != "failed" {
            continue;
        }
        let (kind, id) = (resource["type"].as_str().unwrap_or("?"), resource["id"].as_str().unwrap_or("?"));
        let step = resource["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|step| step["state"] == "failed")
            .and_then(|step| step["hook"].as_str())
            .unwrap_or("?");
        let reason = resource["reason"].as_str().unwrap_or("no reason given");
        text.push_str(&format!("\n  {kind} {id}, step {step}: {reason}"));
    }
    text
}

/// What a person sees of the progress.
enum View {
    /// Nothing.
    Silent,
    /// A line now and then.
    Lines { last: String, at: Option<Instant> },
    /// A bar for each resource.
    Bars { all: MultiProgress, bars: BTreeMap<String, ProgressBar> },
}

impl View {
    fn new(output: &Output) -> Self {
        if output.is_json() {
            Self::Silent
        } else if std::io::stderr().is_terminal() {
            let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::Bars { all, bars: BTreeMap::new() }
        } else {
            Self::Lines { last: String::new(), at: None }
        }
    }

    fn wants_resources(&self) -> bool {
        matches!(self, Self::Bars { .. })
    }

    fn line(&mut self, operation: &Value, ended: bool) {
        let Self::Lines { last, at } = self else { return };
        let progress = &operation["progress"];
        let count = |name: &str| progress[name].as_u64();
        let steps = |name: &str| progress["steps"][name].as_u64().unwrap_or(0);
        let total: u64 = ["pending", "running", "done", "failed", "skipped"].into_iter().map(steps).sum();
        let state = operation["state"].as_str().unwrap_or("?");
        let mut text =
            format!("{state}: {} of {total} steps", steps("done") + steps("failed") + steps("skipped"));
        if let Some(done) = count("bytes_done").filter(|done| *done > 0) {
            text.push_str(&format!(", {}", bytes(done)));
            if let Some(total) = count("bytes_total") {
                text.push_str(&format!(" of {}", bytes(total)));
            }
            text.push_str(&format!(", {} added", bytes(count("bytes_stored").unwrap_or(0))));
        }
        if total == 0 && !ended {
            return;
        }
        let due = at.is_none_or(|at| at.elapsed() >= LINE_EVERY);
        if text != *last && (due || ended) {
            eprint_line(&text);
            *last = text;
            *at = Some(Instant::now());
        }
    }

    fn show(&mut self, operation: &Value, resources: &[Value]) {
        let Self::Bars { all, bars } = self else { return };
        let ended = operation["ended_at"].is_string();
        for resource in resources {
            let (kind, id) =
                (resource["type"].as_str().unwrap_or("?"), resource["id"].as_str().unwrap_or("?"));
            let bar = bars.entry(format!("{kind}#{id}")).or_insert_with(|| {
                let bar = all.add(ProgressBar::new(0));
                bar.set_style(style());
                let name = resource["name"].as_str().filter(|name| !name.is_empty()).unwrap_or(id);
                bar.set_prefix(format!("{} {name}", kind.rsplit("::").next().unwrap_or(kind)));
                bar
            });
            let progress = &resource["progress"];
            let done = progress["bytes_done"].as_u64().unwrap_or(0);
            bar.set_length(progress["bytes_total"].as_u64().unwrap_or(done).max(done));
            bar.set_position(done);
            let status = resource["status"].as_str().unwrap_or("?");
            let stored = progress["bytes_stored"].as_u64().unwrap_or(0);
            bar.set_message(match resource["reason"].as_str() {
                Some(reason) => format!("{status}: {reason}"),
                None => format!("{status}, {} added", bytes(stored)),
            });
            if matches!(status, "done" | "failed" | "skipped") || ended {
                bar.abandon();
            }
        }
    }

    fn close(&mut self) {
        if let Self::Bars { bars, .. } = self {
            for bar in bars.values().filter(|bar| !bar.is_finished()) {
                bar.abandon();
            }
        }
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix:24!} [{bar:24}] {binary_bytes:>11} of {binary_total_bytes:11} {msg}";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[expect(clippy::print_stderr, reason = "progress for people goes to standard error")]
fn eprint_line(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_names_resource_step_and_reason() {
        let operation = json!({"state": "failed", "reason": "1 of 2 resources failed", "resources": [
            {"type": "Host::Disk", "id": "a", "status": "done", "steps": []},
            {"type": "Host::Directory", "id": "b", "status": "failed", "reason": "permission denied",
             "steps": [{"hook": "prepare_begin", "state": "done"}, {"hook": "main", "state": "failed"}]}]});
        let text = failure("checkpoint x", &operation);
        assert_eq!(
            text,
            "checkpoint x failed: 1 of 2 resources failed\n  Host::Directory b, step main: permission denied"
        );
    }
}
