//! A request as handlers see it: who asks, for what, in which version, with which body.
//!
//! Extracting one makes the checks that come after the route and before the schema, in the order that clients know:
//! method, JSON, project in the address, microversion.

use std::sync::Arc;

use axum::RequestExt;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use karbor_actions::{Actions, Caller, ListRequest, Page};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::body::{Members, is_uuid_like};
use crate::fault::{Cause, Fault};
use crate::paging::{self, Strictness};
use crate::{BaseUrl, Microversion, State, gate, microversion};

/// What a handler answers.
pub(crate) type Answer = Result<Response, Fault>;

/// A request.
pub(crate) struct Call {
    pub(crate) caller: Arc<Caller>,
    pub(crate) version: Microversion,
    pub(crate) query: Vec<(String, String)>,
    state: State,
    params: Vec<(String, String)>,
    path: String,
    headers: HeaderMap,
    body: CallBody,
    names_version: bool,
}

/// What came as a body.
enum CallBody {
    None,
    Json(Value),
    /// Something whose media type is not JSON.
    Other,
}

impl FromRequest<State> for Call {
    type Rejection = Fault;

    async fn from_request(mut request: Request, state: &State) -> Result<Self, Fault> {
        let method = request.method().clone();
        if gate::is_unknown(&method) {
            return Err(unknown_method());
        }
        let mut caller = gate::caller(&request).ok_or_else(|| Fault::internal(Cause(Arc::new(NoCaller))))?;
        let params = request.extract_parts::<RawPathParams>().await;
        let params = params.map_err(|_| Fault::bad_request("the address is not UTF-8"))?;
        let params: Vec<(String, String)> =
            params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        if params.iter().any(|(_, value)| value.contains('\0')) {
            return Err(Fault::bad_request("the address holds a NUL character"));
        }
        let (parts, body) = request.into_parts();
        let body = read_body(state, &parts.headers, body).await?;
        if matches!(body, CallBody::Json(_)) && matches!(method, Method::GET | Method::DELETE) {
            return Err(Fault::bad_request(format!("{method} takes no body")));
        }
        let project = params.iter().find(|(name, _)| name == "project").map(|(_, value)| value.as_str());
        if project != Some(caller.project.as_str()) {
            let text = "the project in the address is not the project of the token";
            return Err(Fault::bad_request(text));
        }
        let (version, names_version) = Microversion::negotiate(&parts.headers)?;
        if version >= Microversion::V1_2 {
            Arc::make_mut(&mut caller).conceals = true;
        }
        Ok(Self {
            caller,
            version,
            query: paging::parameters(parts.uri.query())?,
            state: state.clone(),
            params,
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body,
            names_version,
        })
    }
}

impl Call {
    pub(crate) fn actions(&self) -> &Actions {
        self.state.actions()
    }

    /// Returns a part of the address.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.params.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    /// Returns the last part of a standard address, without the suffix that it may have.
    pub(crate) fn suffixed(&self, name: &str) -> &str {
        let text = self.param(name);
        text.strip_suffix(".json").or_else(|| text.strip_suffix(".xml")).unwrap_or(text)
    }

    /// Reads an id that an object of our own has. What looks like a UUID but is not spelled as we spell it names
    /// nothing.
    pub(crate) fn id<T>(&self, text: &str, what: &str) -> Result<T, Fault>
    where
        T: std::str::FromStr + std::fmt::Display,
    {
        if !is_uuid_like(text) {
            return Err(Fault::bad_request(format!("`{text}` is no {what} id: a UUID is expected")));
        }
        match text.parse::<T>() {
            Ok(id) if id.to_string() == text => Ok(id),
            _ => Err(Fault::not_found(format!("{what} {text} does not exist"))),
        }
    }

    /// Reads the `{id}` of a standard address.
    pub(crate) fn member_id<T>(&self, what: &str) -> Result<T, Fault>
    where
        T: std::str::FromStr + std::fmt::Display,
    {
        let text = self.suffixed("id");
        // The old service's routes had forms for people behind these two.
        if matches!(text, "new" | "edit") {
            return Err(Fault::not_here());
        }
        self.id(text, what)
    }

    /// Returns whether the caller speaks at least that version.
    pub(crate) fn speaks(&self, version: Microversion) -> bool {
        self.version >= version
    }

    /// Refuses those who do not speak the version in which the address came.
    pub(crate) fn since(&self, version: Microversion) -> Result<(), Fault> {
        if self.speaks(version) { Ok(()) } else { Err(Fault::not_here()) }
    }

    /// Returns the one member that the body must have.
    pub(crate) fn envelope(&mut self, name: &str) -> Result<Members, Fault> {
        let body = self.json()?;
        Members::envelope(body, name)
    }

    /// Returns the body, which must be there.
    pub(crate) fn json(&mut self) -> Result<Value, Fault> {
        match std::mem::replace(&mut self.body, CallBody::None) {
            CallBody::Json(value) => Ok(value),
            CallBody::None => Err(Fault::bad_request("a JSON body is needed")),
            CallBody::Other => Err(Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON, with the content type application/json",
            )),
        }
    }

    /// Reads what a list shall hold, for lists that look at `all_tenants` of administrators only.
    pub(crate) fn list(&self, strictness: Strictness) -> Result<ListRequest, Fault> {
        let limit = self.actions().settings().max_limit;
        paging::list_request(&self.query, limit, self.caller.is_admin, strictness)
    }

    /// Reads what a list shall hold, for lists that look at everybody's `all_tenants`.
    pub(crate) fn open_list(&self) -> Result<ListRequest, Fault> {
        let limit = self.actions().settings().max_limit;
        paging::list_request(&self.query, limit, true, Strictness::Strict)
    }

    /// Returns what absolute addresses begin with.
    pub(crate) fn base(&self) -> BaseUrl {
        BaseUrl::of(self.state.config().base_url.as_ref(), &self.headers)
    }

    /// Answers with one object under its name.
    pub(crate) fn one(&self, name: &str, object: impl Serialize) -> Answer {
        self.json_answer(&Named { name, object, links: None })
    }

    /// Answers with a page under the name of its collection.
    pub(crate) fn page<T: Serialize>(&self, name: &str, page: &Page<T>, id: impl Fn(&T) -> String) -> Answer {
        let next = if page.more { page.items.last().map(id) } else { None };
        self.many(name, &page.items, next.as_deref())
    }

    /// Answers with items under the name of their collection; `next` is the marker of the page behind them.
    pub(crate) fn many<T: Serialize>(&self, name: &str, items: &[T], next: Option<&str>) -> Answer {
        let links = next.map(|marker| {
            let base = BaseUrl::of(self.state.config().base_url.as_ref(), &self.headers);
            (format!("{name}_links"), paging::next_href(base.as_str(), &self.path, &self.query, marker))
        });
        self.json_answer(&Named { name, object: items, links })
    }

    /// Answers with any JSON.
    pub(crate) fn json_answer(&self, body: &impl Serialize) -> Answer {
        let bytes = serde_json::to_vec(body).map_err(|err| Fault::internal(Cause(Arc::new(err))))?;
        Ok(self.finished(Body::from(bytes)))
    }

    /// Answers with no body.
    pub(crate) fn empty(&self) -> Answer {
        Ok(self.finished(Body::empty()))
    }

    fn finished(&self, body: Body) -> Response {
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.names_version
            && let Ok(value) = HeaderValue::from_str(&self.version.header())
        {
            headers.insert(microversion::HEADER, value);
            headers.insert(header::VARY, HeaderValue::from_static("OpenStack-API-Version"));
        }
        response
    }
}

/// One object, or a list, under its name, with the links of a list.
struct Named<'a, T> {
    name: &'a str,
    object: T,
    links: Option<(String, String)>,
}

impl<T: Serialize> Serialize for Named<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(1 + usize::from(self.links.is_some())))?;
        map.serialize_entry(self.name, &self.object)?;
        if let Some((name, href)) = &self.links {
            map.serialize_entry(name, &[Link { rel: "next", href }])?;
        }
        map.end()
    }
}

#[derive(Serialize)]
struct Link<'a> {
    rel: &'static str,
    href: &'a str,
}

/// Reads the body, if its media type is JSON.
async fn read_body(state: &State, headers: &HeaderMap, body: Body) -> Result<CallBody, Fault> {
    let limit = state.config().max_body_bytes;
    let too_large = || {
        let text = format!("the body is larger than {limit} bytes");
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(too_large());
    }
    let bytes = match tokio::time::timeout(state.body_time(), to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => bytes,
        // The length is not known beforehand, so what fails here is taken for too long only if it was cut there.
        Ok(Err(err)) if is_length_limit(&err) => return Err(too_large()),
        Ok(Err(_)) => return Err(Fault::bad_request("the body broke off")),
        Err(_) => return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    if bytes.is_empty() {
        return Ok(CallBody::None);
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !media_type.is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json")) {
        return Ok(CallBody::Other);
    }
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|err| Fault::bad_request(format!("the body is not JSON that can be read: {err}")))?;
    if holds_nul(&value) {
        return Err(Fault::bad_request("the body holds a NUL character"));
    }
    Ok(CallBody::Json(value))
}

fn is_length_limit(err: &axum::Error) -> bool {
    let mut next: Option<&dyn std::error::Error> = Some(err);
    while let Some(err) = next {
        if err.to_string().contains("length limit exceeded") {
            return true;
        }
        next = err.source();
    }
    false
}

/// Returns whether a NUL stands anywhere: no database text can hold it. The depth is bounded by the JSON parser.
fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(members) => in_members(members),
        _ => false,
    }
}

fn in_members(members: &Map<String, Value>) -> bool {
    members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value))
}

/// The answer for a method that the address does not know.
pub(crate) fn unknown_method() -> Fault {
    Fault::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not know that method")
}

/// The handler of methods that an address does not know.
pub(crate) async fn method_not_allowed() -> Response {
    unknown_method().into_response()
}

/// The handler of addresses that do not exist, and of those that never had anything behind them.
pub(crate) async fn not_here() -> Response {
    Fault::not_here().into_response()
}

#[derive(Debug, thiserror::Error)]
#[error("a handler ran without an identified caller")]
struct NoCaller;
