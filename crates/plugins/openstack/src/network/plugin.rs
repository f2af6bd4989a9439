//! The protection plugin of topologies.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use karbor_openstack_client::neutron::Kind;
use karbor_plugin::{
    Description, Error, ErrorKind, Hook, LedgerEntry, Mapped, Need, OperationKind, Outcome, PlannedAction,
    PlannedEffect, Protection, ResourceKey, ResourceType, Restored, Result, Schemas, Task,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::error::Doing;
use crate::network::build::build;
use crate::network::live::Live;
use crate::network::plan::{Choices, Existing, Part, Plan, Step, Target};
use crate::network::topology::Topology;
use crate::network::{TITLE, plan, site};
use crate::poll::Patience;
use crate::{Shared, frame, kinds};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-network-protection-plugin";
/// The name of its record.
const RECORD: &str = "topology";
/// What a dry run says of the id of something that would be made.
pub(crate) const PLANNED: &str = "to be made";

/// Protects topologies.
#[derive(Debug)]
struct NetworkProtection {
    shared: Arc<Shared>,
}

/// Makes the plugin. It never waits, so its settings say nothing; they are those that every plugin has.
pub(crate) fn make(shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    frame::settings::<Patience>(NAME, settings)?;
    Ok(Arc::new(NetworkProtection { shared: Arc::clone(shared) }))
}

/// What a restore is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    existing: How,
    networks: Option<Map<String, Value>>,
    security_groups: Option<Map<String, Value>>,
    public_network_id: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    #[default]
    Reuse,
    Create,
}

/// Returns the type by which a part is announced.
pub(crate) fn part_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Network => "OS::Neutron::Net",
        Kind::Subnet => "OS::Neutron::Subnet",
        Kind::Router => "OS::Neutron::Router",
        Kind::Port => "OS::Neutron::Port",
        Kind::SecurityGroup => "OS::Neutron::SecurityGroup",
        Kind::SecurityGroupRule => "OS::Neutron::SecurityGroupRule",
        Kind::FloatingIp => "OS::Neutron::FloatingIP",
        Kind::SubnetPool => "OS::Neutron::SubnetPool",
    }
}

fn mapped(part: &Part, to: &str) -> Mapped {
    let kind = part_type(part.0);
    Mapped { from: ResourceKey::new(kind, part.1.clone()), to: ResourceKey::new(kind, to) }
}

/// Returns how people know a part.
fn shown(part: &Part, names: &BTreeMap<&str, &str>) -> String {
    let kind = part.0.member().replace('_', " ");
    match names.get(part.1.as_str()).filter(|name| !name.is_empty()) {
        Some(name) => format!("{kind} {name} ({})", part.1),
        None => format!("{kind} {}", part.1),
    }
}

impl NetworkProtection {
    async fn protect(&self, task: &Task) -> Result<Outcome> {
        let session = self.shared.sessions.of(&task.context).await?;
        let (topology, left_out) = site::listing(&session).await?.topology();
        task.check_cancelled()?;
        task.writer()?.put_record(RECORD, json!(topology))?;
        let findings = left_out.into_iter().map(|text| frame::warning(TITLE, text)).collect();
        Ok(Outcome { findings, ..Outcome::default() })
    }

    async fn restore(&self, task: &Task) -> Result<Outcome> {
        let topology: Topology = frame::record(task, RECORD)?;
        let parameters: Parameters = frame::parameters(task)?;
        let session = self.shared.sessions.of(&task.context).await?;
        let live = Live::new(&session, task).await?;
        let mut existing = site::existing(&session).await?;
        live.tell(&mut existing);
        let choices = Choices {
            reuse: parameters.existing == How::Reuse,
            networks: plan::pairs(parameters.networks.as_ref()),
            security_groups: plan::pairs(parameters.security_groups.as_ref()),
            external: frame::given(parameters.public_network_id.as_deref()).map(str::to_owned),
        };
        let plan = Plan::new(&topology, &existing, &choices);
        let names = names(&topology);
        if task.dry_run {
            let quotas = live.neutron.quota(&existing.project).await;
            let quotas = quotas.doing(|| "looking at the quota of the project".to_owned())?;
            let needs = plan.wanted().into_iter().map(|(kind, amount)| {
                let free = quotas.of(kind).and_then(|quota| quota.free());
                Need { of: kind.collection().replace('_', " "), amount, free }
            });
            let mut actions = actions(&plan, &names, &existing);
            if let Some(first) = actions.first_mut() {
                first.needs = needs.collect();
            }
            return Ok(Outcome { plan: actions, mapped: expected(&plan), ..Outcome::default() });
        }
        let blocking: Vec<String> = plan
            .notes
            .iter()
            .filter(|note| note.blocks)
            .map(|note| format!("{}: {}", shown(&note.part, &names), note.message))
            .collect();
        if !blocking.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, blocking.join("; ")));
        }
        let built = build(&plan, &live).await?;
        let before = plan.notes.iter().map(|note| (&note.part, note.message.as_str()));
        let after = built.notes.iter().map(|(part, text)| (part, text.as_str()));
        let told = before.chain(after).map(|(part, text)| frame::warning(shown(part, &names), text));
        Ok(Outcome {
            restored: Some(Restored {
                key: ResourceKey::new(kinds::NETWORK, existing.project.clone()),
                name: TITLE.to_owned(),
            }),
            mapped: built.map.iter().map(|(part, id)| mapped(part, id)).collect(),
            findings: told.collect(),
            ..Outcome::default()
        })
    }

    fn verify(task: &Task) -> Result<Outcome> {
        let topology: Topology = frame::record(task, RECORD)?;
        let findings = topology.gaps().into_iter().map(|gap| frame::wrong(TITLE, gap)).collect();
        Ok(Outcome { findings, ..Outcome::default() })
    }
}

/// Returns what a dry run lets others know of the parts.
fn expected(plan: &Plan) -> Vec<Mapped> {
    let known = plan.targets.iter().filter_map(|(part, target)| match target {
        Target::Existing(id) => Some(mapped(part, id)),
        Target::New => Some(mapped(part, PLANNED)),
        Target::Missing => None,
    });
    known.collect()
}

fn names(topology: &Topology) -> BTreeMap<&str, &str> {
    let Topology { networks, subnets, routers, ports, security_groups, floating_ips, foreign, .. } = topology;
    let networks = networks.iter().map(|one| (one.id.as_str(), one.name.as_str()));
    networks
        .chain(subnets.iter().map(|one| (one.id.as_str(), one.name.as_str())))
        .chain(routers.iter().map(|one| (one.id.as_str(), one.name.as_str())))
        .chain(ports.iter().map(|one| (one.id.as_str(), one.name.as_str())))
        .chain(security_groups.iter().map(|one| (one.id.as_str(), one.name.as_str())))
        .chain(floating_ips.iter().map(|one| (one.id.as_str(), one.address.as_str())))
        .chain(foreign.iter().map(|one| (one.id.as_str(), one.name.as_str())))
        .collect()
}

/// Returns what would be done with each part.
fn actions(plan: &Plan, names: &BTreeMap<&str, &str>, existing: &Existing) -> Vec<PlannedAction> {
    let mut actions = Vec::new();
    for (part, target) in &plan.targets {
        let (kind, old) = (part_type(part.0), &part.1);
        let (effect, details) = match target {
            Target::New => (PlannedEffect::Create, json!({"type": kind, "id": old})),
            Target::Existing(id) => (PlannedEffect::Reuse, json!({"type": kind, "id": old, "mapped_to": id})),
            Target::Missing => continue,
        };
        actions.push(frame::planned(effect, shown(part, names), details, None));
    }
    for step in &plan.steps {
        match step {
            Step::Interface { router, interface, .. } => {
                let subject = shown(&(Kind::Router, router.clone()), names);
                let details = json!({"interface": interface});
                actions.push(frame::planned(PlannedEffect::Create, subject, details, None));
            }
            Step::Rules { group, .. } => {
                let subject = shown(&(Kind::SecurityGroup, group.id.clone()), names);
                let details = json!({"rules": group.rules.len()});
                actions.push(frame::planned(PlannedEffect::Create, subject, details, None));
            }
            Step::Address(address) => {
                let own = existing.floating_ips.iter().any(|one| one.floating_ip_address == address.address);
                let details = json!({"address": address.address, "is_taken_by_project": own});
                let subject = shown(&(Kind::FloatingIp, address.id.clone()), names);
                actions.push(frame::planned(PlannedEffect::Create, subject, details, None));
            }
            _ => {}
        }
    }
    for note in &plan.notes {
        let (subject, text) = (shown(&note.part, names), note.message.clone());
        let (details, problem) = match note.blocks {
            true => (Value::Null, Some(text)),
            false => (json!({"note": text}), None),
        };
        actions.push(frame::planned(PlannedEffect::Reuse, subject, details, problem));
    }
    actions
}

fn schemas() -> Schemas {
    let map = |title: &str, what: &str| {
        let description =
            format!("{what}, by id or name in the checkpoint, that others stand for: their ids or names.");
        json!({
            "type": ["object", "null"], "default": null, "title": title, "description": description,
            "additionalProperties": {"type": "string"},
        })
    };
    let restore = json!({
        "restore_name": frame::text("Restore Name", "Taken from old clients; a topology has no name."),
        "existing": {
            "type": "string", "enum": ["reuse", "create"], "default": "reuse", "title": "What Exists",
            "description": "Whether what still exists is used, or everything is made new beside it.",
        },
        "networks": map("Networks", "Networks"),
        "security_groups": map("Security Groups", "Security groups"),
        "public_network_id": frame::text(
            "Public Network ID",
            "The external network (id or name) that stands for every external one.",
        ),
    });
    Schemas {
        options: frame::schema("Network Protection Options", json!({})),
        restore: frame::schema("Network Protection Restore", restore),
        verify: frame::schema("Network Protection Verify", json!({})),
        saved_info: frame::saved_info("Network Protection Saved Info", RECORD, json!({})),
    }
}

#[async_trait]
impl Protection for NetworkProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let main: &[Hook] = &[Hook::Main];
        let hooks = [
            (Op::Protect, main),
            (Op::Restore, main),
            (Op::Verify, main),
            (Op::Copy, &[][..]),
            (Op::Delete, &[][..]),
        ];
        frame::describe(NAME, ResourceType::from(kinds::NETWORK), schemas(), &hooks)
    }

    async fn run(&self, hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        frame::require_kind(task, kinds::NETWORK)?;
        match (task.operation, hook) {
            (OperationKind::Protect, Hook::Main) => self.protect(task).await,
            (OperationKind::Restore, Hook::Main) => self.restore(task).await,
            (OperationKind::Verify, Hook::Main) => Self::verify(task),
            _ => Ok(Outcome::default()),
        }
    }

    async fn clean_up(&self, task: &Task, entry: &LedgerEntry) -> Result<()> {
        let session = self.shared.sessions.of(&task.context).await?;
        if Live::new(&session, task).await?.clean_up(entry).await? {
            return Ok(());
        }
        let text = format!("this plugin does not know how to remove {} {}", entry.kind, entry.reference);
        Err(Error::new(ErrorKind::Unsupported, text))
    }
}
