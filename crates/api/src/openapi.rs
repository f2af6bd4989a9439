//! The description of the API in OpenAPI 3.1, made while the routes are: what is served is described, by the same call.
//!
//! An [`Op`] stands beside each handler. The document follows from all of them and from the schemas; it is served at
//! `/openapi.json`, committed as `docs/openapi.json`, and a test says whether that is fresh.

mod page;
mod schemas;

use axum::handler::Handler;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use serde_json::{Map, Value, json};

use crate::State;

/// What an answer of 200 holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answers {
    /// Nothing.
    Nothing,
    /// Any object.
    Object,
    /// One member with a schema.
    One(&'static str, &'static str),
    /// One member with a list, and links to the next page.
    Page(&'static str, &'static str),
    /// One member with a list.
    List(&'static str, &'static str),
    /// One member with a list of texts.
    Texts(&'static str),
}

/// What a request holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Takes {
    /// One member with a schema.
    One(&'static str, &'static str),
    /// An object of a schema.
    Flat(&'static str),
}

/// What is told of one method of one address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    id: &'static str,
    summary: &'static str,
    answers: Answers,
    takes: Option<Takes>,
    filters: &'static [&'static str],
    statuses: &'static [u16],
    pages: bool,
    since: Option<&'static str>,
}

impl Op {
    pub(crate) const fn new(id: &'static str, summary: &'static str, answers: Answers) -> Self {
        let pages = matches!(answers, Answers::Page(..));
        Self { id, summary, answers, takes: None, filters: &[], statuses: &[], pages, since: None }
    }

    pub(crate) const fn takes(mut self, takes: Takes) -> Self {
        self.takes = Some(takes);
        self
    }

    pub(crate) const fn filters(mut self, filters: &'static [&'static str]) -> Self {
        self.filters = filters;
        self
    }

    /// Adds statuses beyond those that every address has.
    pub(crate) const fn or(mut self, statuses: &'static [u16]) -> Self {
        self.statuses = statuses;
        self
    }

    pub(crate) const fn since(mut self, version: &'static str) -> Self {
        self.since = Some(version);
        self
    }
}

/// An address with its handlers and what is told of them.
#[derive(Clone, Default)]
pub(crate) struct Node {
    pub(crate) router: MethodRouter<State>,
    pub(crate) told: Vec<(&'static str, Op)>,
}

macro_rules! method {
    ($name:ident) => {
        pub(crate) fn $name<H, T>(mut self, op: Op, handler: H) -> Self
        where
            H: Handler<T, State>,
            T: 'static,
        {
            self.router = self.router.$name(handler);
            self.told.push((stringify!($name), op));
            self
        }
    };
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    method!(get);
    method!(post);
    method!(put);
    method!(delete);
}

/// All that is told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told(Vec<(String, &'static str, Op)>);

impl Told {
    pub(crate) fn add(&mut self, path: &str, node: &Node) {
        for (method, op) in &node.told {
            self.0.push((path.to_owned(), method, *op));
        }
    }

    /// Returns the document.
    pub(crate) fn document(&self) -> Value {
        let mut paths: Map<String, Value> = open_paths();
        for (path, method, op) in &self.0 {
            let entry = paths.entry(path.clone()).or_insert_with(|| json!({}));
            entry[*method] = operation(path, op);
        }
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Karbor", "version": crate::Microversion::NEWEST.to_string(),
                "summary": "Data protection as a service",
                "description": "The API of OpenStack Karbor, version 1, with microversions for what goes beyond it. \
                    Members that came with a microversion are there only for clients that ask for it.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "security": [{"token": []}],
            "paths": paths,
            "components": {
                "schemas": schemas::all(),
                "parameters": parameters(),
                "responses": FAULTS.iter().map(|status| (format!("Fault{status}"), fault(*status))).collect::<Map<_, _>>(),
                "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
            },
        })
    }
}

/// All faults.
const FAULTS: [u16; 12] = [400, 401, 403, 404, 406, 408, 409, 413, 415, 424, 429, 503];
/// The statuses that every address below a project may answer.
const EVERYWHERE: [u16; 8] = [400, 401, 403, 404, 406, 408, 429, 503];
/// Those that every address with a body may answer as well.
const WITH_BODY: [u16; 2] = [413, 415];

fn operation(path: &str, op: &Op) -> Value {
    let tag = path.split('/').nth(3).unwrap_or("service");
    let tag = if path.contains("/checkpoints") { "checkpoints" } else { tag };
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| path_parameter(name, path))
        .collect();
    parameters.push(common_parameter("version"));
    if op.pages {
        parameters.extend(PAGES.map(common_parameter));
    }
    let filters = op.filters.iter();
    parameters
        .extend(filters.map(|name| query_parameter(name, "Only what has this value", &filter_schema(name))));
    let mut responses = Map::new();
    let mut ok = json!({"description": "Done", "headers": request_id()});
    if let Some(schema) = answer_schema(op.answers) {
        ok["content"] = json!({"application/json": {"schema": schema}});
    }
    responses.insert("200".to_owned(), ok);
    let with_body = op.takes.iter().flat_map(|_| WITH_BODY);
    for status in EVERYWHERE.into_iter().chain(with_body).chain(op.statuses.iter().copied()) {
        let answer = json!({"$ref": format!("#/components/responses/Fault{status}")});
        responses.insert(status.to_string(), answer);
    }
    let mut told = json!({
        "operationId": op.id, "summary": op.summary, "tags": [tag], "parameters": parameters,
        "responses": responses,
    });
    if let Some(takes) = op.takes {
        let schema = match takes {
            Takes::Flat(schema) => reference(schema),
            Takes::One(member, schema) => json!({
                "type": "object", "required": [member], "additionalProperties": false,
                "properties": {member: reference(schema)},
            }),
        };
        told["requestBody"] = json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if let Some(since) = op.since {
        told["x-openstack-min-version"] = since.into();
        told["description"] =
            format!("Since microversion {since}; without it the address does not exist.").into();
    }
    told
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn answer_schema(answers: Answers) -> Option<Value> {
    let object = |name: &str, schema: Value| json!({"type": "object", "required": [name], "additionalProperties": false, "properties": {name: schema}});
    Some(match answers {
        Answers::Nothing => return None,
        Answers::Object => json!({"type": "object"}),
        Answers::One(name, schema) => object(name, reference(schema)),
        Answers::List(name, schema) => object(name, json!({"type": "array", "items": reference(schema)})),
        Answers::Texts(name) => object(name, json!({"type": "array", "items": {"type": "string"}})),
        Answers::Page(name, schema) => {
            let mut page = object(name, json!({"type": "array", "items": reference(schema)}));
            page["properties"][format!("{name}_links")] =
                json!({"type": "array", "items": reference("Link")});
            page
        }
    })
}

fn fault(status: u16) -> Value {
    let (name, text) = match status {
        400 => ("badRequest", "The request is wrong; the message names what"),
        401 => ("unauthorized", "No token, or one that is not accepted"),
        403 => ("forbidden", "The policy refuses, or the object is another project's"),
        404 => ("itemNotFound", "There is no such address or object"),
        406 => ("computeFault", "There is no such microversion"),
        408 => ("computeFault", "The body did not come in time"),
        409 => ("conflictingRequest", "The object's state does not allow it"),
        413 => ("overLimit", "The quota is used up, or the body is too large"),
        415 => ("badMediaType", "The body is not JSON"),
        424 => ("computeFault", "The trigger is in use"),
        429 => ("overLimit", "The project makes more requests than it may"),
        _ => ("serviceUnavailable", "The database, the bank or Keystone cannot be reached"),
    };
    let schema = json!({
        "type": "object", "required": [name], "additionalProperties": false,
        "properties": {name: {"allOf": [reference("Fault"), {"properties": {"code": {"const": status}}}]}},
    });
    json!({"description": text, "headers": request_id(), "content": {"application/json": {"schema": schema}}})
}

fn request_id() -> Value {
    let header = json!({"description": "Names the request", "schema": {"type": "string"}});
    json!({"x-openstack-request-id": header, "x-compute-request-id": header})
}

fn path_parameter(name: &str, path: &str) -> Value {
    let ours =
        !path.contains("/protectables/") && !path.contains("/quotas/") && !path.contains("/quota_classes/");
    let (text, schema) = match name {
        "project" => ("The project of the token", json!({"type": "string"})),
        "type" => ("The type of a resource", json!({"type": "string"})),
        "bank" => ("The bank's name", json!({"type": "string"})),
        "provider" => ("The provider's id", json!({"type": "string", "format": "uuid"})),
        _ if path.contains("/os-services/") => ("The service's number", json!({"type": "integer"})),
        _ if ours && name != "bank" => ("Its id", json!({"type": "string", "format": "uuid"})),
        _ => ("Its id or name", json!({"type": "string"})),
    };
    json!({"name": name, "in": "path", "required": true, "description": text, "schema": schema})
}

fn query_parameter(name: &str, text: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "description": text, "schema": schema})
}

fn filter_schema(name: &str) -> Value {
    match name {
        "start_date" | "end_date" => json!({"type": "string", "format": "date"}),
        _ => json!({"type": "string"}),
    }
}

/// The parameters of lists with pages.
const PAGES: [&str; 8] =
    ["limit", "offset", "marker", "sort", "sort_key", "sort_dir", "all_tenants", "project_id"];

fn common_parameter(name: &str) -> Value {
    json!({"$ref": format!("#/components/parameters/{name}")})
}

fn parameters() -> Value {
    let text = json!({"type": "string"});
    let limit = json!({"type": "integer", "minimum": 1});
    let offset = json!({"type": "integer", "minimum": 0, "maximum": 2_147_483_647});
    let direction = json!({"type": "string", "enum": ["asc", "desc"]});
    let all = [
        ("limit", "At most so many items; more than 1000 are never given", &limit),
        ("offset", "So many items are left out first", &offset),
        ("marker", "The id of the last item of the page before", &text),
        ("sort", "Keys with directions: `name:asc,created_at:desc`", &text),
        ("sort_key", "A key to order by", &text),
        ("sort_dir", "Its direction", &direction),
        ("all_tenants", "All projects, for administrators", &text),
        ("project_id", "Only this project, with `all_tenants`", &text),
    ];
    let mut told: Map<String, Value> = all
        .iter()
        .map(|(name, text, schema)| ((*name).to_owned(), query_parameter(name, text, schema)))
        .collect();
    let version = json!({
        "name": "OpenStack-API-Version", "in": "header", "required": false,
        "description": "The microversion that the client speaks; 1.0 without it",
        "schema": {"type": "string", "enum": ["data-protect 1.0", "data-protect 1.1", "data-protect 1.2", "data-protect latest"]},
    });
    told.insert("version".to_owned(), version);
    Value::Object(told)
}

/// The addresses that need no token.
fn open_paths() -> Map<String, Value> {
    let open = |id: &str, summary: &str, status: &str, kind: &str| {
        let content = json!({kind: {"schema": if kind == "application/json" { json!({"type": "object"}) } else { json!({"type": "string"}) }}});
        json!({"get": {
            "operationId": id, "summary": summary, "tags": ["service"], "security": [],
            "responses": {status: {"description": "Done", "content": content}, "503": {"$ref": "#/components/responses/Fault503"}},
        }})
    };
    let json = "application/json";
    Map::from_iter([
        ("/".to_owned(), open("versions", "List the versions", "300", json)),
        ("/v1/".to_owned(), open("version", "Show this version and its microversions", "200", json)),
        ("/healthcheck".to_owned(), open("healthcheck", "Tell whether the service can work", "200", json)),
        ("/openapi.json".to_owned(), open("openapi", "Show this document", "200", json)),
        ("/openapi".to_owned(), open("openapi-page", "Show this document as a page", "200", "text/html")),
        (crate::webhooks::PATH.to_owned(), webhook()),
    ])
}

/// What is told of the addresses at which triggers are called.
fn webhook() -> Value {
    let parameter =
        |name: &str| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    let key = json!({
        "name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255},
        "description": "Calls with the same key fire the trigger once",
    });
    let content = json!({"application/json": {"schema": {"type": "object", "required": ["event"]}}});
    let fault = |status: u16| json!({"$ref": format!("#/components/responses/Fault{status}")});
    json!({"post": {
        "operationId": "call-trigger", "summary": "Let a trigger fire", "tags": ["service"], "security": [],
        "parameters": [parameter("trigger"), parameter("signature"), key],
        "responses": {
            "202": {"description": "Taken", "content": content}, "400": fault(400), "404": fault(404),
            "429": fault(429), "503": fault(503),
        },
    }})
}

/// Answers with the document.
pub(crate) async fn show(axum::extract::State(document): axum::extract::State<&'static str>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], document).into_response()
}

/// Answers with a page that shows the document; it fetches nothing but that.
pub(crate) async fn show_page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
            ),
        ),
    ];
    (headers, page::PAGE).into_response()
}
