//! The page that shows the description of the API.

/// One file, with its style and its script in it.
pub(crate) const PAGE: &str = include_str!("page.html");
