//! Reading rows of any engine, with errors that name the place.

use std::str::FromStr;

use karbor_types::Instant;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;

use crate::{Error, Result};

/// A row, of whichever engine.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(sqlx::sqlite::SqliteRow),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::postgres::PgRow),
    #[cfg(feature = "mysql")]
    Mysql(sqlx::mysql::MySqlRow),
}

impl From<sqlx::sqlite::SqliteRow> for Row {
    fn from(row: sqlx::sqlite::SqliteRow) -> Self {
        Self::Sqlite(row)
    }
}

#[cfg(feature = "postgres")]
impl From<sqlx::postgres::PgRow> for Row {
    fn from(row: sqlx::postgres::PgRow) -> Self {
        Self::Postgres(row)
    }
}

#[cfg(feature = "mysql")]
impl From<sqlx::mysql::MySqlRow> for Row {
    fn from(row: sqlx::mysql::MySqlRow) -> Self {
        Self::Mysql(row)
    }
}

macro_rules! get {
    ($row:expr, $column:expr, $kind:ty) => {
        match $row {
            Row::Sqlite(row) => row.try_get::<$kind, _>($column),
            #[cfg(feature = "postgres")]
            Row::Postgres(row) => row.try_get::<$kind, _>($column),
            #[cfg(feature = "mysql")]
            Row::Mysql(row) => row.try_get::<$kind, _>($column),
        }
    };
}

impl Row {
    pub(crate) fn all<R: Into<Self>>(rows: Vec<R>) -> Vec<Self> {
        rows.into_iter().map(Into::into).collect()
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<String> {
        get!(self, column, String).map_err(|error| self.malformed(column, &error))
    }

    pub(crate) fn optional_text(&self, column: &'static str) -> Result<Option<String>> {
        get!(self, column, Option<String>).map_err(|error| self.malformed(column, &error))
    }

    pub(crate) fn number(&self, column: &'static str) -> Result<i64> {
        get!(self, column, i64).map_err(|error| self.malformed(column, &error))
    }

    pub(crate) fn optional_number(&self, column: &'static str) -> Result<Option<i64>> {
        get!(self, column, Option<i64>).map_err(|error| self.malformed(column, &error))
    }

    pub(crate) fn truth(&self, column: &'static str) -> Result<bool> {
        Ok(self.number(column)? != 0)
    }

    /// Reads a number of another integer type.
    pub(crate) fn count<T: TryFrom<i64, Error: std::error::Error>>(&self, column: &'static str) -> Result<T> {
        T::try_from(self.number(column)?).map_err(|error| self.malformed(column, &error))
    }

    pub(crate) fn optional_count<T: TryFrom<i64, Error: std::error::Error>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>> {
        let number = self.optional_number(column)?;
        number.map(T::try_from).transpose().map_err(|error| self.malformed(column, &error))
    }

    pub(crate) fn instant(&self, column: &'static str) -> Result<Instant> {
        self.number(column).map(Instant::from_micros)
    }

    pub(crate) fn optional_instant(&self, column: &'static str) -> Result<Option<Instant>> {
        Ok(self.optional_number(column)?.map(Instant::from_micros))
    }

    /// Reads an id or a state.
    pub(crate) fn parsed<T: FromStr<Err: std::error::Error>>(&self, column: &'static str) -> Result<T> {
        self.text(column)?.parse().map_err(|error: T::Err| self.malformed(column, &error))
    }

    pub(crate) fn optional_parsed<T: FromStr<Err: std::error::Error>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>> {
        let text = self.optional_text(column)?;
        text.map(|text| text.parse()).transpose().map_err(|error: T::Err| self.malformed(column, &error))
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T> {
        serde_json::from_str(&self.text(column)?).map_err(|error| self.malformed(column, &error))
    }

    /// Reads JSON; what is not there is null.
    pub(crate) fn optional_json<T: DeserializeOwned>(&self, column: &'static str) -> Result<T> {
        let text = self.optional_text(column)?;
        serde_json::from_str(text.as_deref().unwrap_or("null"))
            .map_err(|error| self.malformed(column, &error))
    }

    fn malformed(&self, column: &'static str, error: &dyn std::error::Error) -> Error {
        let id = get!(self, "id", String).or_else(|_| get!(self, "operation_id", String)).unwrap_or_default();
        Error::Malformed { what: "row", id, column, reason: error.to_string() }
    }
}

/// Writes a value as JSON text.
pub(crate) fn json<T: Serialize + ?Sized>(what: &'static str, value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::Invalid { what, reason: error.to_string() })
}

/// Writes JSON as text; null is no text.
pub(crate) fn optional_json(what: &'static str, value: &serde_json::Value) -> Result<Option<String>> {
    if value.is_null() { Ok(None) } else { json(what, value).map(Some) }
}

/// Writes a count as the only integer type that all engines store alike.
pub(crate) fn number(what: &'static str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::Invalid { what, reason: format!("{value} is out of range") })
}
