//! Statements for PostgreSQL, with `LIMIT` and `OFFSET` in their text.
//!
//! PostgreSQL keeps a plan only where it expects no worse of it than of one that knows the values. Of a limit that it does
//! not know it expects a tenth of all rows, and so it would plan each page anew.

use std::fmt::{self, Write};

use sea_query::{
    PostgresQueryBuilder, QueryBuilder, QueryStatementWriter, SqlWriter, SqlWriterValues, Value, Values,
};

use crate::sql::render::signed;

/// Returns the text of a statement and the values that are bound to it.
pub(super) fn build(statement: &impl QueryStatementWriter) -> (String, Values) {
    let (placeholder, numbered) = PostgresQueryBuilder.placeholder();
    let mut writer = WithLimits(SqlWriterValues::new(placeholder, numbered));
    statement.build_collect_into(PostgresQueryBuilder, &mut writer);
    writer.0.into_parts()
}

/// Writes limits and offsets, which alone are unsigned, into the text.
#[derive(Debug)]
struct WithLimits(SqlWriterValues);

impl Write for WithLimits {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(text)
    }
}

impl fmt::Display for WithLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SqlWriter for WithLimits {
    fn push_param<T: QueryBuilder>(&mut self, value: Value, builder: &T) {
        match value {
            Value::BigUnsigned(Some(number)) => {
                write!(self.0, "{}", signed(number)).expect("a String takes any text");
            }
            value => self.0.push_param(value, builder),
        }
    }

    fn as_writer(&mut self) -> &mut dyn Write {
        self
    }
}
