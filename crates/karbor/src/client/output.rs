//! Tables for people, JSON for programs.

use std::io::{IsTerminal, Write};

use anyhow::{Context, Result};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Table,
    /// JSON for programs
    Json,
}

/// Where and how results are printed; messages for people go to standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Makes an output in a format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// Returns whether results go to a program.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a list; each column is a title and a path of members (`plan.name`).
    pub(crate) fn list(&self, items: &[Value], columns: &[(&str, &str)]) -> Result<()> {
        if self.is_json() {
            return self.json(&Value::Array(items.to_vec()));
        }
        if items.is_empty() {
            return self.say("Nothing to show.");
        }
        let mut table = new_table();
        table.set_header(columns.iter().map(|(title, _)| *title));
        for item in items {
            table.add_row(columns.iter().map(|(_, path)| cell(member(item, path))));
        }
        self.print(&table.to_string())
    }

    /// Prints one object, a row for each member.
    pub(crate) fn object(&self, object: &Value) -> Result<()> {
        if self.is_json() {
            return self.json(object);
        }
        let mut table = new_table();
        table.set_header(["Field", "Value"]);
        for (name, value) in object.as_object().into_iter().flatten() {
            table.add_row([name.clone(), cell(value)]);
        }
        self.print(&table.to_string())
    }

    /// Prints a value as JSON, whatever the format.
    pub(crate) fn json(&self, value: &Value) -> Result<()> {
        self.print(&serde_json::to_string_pretty(value).context("writing JSON")?)
    }

    /// Prints one line of result, whatever the format.
    pub(crate) fn line(&self, text: &str) -> Result<()> {
        self.print(text)
    }

    /// Tells a person something; silent when the output is for a program.
    pub(crate) fn say(&self, text: &str) -> Result<()> {
        if self.is_json() {
            return Ok(());
        }
        writeln!(std::io::stderr(), "{text}").context("writing to standard error")
    }

    fn print(&self, text: &str) -> Result<()> {
        match writeln!(std::io::stdout(), "{text}") {
            // The reader has seen enough (`karbor plan list | head`): that is no failure.
            Err(err) if err.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            other => other.context("writing to standard output"),
        }
    }
}

/// Follows a dotted path of members.
pub(crate) fn member<'a>(item: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(item, |value, name| &value[name])
}

/// Writes a count of bytes for people, in powers of 1024.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    // Into a file or a pipe, a row is a line whatever its length.
    if std::io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
        }
        Value::Object(_) | Value::Array(_) => {
            serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
        }
        other => other.to_string(),
    }
}
