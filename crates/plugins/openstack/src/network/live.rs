//! The builder that makes things in Neutron.
//!
//! Neutron keeps no metadata, and tags cannot be given when a thing is made: until its description is written, a new
//! thing carries the ledger's tag there, by which it is found after a crash.

use std::collections::BTreeMap;

use async_trait::async_trait;
use karbor_openstack_client::Session;
use karbor_openstack_client::neutron::{self, Kind, Neutron};
use karbor_plugin::{LedgerEntry, LedgerState, Result, Task};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::made::{self, Made};
use crate::network::build::{self, Builder};
use crate::network::capture;
use crate::network::plan::{Existing, Part};

/// Makes the parts of one task's restore.
#[derive(Debug)]
pub(crate) struct Live<'a> {
    pub(crate) neutron: Neutron,
    task: &'a Task,
    /// What earlier attempts began, and what they have made of it where that is known.
    earlier: BTreeMap<Part, Option<String>>,
}

/// Under what a ledger entry has the part that it stands for.
const OLD: &str = "old";
/// What a ledger entry of a rule must remember to find it.
const GROUP: &str = "group";
const RULE: &str = "rule";

#[derive(Debug, Deserialize)]
struct Id {
    id: String,
}

/// The kinds that are made.
const KINDS: [Kind; 7] = [
    Kind::Network,
    Kind::Subnet,
    Kind::Router,
    Kind::Port,
    Kind::SecurityGroup,
    Kind::SecurityGroupRule,
    Kind::FloatingIp,
];

fn kind_of(entry: &LedgerEntry) -> Option<Kind> {
    KINDS.into_iter().find(|kind| kind.member() == entry.kind)
}

impl<'a> Live<'a> {
    pub(crate) async fn new(session: &Session, task: &'a Task) -> Result<Self> {
        let neutron = Neutron::new(session).doing(|| "looking for Neutron".to_owned())?;
        let entries = task.ledger.entries().await?.into_iter().filter(LedgerEntry::is_open);
        let earlier = entries.filter_map(|entry| {
            let part = (kind_of(&entry)?, made::data_of(&entry, OLD)?.to_owned());
            let id = (entry.state == LedgerState::Created).then_some(entry.reference);
            Some((part, id))
        });
        Ok(Self { neutron, task, earlier: earlier.collect() })
    }

    /// Tells a plan what earlier attempts began.
    pub(crate) fn tell(&self, existing: &mut Existing) {
        existing.began = self.earlier.keys().cloned().collect();
        let made = self.earlier.iter().filter_map(|(part, id)| Some((part.clone(), id.clone()?)));
        existing.made = made.collect();
    }

    async fn find(&self, kind: Kind, tag: &str) -> Result<Option<String>> {
        let query = [("description", tag), ("fields", "id")];
        let found = self.neutron.list::<Id>(kind, &query).all().await;
        let found = found.doing(|| format!("looking for a new {}", kind.member()))?;
        Ok(found.into_iter().next().map(|found| found.id))
    }

    async fn find_rule(&self, group: &str, body: &Value) -> Result<Option<String>> {
        let Ok(wanted) = neutron::SecurityGroupRule::deserialize(body) else { return Ok(None) };
        let wanted = capture::rule(&wanted).bare();
        let there = self.rules(group).await?;
        Ok(there.into_iter().find(|rule| capture::rule(rule).bare() == wanted).map(|rule| rule.id))
    }

    /// Removes what an entry tells of; returns false if it is nothing of Neutron's.
    pub(crate) async fn clean_up(&self, entry: &LedgerEntry) -> Result<bool> {
        let Some(kind) = kind_of(entry) else { return Ok(false) };
        let id = if kind == Kind::SecurityGroupRule {
            let (group, rule) = (made::data_of(entry, GROUP).unwrap_or_default(), &entry.data[RULE]);
            made::id_of(entry, || self.find_rule(group, rule)).await?
        } else {
            made::id_of(entry, || self.find(kind, made::tag_of(entry))).await?
        };
        let Some(id) = id else { return Ok(true) };
        match kind {
            Kind::Router => self.empty_router(&id).await?,
            Kind::Port => {
                let ports = self.neutron.list::<neutron::Port>(kind, &[("id", &id)]).all().await;
                let ports = ports.doing(|| format!("looking at port {id}"))?;
                if let Some(port) = ports.first().filter(|port| capture::is_interface(port)) {
                    let removed = self.neutron.remove_router_interface(&port.device_id, &id).await;
                    removed.doing(|| format!("taking port {id} from its router"))?;
                }
            }
            _ => {}
        }
        self.neutron.delete(kind, &id).await.doing(|| format!("removing {} {id}", kind.member()))?;
        Ok(true)
    }

    async fn empty_router(&self, id: &str) -> Result<()> {
        match self.neutron.update(Kind::Router, id, &json!({"routes": []})).await {
            Err(err) if err.is_not_found() => return Ok(()),
            emptied => emptied.doing(|| format!("removing the routes of router {id}"))?,
        }
        for port in self.router_ports(id).await?.iter().filter(|port| capture::is_interface(port)) {
            let removed = self.neutron.remove_router_interface(id, &port.id).await;
            removed.doing(|| format!("disconnecting router {id}"))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Builder for Live<'_> {
    fn began(&self, part: &Part) -> bool {
        self.earlier.contains_key(part)
    }

    async fn make(&self, part: &Part, mut body: Map<String, Value>, tags: &[String]) -> Result<String> {
        let (kind, old) = part;
        let role = format!("{}:{old}", kind.member());
        let made = Made::product(kind.member(), role).with(OLD, old.as_str());
        let tag = made.tag(self.task);
        let description = body.insert("description".to_owned(), json!(tag)).unwrap_or_else(|| json!(""));
        let body = Value::Object(body);
        let make = async {
            let created = self.neutron.create(*kind, &body).await;
            created.doing(|| format!("making what stands for {} {old}", kind.member()))
        };
        let id = match made.once(self.task, || self.find(*kind, &tag), make).await {
            // Refused is not made: whoever asks for less next need not look for it.
            Err(err) if build::is_refusal(&err) => {
                made.gone(self.task).await?;
                return Err(err);
            }
            made => made?,
        };
        let written = self.neutron.update(*kind, &id, &json!({"description": description})).await;
        written.doing(|| format!("describing {} {id}", kind.member()))?;
        if !tags.is_empty() {
            let tagged = self.neutron.set_tags(*kind, &id, tags).await;
            tagged.doing(|| format!("tagging {} {id}", kind.member()))?;
        }
        Ok(id)
    }

    async fn update(&self, kind: Kind, id: &str, body: Value) -> Result<()> {
        self.neutron.update(kind, id, &body).await.doing(|| format!("changing {} {id}", kind.member()))
    }

    async fn router_ports(&self, router: &str) -> Result<Vec<neutron::Port>> {
        let ports = self.neutron.list(Kind::Port, &[("device_id", router)]).all().await;
        ports.doing(|| format!("listing the ports of router {router}"))
    }

    async fn connect(&self, router: &str, interface: Value) -> Result<()> {
        let connected = self.neutron.add_router_interface(router, &interface).await;
        connected.doing(|| format!("connecting router {router}"))
    }

    async fn rules(&self, group: &str) -> Result<Vec<neutron::SecurityGroupRule>> {
        let rules = self.neutron.list(Kind::SecurityGroupRule, &[("security_group_id", group)]).all().await;
        rules.doing(|| format!("listing the rules of security group {group}"))
    }

    async fn add_rule(&self, part: Option<&Part>, body: Map<String, Value>) -> Result<()> {
        let group = body.get("security_group_id").and_then(Value::as_str).unwrap_or_default().to_owned();
        let body = Value::Object(body);
        let make = async {
            let created = self.neutron.create(Kind::SecurityGroupRule, &body).await;
            created.doing(|| format!("adding a rule to security group {group}"))
        };
        let Some((kind, name)) = part else {
            return match make.await {
                // The same rule, said in another way.
                Err(err) if err.kind() == karbor_plugin::ErrorKind::Conflict => Ok(()),
                made => made.map(drop),
            };
        };
        let made = Made::product(kind.member(), format!("rule:{name}"))
            .with(OLD, name.as_str())
            .with(GROUP, group.clone())
            .with(RULE, body.clone());
        match made.once(self.task, || self.find_rule(&group, &body), make).await {
            Err(err) if err.kind() == karbor_plugin::ErrorKind::Conflict => made.gone(self.task).await,
            made => made.map(drop),
        }
    }

    async fn remove_rule(&self, id: &str) -> Result<()> {
        let removed = self.neutron.delete(Kind::SecurityGroupRule, id).await;
        removed.doing(|| format!("removing rule {id} of a new security group")).map(drop)
    }
}
