//! Statements of lists: filters, a total order, and pages that begin behind a marker.

use std::fmt;

use sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement};

use crate::query::{Column, ColumnType};
use crate::sql::{Table, compared};
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

    /// Returns the same for rows that are looked for by another key.
    fn checked(self) -> Expr {
        match self.column_type {
            ColumnType::Text | ColumnType::Number => compared(self.name),
            ColumnType::NullableText | ColumnType::NullableNumber => self.expr(),
        }
    }

    fn is_behind(self, column: Expr, value: Expr) -> Expr {
        match self.direction {
            Direction::Ascending => column.gt(value),
            Direction::Descending => column.lt(value),
        }
    }

    fn is_not_before(self, column: Expr, value: Expr) -> Expr {
        match self.direction {
            Direction::Ascending => column.gte(value),
            Direction::Descending => column.lte(value),
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
        let marker = marker.to_string();
        let row = marker_row::<T, C, I>(query, &marker);
        begin_behind(engine, &mut statement, &keys, &marker, &row);
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

/// Has the page begin behind the marker's row, which a statement finds that selects nothing yet. Each engine is told in
/// the way in which it looks the row up once, before it reads the page, and then begins to read there: PostgreSQL by a
/// comparison of rows, which can tell only an order of one direction; MariaDB by a join with what it knows to be one
/// row, for it does not read by comparisons of rows; and otherwise by a value for each comparison.
fn begin_behind(
    engine: Engine,
    statement: &mut SelectStatement,
    keys: &[Key],
    marker: &str,
    row: &SelectStatement,
) {
    // The first value is always asked for, so that nothing is behind a marker of which there is no row.
    let value = |(index, key): (usize, &Key)| match key.name {
        "id" if index > 0 => (*key, Expr::val(marker)),
        _ => (*key, Expr::SubQuery(None, Box::new(row.clone().expr(key.expr()).take().into()))),
    };
    match engine {
        Engine::Postgres if keys.windows(2).all(|pair| pair[0].direction == pair[1].direction) => {
            let all = Expr::tuple(keys.iter().map(|key| key.expr()));
            let mut row = row.clone();
            row.exprs(keys.iter().map(|key| key.expr()));
            let row = Expr::SubQuery(None, Box::new(row.into()));
            statement.and_where_option(keys.first().map(|key| key.is_behind(all, row)));
        }
        Engine::Postgres | Engine::Sqlite => {
            let values: Vec<(Key, Expr)> = keys.iter().enumerate().map(value).collect();
            statement.and_where_option(behind(&values));
        }
        Engine::Mysql => {
            let mut row = row.clone();
            let mut values = Vec::new();
            for key in keys {
                let name = format!("marker_{}", key.name);
                row.expr_as(key.expr(), name.clone());
                values.push((*key, Expr::col(name)));
            }
            statement.from_subquery(row, "marker").and_where_option(behind(&values));
        }
    }
}

/// Behind the marker is what is not before it in the first key and behind it there or, as the two are equal in it, in
/// the others. An engine finds its way by the first key; by the others it only checks rows.
fn behind(keys: &[(Key, Expr)]) -> Option<Expr> {
    let mut others: Option<Expr> = None;
    for (index, (key, value)) in keys.iter().enumerate().rev() {
        let column = if index == 0 { key.expr() } else { key.checked() };
        let behind = key.is_behind(column.clone(), value.clone());
        others = Some(match others {
            Some(others) => key.is_not_before(column, value.clone()).and(behind.or(others)),
            None => behind,
        });
    }
    others
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
