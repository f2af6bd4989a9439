//! Statements of lists: filters, a total order, and pages that begin behind a marker.

use std::fmt;

use sea_query::{Condition, Expr, ExprTrait, Func, Order, Query, SelectStatement};

use crate::query::{Column, ColumnType};
use crate::sql::Table;
use crate::{Direction, Engine, Filter, FilterValue, ListQuery};

/// A column of the order. Where there may be no value, the smallest one stands for it: the engines disagree on where
/// missing values come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    name: &'static str,
    column_type: ColumnType,
    direction: Direction,
}

impl Key {
    fn expr(self) -> Expr {
        let column = Expr::col(self.name);
        match self.column_type {
            ColumnType::Text | ColumnType::Number => column,
            ColumnType::NullableText => Func::coalesce([column, Expr::val("")]).into(),
            ColumnType::NullableNumber => Func::coalesce([column, Expr::val(i64::MIN)]).into(),
        }
    }

    /// The value that the marker's row has: nothing where there is no such row.
    fn value<T: Table, C, I: fmt::Display>(self, query: &ListQuery<C, I>, marker: &str) -> Expr {
        if self.name == "id" {
            return Expr::val(marker);
        }
        let mut row = marker_row::<T, C, I>(query, marker);
        row.expr(self.expr());
        Expr::SubQuery(None, Box::new(row.into()))
    }

    fn is_behind(self, value: Expr) -> Expr {
        match self.direction {
            Direction::Ascending => self.expr().gt(value),
            Direction::Descending => self.expr().lt(value),
        }
    }
}

/// Returns the keys of the order: those asked for, each once, and then creation and id, which make it total.
fn keys<C: Column, I>(query: &ListQuery<C, I>) -> Vec<Key> {
    let default = query.sort.first().map_or(Direction::Descending, |(_, direction)| *direction);
    let asked = query.sort.iter().map(|(column, direction)| Key {
        name: column.name(),
        column_type: column.column_type(),
        direction: *direction,
    });
    let ties = [("created_at", ColumnType::Number), ("id", ColumnType::Text)];
    let ties = ties.map(|(name, column_type)| Key { name, column_type, direction: default });
    let mut keys: Vec<Key> = Vec::new();
    for key in asked.chain(ties) {
        if !keys.iter().any(|known| known.name == key.name) {
            keys.push(key);
        }
    }
    keys
}

/// Returns the statement that finds the marker's row among all rows of the project, or of all projects where the query
/// allows that; it selects nothing yet.
fn marker_row<T: Table, C, I>(query: &ListQuery<C, I>, marker: &str) -> SelectStatement {
    let mut statement = Query::select();
    statement.from(T::TABLE).and_where(Expr::col("id").eq(marker));
    if let Some(project) = query.project.as_ref().filter(|_| !query.foreign_marker) {
        statement.and_where(Expr::col("project_id").eq(project.as_str()));
    }
    statement
}

/// Returns the statement that finds the marker's row, if there is one.
pub(crate) fn marker_statement<T: Table, C, I>(query: &ListQuery<C, I>, marker: &str) -> SelectStatement {
    marker_row::<T, C, I>(query, marker).column("id").take()
}

/// Returns the statement of one page, which holds nothing when there is no row of the marker.
pub(crate) fn list_statement<T: Table, C: Column, I: fmt::Display>(
    engine: Engine,
    query: &ListQuery<C, I>,
) -> SelectStatement {
    let mut statement = T::select();
    if let Some(project) = &query.project {
        statement.and_where(Expr::col("project_id").eq(project.as_str()));
    }
    for filter in &query.filters {
        statement.and_where(condition(engine, filter));
    }
    let keys = keys(query);
    if let Some(marker) = &query.marker {
        statement.cond_where(behind::<T, C, I>(&keys, query, &marker.to_string()));
    }
    for key in &keys {
        let order = match key.direction {
            Direction::Ascending => Order::Asc,
            Direction::Descending => Order::Desc,
        };
        statement.order_by_expr(key.expr(), order);
    }
    statement.limit(u64::from(query.limit));
    if query.offset > 0 {
        statement.offset(query.offset);
    }
    statement
}

/// Behind the marker is what is behind it in the first key, or equal in the first and behind it in the second, ….
///
/// That nothing is before it in the first key follows from that, but only when it is said does an engine begin to read
/// there.
fn behind<T: Table, C, I: fmt::Display>(keys: &[Key], query: &ListQuery<C, I>, marker: &str) -> Condition {
    let value = |key: &Key| key.value::<T, C, I>(query, marker);
    let mut any = Condition::any();
    let mut equal = Condition::all();
    let mut all = Condition::all();
    if let Some(first) = keys.first() {
        all = all.add(match first.direction {
            Direction::Ascending => first.expr().gte(value(first)),
            Direction::Descending => first.expr().lte(value(first)),
        });
    }
    for key in keys {
        any = any.add(equal.clone().add(key.is_behind(value(key))));
        equal = equal.add(key.expr().eq(value(key)));
    }
    all.add(any)
}

fn condition<C: Column>(engine: Engine, filter: &Filter<C>) -> Expr {
    let nothing = || Expr::val(1i64).eq(0i64);
    match filter {
        Filter::Equals(column, value) => {
            fit(*column, value).map_or_else(nothing, |value| Expr::col(column.name()).eq(value))
        }
        Filter::OneOf(column, values) => {
            let values: Vec<Expr> = values.iter().filter_map(|value| fit(*column, value)).collect();
            if values.is_empty() { nothing() } else { Expr::col(column.name()).is_in(values) }
        }
        Filter::IsNull(column) => Expr::col(column.name()).is_null(),
        Filter::Contains(column, text) if is_text(*column) => {
            let function = match engine {
                Engine::Sqlite | Engine::Mysql => "INSTR",
                Engine::Postgres => "STRPOS",
            };
            let arguments = [Expr::col(column.name()), Expr::val(text.as_str())];
            Expr::from(Func::cust(function).args(arguments)).gt(0i64)
        }
        Filter::Since(column, instant) if !is_text(*column) => {
            Expr::col(column.name()).gte(instant.as_micros())
        }
        Filter::Before(column, instant) if !is_text(*column) => {
            Expr::col(column.name()).lt(instant.as_micros())
        }
        Filter::Contains(..) | Filter::Since(..) | Filter::Before(..) => nothing(),
    }
}

fn is_text<C: Column>(column: C) -> bool {
    matches!(column.column_type(), ColumnType::Text | ColumnType::NullableText)
}

/// Returns the value as the column's type; `None` when the column cannot hold it.
fn fit<C: Column>(column: C, value: &FilterValue) -> Option<Expr> {
    match (is_text(column), value) {
        (true, FilterValue::Text(text)) => Some(Expr::val(text.as_str())),
        (true, FilterValue::Number(number)) => Some(Expr::val(number.to_string())),
        (false, FilterValue::Number(number)) => Some(Expr::val(*number)),
        (false, FilterValue::Text(text)) => text.parse::<i64>().ok().map(Expr::val),
    }
}
