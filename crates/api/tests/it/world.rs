//! A whole API for one test, and the hand of a worker.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request};
use karbor_actions::{Actions, Authority, Evidence, Parts, Principal, Settings};
use karbor_api::identity::IdentityError;
use karbor_api::{ApiConfig, Identity, State};
use karbor_plugin::noop::{NoopProtectable, NoopProtection};
use karbor_plugin::{
    Description, KindDescription, OperationKind, Outcome, Protection, Provider, Registry, ResourceType,
    Schemas, Task,
};
use karbor_store::{
    CheckpointChange, CheckpointStats, ClaimOptions, Finish, NewStep, RunChange, StepEnd, Store,
    StoreOptions, SubjectChange,
};
use karbor_types::{
    CheckpointEvent, CheckpointId, Graph, Hook, Instant, OperationState, Progress, ProjectId, RunEvent,
    StepState, UserId,
};
use serde_json::{Value, json};
use tower::ServiceExt;

/// The project of `admin` and `member`.
pub(crate) const PROJECT: &str = "0123456789abcdef0123456789abcdef";
/// The project of `other` and `otheradmin`.
pub(crate) const OTHER: &str = "fedcba9876543210fedcba9876543210";
/// The provider that does nothing, for every type.
pub(crate) const NOOP: &str = "b766f37c-d011-4026-8228-28730d734a3f";
/// The provider whose plugins have schemas.
pub(crate) const INFRA: &str = "cf56bd3e-97a7-4078-b6d5-f36246333fd9";
/// An id that names nothing.
pub(crate) const NOBODY: &str = "deadbeef-dead-4eef-8ead-beefdeadbeef";
/// A volume that exists.
pub(crate) const VOLUME: &str = "11111111-1111-4111-8111-000000000001";

/// The types that the old service knew, each with those of which its instances are dependents.
const TYPES: [(&str, &[&str]); 8] = [
    ("OS::Keystone::Project", &[]),
    ("OS::Nova::Server", &["OS::Keystone::Project"]),
    ("OS::Cinder::Volume", &["OS::Keystone::Project", "OS::Nova::Server", "OS::Kubernetes::Pod"]),
    ("OS::Glance::Image", &["OS::Keystone::Project", "OS::Nova::Server"]),
    ("OS::Manila::Share", &["OS::Keystone::Project"]),
    ("OS::Neutron::Network", &["OS::Keystone::Project"]),
    ("OS::Trove::Instance", &["OS::Keystone::Project"]),
    ("OS::Kubernetes::Pod", &["OS::Keystone::Project"]),
];

/// An API, and all that is behind it.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) router: Router,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) wakes: Arc<AtomicU64>,
    pub(crate) evidence: Arc<Bank>,
    _directory: tempfile::TempDir,
}

/// What a world is made with, where it matters.
pub(crate) struct Setup {
    pub(crate) identity: Arc<dyn Identity>,
    pub(crate) authority: Authority,
    pub(crate) settings: Settings,
    pub(crate) config: ApiConfig,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            identity: Arc::new(Names),
            authority: Authority::builtin(),
            settings: Settings::default(),
            config: ApiConfig::default(),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the message of a fault, after checking that it is one: one member, named for the status.
    #[track_caller]
    pub(crate) fn fault(&self) -> &str {
        let outer = self.json.as_object().unwrap_or_else(|| panic!("no JSON object: {self:?}"));
        assert_eq!(outer.len(), 1, "{self:?}");
        let (name, fault) = outer.iter().next().expect("has one");
        let expected = match self.status {
            400 => "badRequest",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "itemNotFound",
            405 => "badMethod",
            409 => "conflictingRequest",
            413 => "overLimit",
            415 => "badMediaType",
            503 => "serviceUnavailable",
            406 | 408 | 424 | 500 => "computeFault",
            other => panic!("{other} is no fault: {self:?}"),
        };
        assert_eq!(name, expected, "{self:?}");
        assert_eq!(fault["code"], self.status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        fault["message"].as_str().expect("a message")
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite:{}", directory.path().join("karbor.db").display());
        let store = Store::open(&url, &StoreOptions::default()).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let clock = Arc::new(AtomicI64::new(1_795_386_554_000_000));
        let ids = Arc::new(AtomicU64::new(1));
        let wakes = Arc::new(AtomicU64::new(0));
        let evidence = Arc::new(Bank::default());
        // Every look at the clock finds it later, so that the order of things is the order of their making.
        let now = Arc::clone(&clock);
        let woken = Arc::clone(&wakes);
        let new_id: karbor_actions::Ids = Arc::new(move || {
            let number = ids.fetch_add(1, Ordering::Relaxed);
            let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            uuid::Builder::from_random_bytes(
                [scattered.to_be_bytes(), number.to_be_bytes()].concat().try_into().expect("16"),
            )
            .into_uuid()
        });
        let actions = Actions::new(Parts {
            store: store.clone(),
            registry: Arc::new(registry()),
            authority: Arc::new(setup.authority),
            evidence: Arc::clone(&evidence) as Arc<dyn Evidence>,
            wake: Arc::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }),
            clock: Arc::new(move || Instant::from_micros(now.fetch_add(1000, Ordering::Relaxed))),
            ids: Arc::clone(&new_id),
            settings: setup.settings,
        });
        let router = karbor_api::router(State::new(actions, setup.identity, setup.config, new_id));
        Self { store, router, clock, wakes, evidence, _directory: directory }
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_micros(self.clock.fetch_add(1000, Ordering::Relaxed))
    }

    /// Sends any request.
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let response = self.router.clone().oneshot(request).await.expect("the router never fails");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 64 << 20).await.expect("the body comes");
        let text = String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        crate::description::check(&method, &path, parts.status.as_u16(), &text, &json);
        Reply { status: parts.status.as_u16(), headers: parts.headers, text, json }
    }

    /// Sends a request as somebody; `{P}` in the path stands for their project.
    pub(crate) async fn call(&self, who: &str, method: &str, path: &str, body: Option<&Value>) -> Reply {
        self.call_at("", who, method, path, body).await
    }

    /// Sends a request in a microversion.
    pub(crate) async fn call_at(
        &self,
        version: &str,
        who: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Reply {
        let path = path.replace("{P}", project_of(who));
        let mut request = Request::builder().method(method).uri(path).header("host", "karbor.test:8799");
        if who != "nobody" {
            request = request.header("x-auth-token", token_of(who));
        }
        if !version.is_empty() {
            request = request.header("openstack-api-version", format!("data-protect {version}"));
        }
        let body = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Body::from(body.to_string())
            }
            None => Body::empty(),
        };
        self.send(request.body(body).expect("a request")).await
    }

    pub(crate) async fn get(&self, who: &str, path: &str) -> Reply {
        self.call(who, "GET", path, None).await
    }

    pub(crate) async fn post(&self, who: &str, path: &str, body: Value) -> Reply {
        self.call(who, "POST", path, Some(&body)).await
    }

    pub(crate) async fn put(&self, who: &str, path: &str, body: Value) -> Reply {
        self.call(who, "PUT", path, Some(&body)).await
    }

    pub(crate) async fn delete(&self, who: &str, path: &str) -> Reply {
        self.call(who, "DELETE", path, None).await
    }

    /// Makes a plan of one volume and returns its id.
    pub(crate) async fn plan(&self, who: &str) -> String {
        let plan = self.post(who, "/v1/{P}/plans", json!({ "plan": plan_body() })).await.ok();
        plan["plan"]["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a checkpoint of a new plan, lets the worker do its part, and returns the checkpoint's id.
    pub(crate) async fn checkpoint(&self, who: &str) -> String {
        let id = self.protecting(who).await;
        self.work().await;
        id
    }

    /// Makes a checkpoint of a new plan and returns its id; no worker has seen it yet.
    pub(crate) async fn protecting(&self, who: &str) -> String {
        let plan = self.plan(who).await;
        let path = format!("/v1/{{P}}/providers/{NOOP}/checkpoints");
        let made = self.post(who, &path, json!({"checkpoint": {"plan_id": plan}})).await.ok();
        made["checkpoint"]["id"].as_str().expect("an id").to_owned()
    }

    /// Does the work of all queued operations, as a worker whose plugins do nothing would.
    pub(crate) async fn work(&self) {
        use OperationKind as Kind;
        let kinds = vec![Kind::Protect, Kind::Restore, Kind::Verify, Kind::Copy, Kind::Delete];
        let options =
            ClaimOptions { owner: "test".to_owned(), lease_seconds: 60, kinds, skip_projects: Vec::new() };
        while let Some(claimed) = self.store.claim(&options, self.now()).await.expect("claims") {
            let operation = claimed.operation;
            let checkpoint =
                self.store.get_checkpoint(operation.checkpoint.expect("has one")).await.expect("is there");
            let graph = Graph::build(&checkpoint.plan.resources, &Default::default()).expect("no circle");
            let cancelled = operation.cancel_requested;
            let steps: Vec<NewStep> = graph
                .nodes()
                .iter()
                .zip(0..)
                .map(|(node, ordinal)| NewStep {
                    resource: node.key.clone(),
                    hook: Hook::Main.as_str().to_owned(),
                    ordinal,
                })
                .collect();
            self.store.save_steps(&claimed.claim, &steps).await.expect("steps");
            for step in steps.iter().filter(|_| !cancelled) {
                let progress = Progress { bytes_done: 1024, bytes_total: Some(1024), bytes_stored: 100 };
                let end = StepEnd {
                    state: StepState::Done,
                    outcome: Value::Null,
                    reason: None,
                    progress: Some(progress),
                };
                self.store.step_started(&claimed.claim, step.ordinal, self.now()).await.expect("starts");
                self.store.step_finished(&claimed.claim, step.ordinal, end, self.now()).await.expect("ends");
            }
            let subject = match operation.kind {
                Kind::Protect | Kind::Copy => {
                    if operation.kind == Kind::Copy {
                        let begun =
                            CheckpointChange { event: Some(CheckpointEvent::Started), ..Default::default() };
                        let begun = SubjectChange::Checkpoint(begun);
                        self.store.change_subject(&claimed.claim, &begun, self.now()).await.expect("begins");
                    }
                    let event = if cancelled { CheckpointEvent::Failed } else { CheckpointEvent::Finished };
                    self.evidence.commit(checkpoint.id, !cancelled);
                    SubjectChange::Checkpoint(CheckpointChange {
                        event: Some(event),
                        graph: Some(graph.pack()),
                        stats: (!cancelled).then_some(CheckpointStats {
                            logical_bytes: 1024,
                            stored_bytes: 100,
                            new_bytes: 100,
                        }),
                        reason: cancelled.then(|| "cancelled".to_owned()),
                        committed_at: (!cancelled).then(|| self.now()),
                        ..Default::default()
                    })
                }
                Kind::Delete => {
                    self.evidence.commit(checkpoint.id, false);
                    let event = Some(CheckpointEvent::Removed);
                    SubjectChange::Checkpoint(CheckpointChange { event, ..Default::default() })
                }
                Kind::Restore if operation.restore.is_none() => SubjectChange::None,
                _ => {
                    let event = if cancelled { RunEvent::Failed } else { RunEvent::Finished };
                    SubjectChange::Run(RunChange { event: Some(event), ..Default::default() })
                }
            };
            let finish = Finish {
                state: if cancelled { OperationState::Cancelled } else { OperationState::Succeeded },
                reason: cancelled.then(|| "cancelled".to_owned()),
                result: if subject == SubjectChange::None { json!({"plan": []}) } else { Value::Null },
                subject,
                extra_info: Value::Null,
            };
            self.store.finish(&claimed.claim, &finish, self.now()).await.expect("finishes");
        }
    }
}

/// A plan of one volume with the provider that does nothing.
pub(crate) fn plan_body() -> Value {
    json!({
        "name": "plan-a", "description": "first", "provider_id": NOOP, "parameters": {},
        "resources": [{"id": VOLUME, "type": "OS::Cinder::Volume", "name": "vol-1"}],
    })
}

pub(crate) fn project_of(who: &str) -> &'static str {
    if who.starts_with("other") { OTHER } else { PROJECT }
}

pub(crate) fn token_of(who: &str) -> String {
    match who {
        "bad" => "no such token".to_owned(),
        "expired" => "expired".to_owned(),
        "unscoped" => "admin".to_owned(),
        "otheradmin" => format!("admin:{OTHER}"),
        who => format!("{who}:{}", project_of(who)),
    }
}

/// Believes `user:project`; `admin` is an administrator, `reader` has that role alone, everybody else is a member.
#[derive(Debug)]
pub(crate) struct Names;

#[async_trait]
impl Identity for Names {
    async fn authenticate(&self, token: &str) -> Result<Principal, IdentityError> {
        let refused = |reason: &str| IdentityError::Refused { reason: reason.to_owned() };
        if token == "expired" {
            return Err(refused("the token has expired"));
        }
        let (user, project) = token.split_once(':').ok_or_else(|| refused("the token is not known"))?;
        let role = match user {
            "admin" => "admin",
            "reader" => "reader",
            _ => "member",
        };
        let user = UserId::new(user).map_err(|_| refused("no user"))?;
        let project = ProjectId::new(project).map_err(|_| refused("no project"))?;
        Ok(Principal::new(user, project, [role.to_owned()]))
    }

    fn challenge(&self) -> String {
        "Keystone uri=\"http://127.0.0.1:35000\"".to_owned()
    }
}

/// Knows which checkpoints are committed.
#[derive(Debug, Default)]
pub(crate) struct Bank(Mutex<HashSet<CheckpointId>>);

impl Bank {
    pub(crate) fn commit(&self, id: CheckpointId, stands: bool) {
        let mut committed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if stands {
            committed.insert(id);
        } else {
            committed.remove(&id);
        }
    }
}

#[async_trait]
impl Evidence for Bank {
    async fn is_committed(
        &self,
        _project: &ProjectId,
        _provider: &Provider,
        checkpoint: CheckpointId,
    ) -> Result<bool, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&checkpoint))
    }
}

/// The two providers and all types, with instances for both projects.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let project = ProjectId::new(PROJECT).expect("an id");
    let server = karbor_plugin::ResourceKey::new("OS::Nova::Server", "22222222-2222-4222-8222-000000000001");
    for (kind, parents) in TYPES {
        let mut protectable =
            NoopProtectable::new(kind, parents.iter().map(|parent| ResourceType::from(*parent)));
        let names: &[(&str, &str)] = match kind {
            "OS::Cinder::Volume" => &[(VOLUME, "vol-1"), ("11111111-1111-4111-8111-000000000002", "vol-2")],
            "OS::Nova::Server" => &[("22222222-2222-4222-8222-000000000001", "vm-1")],
            "OS::Glance::Image" => &[("33333333-3333-4333-8333-000000000001", "img-1")],
            "OS::Neutron::Network" => &[(PROJECT, "Network Topology")],
            "OS::Keystone::Project" => &[(PROJECT, "demo-project")],
            _ => &[],
        };
        for (id, name) in names {
            protectable = protectable.with(&project, id, name);
        }
        if kind == "OS::Cinder::Volume" {
            protectable = protectable.below(&project, &server, "11111111-1111-4111-8111-000000000002");
        }
        registry.add_protectable(Arc::new(protectable)).expect("each type once");
    }
    let all = TYPES.iter().map(|(kind, _)| ResourceType::from(*kind));
    let noop = Provider::new(NOOP.parse().expect("an id"), "No-Op Provider", "does nothing", "files")
        .with(Arc::new(NoopProtection::new(all)))
        .expect("schemas");
    let infra = Provider::new(INFRA.parse().expect("an id"), "OS Infra Provider", "has schemas", "objects")
        .with(Arc::new(Schematic))
        .expect("schemas");
    registry.add_provider(noop).expect("once");
    registry.add_provider(infra).expect("once");
    registry
}

/// A plugin with schemas like those of the old one.
#[derive(Debug)]
struct Schematic;

#[async_trait]
impl Protection for Schematic {
    fn describe(&self) -> Description {
        let text =
            |title: &str| json!({"type": "string", "title": title, "description": title, "default": null});
        let operations = BTreeSet::from([
            OperationKind::Protect,
            OperationKind::Restore,
            OperationKind::Verify,
            OperationKind::Copy,
            OperationKind::Delete,
        ]);
        let kind = |kind: &str, options: Value, restore: Value| KindDescription {
            kind: ResourceType::from(kind),
            operations: operations.clone(),
            schemas: Schemas { options, restore, ..Schemas::default() },
            hooks: BTreeMap::new(),
        };
        let volume = json!({"title": "Volume", "type": "object", "properties": {
            "backup_name": text("Backup Name"),
            "backup_mode": {"type": "string", "title": "Mode", "description": "Mode", "enum": ["full", "incremental"],
                            "default": "full"},
            "container": text("Container"), "description": text("Description"),
            "force": {"type": "boolean", "title": "Force", "description": "Force", "default": false}}});
        let restore = json!({"title": "Volume", "type": "object", "properties": {
            "volume_id": text("Volume ID"), "restore_name": text("Restore Name")}});
        Description {
            name: "schematic".to_owned(),
            version: "1".to_owned(),
            kinds: vec![
                kind("OS::Cinder::Volume", volume, restore),
                kind("OS::Nova::Server", json!({"type": "object", "properties": {}}), json!({})),
            ],
        }
    }

    async fn run(&self, _hook: Hook, _task: &Task) -> karbor_plugin::Result<Outcome> {
        Ok(Outcome::default())
    }
}
