//! From a built statement to the text and the values that one engine takes.

use sea_query::{QueryStatementWriter, SqliteQueryBuilder, Value, Values};

#[cfg(feature = "postgres")]
use crate::sql::limits;
use crate::{Engine, Error, Result};

/// A statement, ready for one engine.
pub(super) struct Rendered<S> {
    pub(super) sql: S,
    pub(super) values: Values,
}

/// Renders a statement for an engine.
///
/// # Errors
/// [`Error::Invalid`] for what not all engines could hold.
pub(super) fn render(engine: Engine, statement: &impl QueryStatementWriter) -> Result<Rendered<String>> {
    let (sql, Values(values)) = match engine {
        Engine::Sqlite => statement.build(SqliteQueryBuilder),
        #[cfg(feature = "postgres")]
        Engine::Postgres => limits::build(statement),
        #[cfg(feature = "mysql")]
        Engine::Mysql => statement.build(sea_query::MysqlQueryBuilder),
        #[cfg(not(all(feature = "postgres", feature = "mysql")))]
        _ => return Err(Error::Url { reason: "this program is built without that database".to_owned() }),
    };
    Ok(Rendered { sql, values: checked(values)? })
}

/// Returns values that all engines know; refuses others.
pub(super) fn checked(mut values: Vec<Value>) -> Result<Values> {
    for value in &mut values {
        match value {
            Value::BigInt(_) | Value::String(None) => {}
            Value::String(Some(text)) => {
                // PostgreSQL refuses it; so that all engines hold the same, all refuse it.
                if text.contains('\0') {
                    return Err(Error::Invalid {
                        what: "a text",
                        reason: "it holds a NUL character".to_owned(),
                    });
                }
            }
            // `LIMIT` and `OFFSET`.
            Value::BigUnsigned(Some(number)) => {
                *value = Value::BigInt(Some(signed(*number)));
            }
            other => {
                return Err(Error::Invalid {
                    what: "a value",
                    reason: format!("{other:?} is no i64 and no text"),
                });
            }
        }
    }
    Ok(Values(values))
}

/// Returns a limit or an offset as all engines know it, or the most that they know.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
