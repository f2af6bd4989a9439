//! The protection plugin of shares: a snapshot, which stays where the share is, and all that a new share needs.
//!
//! The snapshot is begun in the short phase, together with those of volumes, and waited for after it.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::manila::{AccessRule, Manila, ShareLimits, ShareSnapshot};
use karbor_openstack_client::{self as client, ErrorKind as Cause, Session};
use karbor_plugin::{
    Description, Error, ErrorKind, Hook, LedgerEntry, Need, OperationKind, Outcome, PlannedAction,
    PlannedEffect, Protection, ResourceKey, ResourceType, Restored, Result, Schemas, Task,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::frame::RECORD_FORMAT;
use crate::made::{Made, TAG_KEY};
use crate::poll::{Patience, Reached, reached};
use crate::{Shared, frame, kinds, made};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-share-protection-plugin";
/// The name of its record.
const RECORD: &str = "share";
/// How the ledger knows a snapshot and a share.
const SNAPSHOT: &str = "share_snapshot";
const SHARE: &str = "share";

/// Protects shares.
#[derive(Debug)]
struct ShareProtection {
    shared: Arc<Shared>,
    patience: Patience,
}

/// Makes the plugin.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    let patience = frame::settings(NAME, settings)?;
    Ok(Arc::new(ShareProtection { shared: Arc::clone(shared), patience }))
}

/// A share as a checkpoint keeps it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ShareRecord {
    format: u32,
    snapshot_id: String,
    name: String,
    description: String,
    size: u64,
    share_proto: String,
    share_type: Option<String>,
    share_type_name: Option<String>,
    share_network_id: Option<String>,
    share_network_name: Option<String>,
    availability_zone: Option<String>,
    is_public: bool,
    metadata: Map<String, Value>,
    access_rules: Vec<RuleRecord>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct RuleRecord {
    access_type: String,
    access_to: String,
    access_level: String,
    metadata: Map<String, Value>,
}

/// What protect is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Options {
    snapshot_name: Option<String>,
    description: Option<String>,
    force: bool,
}

/// What a restore is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    restore_name: Option<String>,
    restore_description: Option<String>,
    share_type: Option<String>,
    share_network: Option<String>,
    allow_empty: bool,
}

/// What the short phase leaves for the rest.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    snapshot: String,
}

/// What stands for what a share had.
#[derive(Debug, Default)]
struct Chosen {
    share_type: Option<String>,
    share_network: Option<String>,
    /// The snapshot is gone, and an empty share was asked for in that case.
    is_empty: bool,
    problems: Vec<String>,
}

/// States of a share in which it will be available by itself; at its very beginning it has none.
const ON_THE_WAY: &[&str] =
    &["", "creating", "creating_from_snapshot", "reverting", "extending", "shrinking"];

impl ShareProtection {
    async fn session(&self, task: &Task) -> Result<Session> {
        self.shared.sessions.of(&task.context).await
    }

    fn manila(session: &Session) -> Result<Manila> {
        Manila::new(session).doing(|| "looking for Manila".to_owned())
    }

    /// Begins the snapshot.
    async fn begin(&self, task: &Task) -> Result<Outcome> {
        if task.dry_run {
            return Ok(Outcome::default());
        }
        let options: Options = frame::parameters(task)?;
        let manila = Self::manila(&self.session(task).await?)?;
        let id = task.resource.key.id.as_str();
        self.wait_for_share(&manila, task, id).await?;
        let made = Made::product(SNAPSHOT, SNAPSHOT);
        let tag = made.tag(task);
        // Snapshots have no metadata that every cloud knows: the tag stands in the description.
        let description = match frame::given(options.description.as_deref()) {
            Some(text) => format!("{text} [{tag}]"),
            None => tag.clone(),
        };
        let name =
            frame::given(options.snapshot_name.as_deref()).map_or_else(|| made.name(task), str::to_owned);
        let body = json!({"share_id": id, "name": name, "description": description, "force": options.force});
        let create = async {
            manila.create_snapshot(&body).await.doing(|| format!("making a snapshot of share {id}"))
        };
        let snapshot = made.once(task, || find_snapshot(&manila, id, &tag), create).await?;
        Ok(Outcome { state: json!(State { snapshot }), ..Outcome::default() })
    }

    /// Waits for the snapshot, and puts down what a new share needs.
    async fn protect(&self, task: &Task) -> Result<Outcome> {
        let State { snapshot } = frame::state(task)?;
        let manila = Self::manila(&self.session(task).await?)?;
        let id = task.resource.key.id.as_str();
        let doing = || format!("looking at share {id}");
        let (share, rules) = tokio::try_join!(manila.share(id), manila.access_rules(id)).doing(doing)?;
        let network = match &share.share_network_id {
            Some(network) => {
                let networks = manila.share_networks().await.doing(|| "listing share networks".to_owned())?;
                networks.into_iter().find(|one| one.id == *network).and_then(|one| one.name)
            }
            None => None,
        };
        self.wait_for_snapshot(&manila, task, &snapshot).await?;
        let mut metadata = share.metadata;
        metadata.remove(TAG_KEY);
        let record = ShareRecord {
            format: RECORD_FORMAT,
            snapshot_id: snapshot,
            name: share.name.unwrap_or_default(),
            description: share.description.unwrap_or_default(),
            size: share.size,
            share_proto: share.share_proto,
            share_type: share.share_type,
            share_type_name: share.share_type_name,
            share_network_id: share.share_network_id,
            share_network_name: network,
            availability_zone: share.availability_zone,
            is_public: share.is_public,
            metadata,
            access_rules: rules.into_iter().map(rule_record).collect(),
        };
        task.writer()?.put_record(RECORD, json!(record))?;
        Ok(Outcome::default())
    }

    async fn restore(&self, task: &Task) -> Result<Outcome> {
        let record: ShareRecord = frame::record(task, RECORD)?;
        let parameters: Parameters = frame::parameters(task)?;
        let manila = Self::manila(&self.session(task).await?)?;
        let chosen = choose(&manila, &record, &parameters).await?;
        let name = frame::given(parameters.restore_name.as_deref()).unwrap_or(&record.name).to_owned();
        if task.dry_run {
            let limits = manila.limits().await.doing(|| "looking at the quota of the project".to_owned())?;
            return Ok(rehearse(&record, &name, chosen, &limits));
        }
        if !chosen.problems.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, chosen.problems.join("; ")));
        }
        let made = Made::product(SHARE, SHARE);
        let tag = made.tag(task);
        let mut metadata = record.metadata.clone();
        metadata.insert(TAG_KEY.to_owned(), json!(tag));
        let description = frame::given(parameters.restore_description.as_deref());
        let mut body = json!({
            "name": name, "description": description.unwrap_or(&record.description), "size": record.size,
            "share_proto": record.share_proto, "metadata": metadata, "is_public": record.is_public,
        });
        if !chosen.is_empty {
            body["snapshot_id"] = json!(record.snapshot_id);
        }
        if let Some(kind) = &chosen.share_type {
            body["share_type"] = json!(kind);
        }
        if let Some(network) = &chosen.share_network {
            body["share_network_id"] = json!(network);
        }
        let create = async { manila.create_share(&body).await.doing(|| format!("making the share {name}")) };
        let id = made.once(task, || find_share(&manila, &tag), create).await?;
        self.wait_for_share(&manila, task, &id).await?;
        self.allow(&manila, task, &id, &record).await?;
        let removed = manila.delete_metadata(&id, TAG_KEY).await;
        removed.doing(|| format!("removing our mark from share {id}"))?;
        let text = "it is empty: the snapshot that held what was in it is not there any more";
        let findings = chosen.is_empty.then(|| frame::warning(name.clone(), text)).into_iter().collect();
        let restored = Restored { key: ResourceKey::new(kinds::SHARE, id), name };
        Ok(Outcome { restored: Some(restored), findings, ..Outcome::default() })
    }

    /// Lets those use the share who could use it, and waits until they can.
    async fn allow(&self, manila: &Manila, task: &Task, id: &str, record: &ShareRecord) -> Result<()> {
        let doing = || format!("looking at who may use share {id}");
        let there = manila.access_rules(id).await.doing(doing)?;
        for wanted in &record.access_rules {
            let same = |rule: &AccessRule| {
                rule.access_type == wanted.access_type && rule.access_to == wanted.access_to
            };
            if there.iter().any(same) {
                continue;
            }
            let rule = AccessRule {
                access_type: wanted.access_type.clone(),
                access_to: wanted.access_to.clone(),
                access_level: wanted.access_level.clone(),
                metadata: wanted.metadata.clone(),
                ..AccessRule::default()
            };
            let allowed = manila.allow(id, &rule).await;
            allowed.doing(|| format!("letting {} use share {id}", rule.access_to))?;
        }
        let ask = || async {
            let rules = manila.access_rules(id).await.doing(doing)?;
            if let Some(rule) = rules.iter().find(|rule| rule.state == "error") {
                let text = format!("the share's rule for {} could not be applied", rule.access_to);
                return Err(Error::new(ErrorKind::Other, text));
            }
            Ok(rules.iter().all(|rule| rule.state == "active").then_some(()))
        };
        self.patience.wait(task, &format!("the access rules of share {id}"), ask).await
    }

    async fn verify(&self, task: &Task) -> Result<Outcome> {
        let record: ShareRecord = frame::record(task, RECORD)?;
        let manila = Self::manila(&self.session(task).await?)?;
        let id = record.snapshot_id.as_str();
        let wrong = match manila.snapshot(id).await {
            Ok(snapshot) if snapshot.status == "available" => None,
            Ok(snapshot) => Some(format!("snapshot {id} is in the state {}", snapshot.status)),
            Err(err) if err.is_not_found() => Some(format!("snapshot {id} is gone")),
            Err(err) => return Err(err).doing(|| format!("looking at snapshot {id}")),
        };
        let findings = wrong.map(|text| frame::wrong(task.resource.name.clone(), text)).into_iter().collect();
        Ok(Outcome { findings, ..Outcome::default() })
    }

    /// Removes the snapshot that the checkpoint lives in.
    async fn delete(&self, task: &Task) -> Result<Outcome> {
        let record: ShareRecord = frame::record(task, RECORD)?;
        let manila = Self::manila(&self.session(task).await?)?;
        self.remove_snapshot(&manila, task, &record.snapshot_id).await?;
        Ok(Outcome::default())
    }

    async fn remove_snapshot(&self, manila: &Manila, task: &Task, id: &str) -> Result<()> {
        let status = || async { Ok(manila.snapshot(id).await?.status) };
        self.remove(task, &format!("snapshot {id}"), status, || manila.delete_snapshot(id)).await
    }

    async fn remove_share(&self, manila: &Manila, task: &Task, id: &str) -> Result<()> {
        let status = || async { Ok(manila.share(id).await?.status) };
        self.remove(task, &format!("share {id}"), status, || manila.delete_share(id)).await
    }

    /// Removes what Manila has or is still making, and waits until it is gone.
    async fn remove<S, D>(
        &self,
        task: &Task,
        what: &str,
        status: impl Fn() -> S + Send + Sync,
        delete: impl Fn() -> D + Send + Sync,
    ) -> Result<()>
    where
        S: Future<Output = client::Result<String>> + Send,
        D: Future<Output = client::Result<bool>> + Send,
    {
        let doing = || format!("removing {what}");
        let ask = || async {
            let status = match status().await {
                Err(err) if err.is_not_found() => return Ok(Some(())),
                status => status.doing(doing)?,
            };
            match status.as_str() {
                "error_deleting" => {
                    let text = format!("{what} could not be removed; see Manila's log");
                    Err(Error::new(ErrorKind::Other, text))
                }
                "deleting" => Ok(None),
                status if ON_THE_WAY.contains(&status) => Ok(None),
                _ => match delete().await {
                    Ok(_) => Ok(None),
                    // Its state was on the way to another one.
                    Err(err) if matches!(err.kind(), Cause::Invalid | Cause::Conflict) => Ok(None),
                    Err(err) => Err(err).doing(doing),
                },
            }
        };
        self.patience.for_removal().wait(task, &format!("{what} to go"), ask).await
    }

    async fn wait_for_share(&self, manila: &Manila, task: &Task, id: &str) -> Result<()> {
        let ask = || async {
            let status = manila.share(id).await.doing(|| format!("looking at share {id}"))?.status;
            match reached(&status, &["available", "in-use"], ON_THE_WAY) {
                Reached::Yes => Ok(Some(())),
                Reached::NotYet => Ok(None),
                Reached::Never => {
                    let text = format!("share {id} is in the state {status}");
                    Err(Error::new(ErrorKind::Invalid, text))
                }
            }
        };
        self.patience.wait(task, &format!("share {id} to become available"), ask).await
    }

    async fn wait_for_snapshot(&self, manila: &Manila, task: &Task, id: &str) -> Result<()> {
        let ask = || async {
            let status = manila.snapshot(id).await.doing(|| format!("looking at snapshot {id}"))?.status;
            match reached(&status, &["available"], &["creating"]) {
                Reached::Yes => Ok(Some(())),
                Reached::NotYet => Ok(None),
                Reached::Never => {
                    let text = format!("snapshot {id} is in the state {status}");
                    Err(Error::new(ErrorKind::Other, text))
                }
            }
        };
        self.patience.wait(task, &format!("snapshot {id} to become available"), ask).await
    }
}

fn rule_record(rule: AccessRule) -> RuleRecord {
    let AccessRule { access_type, access_to, access_level, metadata, .. } = rule;
    RuleRecord { access_type, access_to, access_level, metadata }
}

/// Finds the snapshot that carries a tag.
async fn find_snapshot(manila: &Manila, share: &str, tag: &str) -> Result<Option<String>> {
    let listed = manila.snapshots(&[("share_id", share), ("limit", "1000")]).all().await;
    let listed = listed.doing(|| format!("listing the snapshots of share {share}"))?;
    let has = |one: &&ShareSnapshot| one.description.as_deref().is_some_and(|text| text.contains(tag));
    Ok(listed.iter().find(has).map(|one| one.id.clone()))
}

/// Finds the share that carries a tag.
async fn find_share(manila: &Manila, tag: &str) -> Result<Option<String>> {
    let listed = manila.shares(&[("limit", "1000")]).all().await.doing(|| "listing the shares".to_owned())?;
    let has = |share: &&karbor_openstack_client::manila::Share| {
        share.metadata.get(TAG_KEY).and_then(Value::as_str) == Some(tag)
    };
    Ok(listed.iter().find(has).map(|share| share.id.clone()))
}

/// Finds what stands for what the share had, and what stands in the way.
async fn choose(manila: &Manila, record: &ShareRecord, parameters: &Parameters) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    match manila.snapshot(&record.snapshot_id).await {
        Ok(snapshot) if snapshot.status == "available" => {}
        Ok(snapshot) => {
            let text = format!("snapshot {} is in the state {}", record.snapshot_id, snapshot.status);
            chosen.problems.push(text);
        }
        Err(err) if err.is_not_found() && parameters.allow_empty => chosen.is_empty = true,
        Err(err) if err.is_not_found() => chosen.problems.push(format!(
            "snapshot {} is not there: a share is restored where its snapshot is, in the same project; with \
             allow_empty an empty one is made",
            record.snapshot_id
        )),
        Err(err) => return Err(err).doing(|| format!("looking at snapshot {}", record.snapshot_id)),
    }
    let doing = || "looking at what shares can be made of".to_owned();
    let (types, networks) = tokio::try_join!(manila.share_types(), manila.share_networks()).doing(doing)?;
    let wanted = frame::given(parameters.share_type.as_deref());
    let named = |text: Option<&str>| {
        types.iter().find(|one| text.is_some_and(|text| one.id == text || one.name == text))
    };
    let found = match wanted {
        Some(wanted) => named(Some(wanted)),
        None => named(record.share_type.as_deref()).or_else(|| named(record.share_type_name.as_deref())),
    };
    chosen.share_type = found.map(|found| found.id.clone());
    let had = wanted.or(record.share_type_name.as_deref()).or(record.share_type.as_deref());
    if let (None, Some(had)) = (found, had) {
        chosen.problems.push(format!("there is no share type {had}; name another with share_type"));
    }
    let wanted = frame::given(parameters.share_network.as_deref());
    let had = [wanted, record.share_network_id.as_deref(), record.share_network_name.as_deref()];
    let network =
        |text: &str| networks.iter().find(|one| one.id == text || one.name.as_deref() == Some(text));
    let found = match wanted {
        Some(wanted) => network(wanted),
        None => had.into_iter().flatten().find_map(network),
    };
    chosen.share_network = found.map(|found| found.id.clone());
    if let (None, Some(had)) = (found, had.into_iter().flatten().next()) {
        chosen.problems.push(format!("there is no share network {had}; name another with share_network"));
    }
    Ok(chosen)
}

fn rehearse(record: &ShareRecord, name: &str, chosen: Chosen, limits: &ShareLimits) -> Outcome {
    let (shares, gigabytes) = (limits.total_shares_used, limits.total_share_gigabytes_used);
    let needs = vec![
        Need::of_limit("shares", 1, limits.max_total_shares, shares),
        Need::of_limit("GiB of shares", record.size, limits.max_total_share_gigabytes, gigabytes),
    ];
    let details = json!({
        "size_gib": record.size, "share_proto": record.share_proto, "snapshot_id": record.snapshot_id,
        "share_type": {"name": record.share_type_name, "mapped_to": chosen.share_type},
        "share_network": {"id": record.share_network_id, "mapped_to": chosen.share_network},
        "access_rules": record.access_rules.len(), "is_empty": chosen.is_empty,
    });
    let action = frame::planned(PlannedEffect::Create, name, details, None);
    let mut plan = vec![PlannedAction { needs, ..action }];
    for problem in chosen.problems {
        plan.push(frame::planned(PlannedEffect::Create, name, Value::Null, Some(problem)));
    }
    Outcome { plan, ..Outcome::default() }
}

fn schemas() -> Schemas {
    let text = frame::text;
    let options = json!({
        "snapshot_name": text("Snapshot Name", "The name of the snapshot."),
        "description": text("Description", "The description of the snapshot."),
        "force": frame::flag("Force", false, "Whether a snapshot is made of a share in use, where Manila asks."),
    });
    let restore = json!({
        "restore_name": text("Restore Name", "The name of the restored share; its own if none is given."),
        "restore_description": text("Restore Description", "Its description; its own if none is given."),
        "share_type": text("Share Type", "The type (id or name) that it is to have."),
        "share_network": text("Share Network", "The share network (id or name) that it is to be on."),
        "allow_empty": frame::flag("Allow Empty", false, "Whether an empty share is made if the snapshot is gone."),
    });
    Schemas {
        options: frame::schema("Share Protection Options", options),
        restore: frame::schema("Share Protection Restore", restore),
        verify: frame::schema("Share Protection Verify", json!({})),
        saved_info: frame::saved_info("Share Protection Saved Info", RECORD, json!({})),
    }
}

#[async_trait]
impl Protection for ShareProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let protect: &[Hook] = &[Hook::PrepareFinish, Hook::Main];
        let main: &[Hook] = &[Hook::Main];
        // A snapshot cannot be copied, so neither can its checkpoint.
        let hooks = [(Op::Protect, protect), (Op::Restore, main), (Op::Verify, main), (Op::Delete, main)];
        frame::describe(NAME, ResourceType::from(kinds::SHARE), schemas(), &hooks)
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        frame::require_kind(task, kinds::SHARE)?;
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::PrepareFinish) => self.begin(task).await,
            (OperationKind::Protect, Hook::Main) => self.protect(task).await,
            (OperationKind::Restore, Hook::Main) => self.restore(task).await,
            (OperationKind::Verify, Hook::Main) => self.verify(task).await,
            (OperationKind::Delete, Hook::Main) => self.delete(task).await,
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        let manila = Self::manila(&self.session(task).await?)?;
        let tag = made::tag_of(entry);
        match entry.kind.as_str() {
            SNAPSHOT => {
                let find = || find_snapshot(&manila, &task.resource.key.id, tag);
                match made::id_of(entry, find).await? {
                    Some(id) => self.remove_snapshot(&manila, task, &id).await,
                    None => Ok(()),
                }
            }
            SHARE => match made::id_of(entry, || find_share(&manila, tag)).await? {
                Some(id) => self.remove_share(&manila, task, &id).await,
                None => Ok(()),
            },
            _ => {
                let text =
                    format!("this plugin does not know how to remove {} {}", entry.kind, entry.reference);
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }
}
