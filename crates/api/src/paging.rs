//! Lists: what their query asks for, and the address of the next page.

use form_urlencoded::Serializer;
use karbor_actions::{Direction, ListRequest};

use crate::fault::Fault;

/// The largest offset.
const MAX_OFFSET: u64 = 2_147_483_647;

/// Returns the parameters of a query in their order.
pub(crate) fn parameters(query: Option<&str>) -> Result<Vec<(String, String)>, Fault> {
    let pairs: Vec<(String, String)> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    match pairs.iter().find(|(name, value)| name.contains('\0') || value.contains('\0')) {
        Some((name, _)) => {
            let name = name.replace('\0', "\u{fffd}");
            Err(Fault::bad_request(format!("the parameter `{name}` holds a NUL character")))
        }
        None => Ok(pairs),
    }
}

/// How a kind of list treats what others refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// Wrong directions are refused.
    Strict,
    /// Wrong directions are taken for none: as ever for what did not come out of the database.
    Lenient,
}

/// Reads what a list shall hold. `keeps_all_tenants` tells whether `all_tenants` is looked at for this caller.
pub(crate) fn list_request(
    query: &[(String, String)],
    max_limit: u32,
    keeps_all_tenants: bool,
    strictness: Strictness,
) -> Result<ListRequest, Fault> {
    // Of a parameter that stands twice the last one counts.
    let last =
        |name: &str| query.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let mut request = ListRequest { limit: max_limit, ..ListRequest::default() };
    if let Some(text) = last("limit") {
        let limit = integer(text)
            .ok_or_else(|| Fault::bad_request(format!("limit must be a number, not `{text}`")))?;
        if limit <= 0 {
            return Err(Fault::bad_request("limit must be greater than zero"));
        }
        request.limit = u32::try_from(limit).unwrap_or(u32::MAX).min(max_limit);
    }
    if let Some(text) = last("offset") {
        let offset = integer(text)
            .and_then(|offset| u64::try_from(offset).ok())
            .filter(|offset| *offset <= MAX_OFFSET);
        request.offset = offset.ok_or_else(|| {
            Fault::bad_request(format!("offset must be a number from 0 to {MAX_OFFSET}, not `{text}`"))
        })?;
    }
    request.marker = last("marker").map(str::to_owned);
    request.sort = sort(last("sort"), last("sort_key"), last("sort_dir"), strictness)?;
    for (name, value) in query {
        match name.as_str() {
            "limit" | "offset" | "marker" | "sort" | "sort_key" | "sort_dir" => {}
            "all_tenants" if keeps_all_tenants => {
                request.all_tenants = boolean(value).ok_or_else(|| {
                    Fault::bad_request(format!("all_tenants must be true or false, not `{value}`"))
                })?;
            }
            "all_tenants" => {}
            _ => {
                request.filters.retain(|(known, _)| known != name);
                request.filters.push((name.clone(), value.clone()));
            }
        }
    }
    Ok(request)
}

/// Returns the address of the page behind `marker`.
pub(crate) fn next_href(base: &str, path: &str, query: &[(String, String)], marker: &str) -> String {
    let mut serializer = Serializer::new(String::new());
    for (name, value) in query.iter().filter(|(name, _)| name != "marker" && name != "offset") {
        serializer.append_pair(name, value);
    }
    serializer.append_pair("marker", marker);
    format!("{base}{path}?{}", serializer.finish())
}

fn sort(
    sort: Option<&str>,
    key: Option<&str>,
    direction: Option<&str>,
    strictness: Strictness,
) -> Result<Vec<(String, Direction)>, Fault> {
    if sort.is_some() && (key.is_some() || direction.is_some()) {
        return Err(Fault::bad_request("`sort` cannot be combined with `sort_key` and `sort_dir`"));
    }
    let parse = |key: &str, direction: Option<&str>| -> Result<Option<(String, Direction)>, Fault> {
        let direction = match direction.map(str::trim) {
            None | Some("desc") => Direction::Descending,
            Some("asc") => Direction::Ascending,
            Some(_) if strictness == Strictness::Lenient => return Ok(None),
            Some(other) => {
                return Err(Fault::bad_request(format!(
                    "the sort direction must be asc or desc, not `{other}`"
                )));
            }
        };
        let key = key.trim();
        if key.is_empty() {
            return match strictness {
                Strictness::Lenient => Ok(None),
                Strictness::Strict => Err(Fault::bad_request("a sort key is empty")),
            };
        }
        Ok(Some((key.to_owned(), direction)))
    };
    if let Some(sort) = sort {
        let keys = sort.split(',').map(|part| match part.split_once(':') {
            Some((key, direction)) => parse(key, Some(direction)),
            None => parse(part, None),
        });
        return keys.filter_map(Result::transpose).collect();
    }
    match (key, direction) {
        (None, None) => Ok(Vec::new()),
        (key, direction) => Ok(parse(key.unwrap_or("created_at"), direction)?.into_iter().collect()),
    }
}

/// Reads a whole number of any size; what does not fit is taken for the largest one that does.
fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

/// Reads what clients write for yes and no: the words that the old service took, and no others.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "y" | "1" => Some(true),
        "false" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}
