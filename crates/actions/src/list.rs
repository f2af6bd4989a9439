//! What all lists have in common: which part is wanted, in which order, of whom.

use karbor_store::{Direction, Filter, ListQuery};
use karbor_types::ProjectId;

use crate::{Caller, Error, Result};

/// What a list shall hold, as a client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRequest {
    /// At most that many items; between 1 and the settings' `max_limit`.
    pub limit: u32,
    /// That many are left out first, where the resource knows that.
    pub offset: u64,
    /// Only what comes after the item with this id.
    pub marker: Option<String>,
    /// The keys to order by, with their directions; newest first when empty.
    pub sort: Vec<(String, Direction)>,
    /// Whether all projects are meant; heeded for administrators only.
    pub all_tenants: bool,
    /// Names and values of all other parameters.
    pub filters: Vec<(String, String)>,
}

impl Default for ListRequest {
    fn default() -> Self {
        Self {
            limit: 1000,
            offset: 0,
            marker: None,
            sort: Vec::new(),
            all_tenants: false,
            filters: Vec::new(),
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether more follow.
    pub more: bool,
}

impl<T> Page<T> {
    /// Makes a page of what was found when one more than `limit` was asked for.
    pub(crate) fn cut(mut items: Vec<T>, limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        Self { items, more }
    }

    pub(crate) fn empty() -> Self {
        Self { items: Vec::new(), more: false }
    }

    /// Changes each item.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(change).collect(), more: self.more }
    }
}

/// What becomes of one filter.
pub(crate) enum Meaning<C> {
    /// It is this condition.
    Condition(Filter<C>),
    /// It is not heeded.
    Ignored,
    /// Nothing can have it: the list is empty.
    Impossible,
}

/// How one resource's lists work.
pub(crate) struct ListRules<'a, C> {
    /// The filters that those who are no administrators have.
    pub(crate) open_filters: &'a [&'a str],
    /// The column of a sort key.
    pub(crate) column: fn(&str) -> Option<C>,
    /// What a filter means.
    pub(crate) meaning: fn(&str, &str) -> Meaning<C>,
}

/// Turns a client's wish into a query of the store; `None` when nothing can be in the list.
pub(crate) fn query<C, I: std::str::FromStr>(
    caller: &Caller,
    request: &ListRequest,
    rules: &ListRules<'_, C>,
) -> Result<Option<ListQuery<C, I>>> {
    let mut sort = Vec::new();
    for (key, direction) in &request.sort {
        // Columns that every table of the old service had and that say nothing here.
        if matches!(key.as_str(), "deleted" | "deleted_at") {
            continue;
        }
        let column = (rules.column)(key).ok_or_else(|| {
            Error::invalid(format!("`{key}` in `sort` is nothing that this list can be ordered by"))
        })?;
        sort.push((column, *direction));
    }
    let everybody = request.all_tenants && caller.is_admin;
    let mut project = (!everybody).then(|| caller.project.clone());
    let mut filters = Vec::new();
    for (name, value) in &request.filters {
        if !caller.is_admin && !rules.open_filters.contains(&name.as_str()) {
            continue;
        }
        if name == "project_id" {
            if everybody {
                let Ok(wanted) = ProjectId::new(value.clone()) else { return Ok(None) };
                project = Some(wanted);
            }
            continue;
        }
        match (rules.meaning)(name, value) {
            Meaning::Condition(filter) => filters.push(filter),
            Meaning::Ignored => {}
            Meaning::Impossible => return Ok(None),
        }
    }
    let marker = match &request.marker {
        None => None,
        Some(marker) => {
            let parsed = marker.parse().map_err(|_| Error::UnknownMarker { marker: marker.clone() })?;
            Some(parsed)
        }
    };
    Ok(Some(ListQuery {
        project,
        filters,
        sort,
        limit: request.limit.saturating_add(1),
        marker,
        // Administrators may begin behind any row, as ever.
        foreign_marker: caller.is_admin,
        offset: request.offset,
    }))
}
