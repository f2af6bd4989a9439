//! Restoring a server: ports first, then the server with all its volumes, then what is given to it from outside.
//!
//! Each thing is made once, whatever happens between: ports and the server carry the ledger's tag until they are
//! whole. The volumes are named when the server is made, so that it never runs without one of them.

use std::collections::BTreeSet;

use karbor_openstack_client::neutron::{self, Kind};
use karbor_openstack_client::nova::{Flavor, Nova};
use karbor_openstack_client::{ServiceType, Session};
use karbor_plugin::{
    Error, ErrorKind, Finding, Outcome, PlannedAction, PlannedEffect, ResourceKey, Restored, Result, Task,
};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use crate::error::Doing;
use crate::made::{Made, TAG_KEY};
use crate::network::{self, Builder, Built, FloatingIp, Live, Port};
use crate::poll::{Patience, Reached, reached};
use crate::server::choose::{self, Disks, Key, Parameters};
use crate::server::record::{GroupRecord, ServerRecord};
use crate::{frame, kinds};

/// How the ledger knows a server, a key pair and a group.
pub(crate) const SERVER: &str = "server";
pub(crate) const KEY_PAIR: &str = "key_pair";
pub(crate) const SERVER_GROUP: &str = "server_group";

/// One restore of one server.
pub(crate) struct Restoring<'a> {
    pub(crate) task: &'a Task,
    pub(crate) session: &'a Session,
    pub(crate) nova: Nova,
    pub(crate) patience: Patience,
    /// Held while something is made that several servers share.
    pub(crate) sharing: &'a Mutex<()>,
    pub(crate) record: ServerRecord,
    pub(crate) parameters: Parameters,
}

/// What was chosen for it.
struct Chosen {
    flavor: String,
    values: Option<Flavor>,
    zone: Option<String>,
    key: Key,
    disks: Disks,
    built: Built,
    notes: Vec<String>,
    problems: Vec<String>,
}

impl Restoring<'_> {
    /// Restores the server, or tells what that would do.
    pub(crate) async fn run(mut self) -> Result<Outcome> {
        let mut chosen = self.choose().await?;
        if self.task.dry_run {
            return self.rehearse(chosen).await;
        }
        if !chosen.problems.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, chosen.problems.join("; ")));
        }
        let live = Live::new(self.session, self.task).await?;
        self.forget_broken().await?;
        let ports = self.ports(&mut chosen, &live).await?;
        let id = self.server(&chosen, &ports).await?;
        // An earlier attempt may have stopped it already.
        self.wait_for(&id, &["ACTIVE", "SHUTOFF"], &["BUILD"]).await?;
        if self.parameters.restore_floating_ips != Some(false) {
            self.floating(&mut chosen, &live).await?;
        }
        if !self.record.was_running() {
            self.stop(&id).await?;
        }
        let removed = self.nova.delete_metadata(&id, TAG_KEY).await;
        removed.doing(|| format!("removing our mark from server {id}"))?;
        let findings = self.findings(&id, &chosen).await?;
        let name = self.name().to_owned();
        let restored = Restored { key: ResourceKey::new(kinds::SERVER, id), name };
        Ok(Outcome { restored: Some(restored), findings, ..Outcome::default() })
    }

    fn name(&self) -> &str {
        frame::given(self.parameters.restore_name.as_deref()).unwrap_or(&self.record.name)
    }

    async fn choose(&mut self) -> Result<Chosen> {
        let doing = || "looking at what servers can be made of".to_owned();
        let (flavors, zones) = tokio::try_join!(self.nova.flavors(), self.nova.zones()).doing(doing)?;
        let (mut notes, mut problems) = (Vec::new(), Vec::new());
        let parameters = &self.parameters;
        let wanted = frame::given(parameters.restore_flavor_id.as_deref());
        let flavor = taken(choose::flavor(&self.record.flavor, &flavors, wanted), &mut notes, &mut problems);
        let flavor = flavor.unwrap_or_default();
        let wanted = frame::given(parameters.availability_zone.as_deref());
        let zone = choose::zone(self.record.availability_zone.as_deref(), &zones, wanted);
        let zone = taken(zone, &mut notes, &mut problems).flatten();

        let wanted = frame::given(parameters.key_name.as_deref());
        let name = wanted.or(self.record.key_pair.as_ref().map(|pair| pair.name.as_str()));
        let there = match name {
            Some(name) => match self.nova.key_pair(name).await {
                Ok(pair) => Some(pair),
                Err(err) if err.is_not_found() => None,
                Err(err) => return Err(err).doing(|| format!("looking at the key pair {name}")),
            },
            None => None,
        };
        let key = choose::key(self.record.key_pair.as_ref(), there.as_ref(), wanted);
        let key = taken(key, &mut notes, &mut problems).unwrap_or(Key::None);

        let wanted = frame::given(parameters.image_id.as_deref());
        let disks = choose::disks(&self.record, &self.task.restored, wanted);
        problems.extend(disks.problems.iter().cloned());
        if let Some(image) = disks.image.as_ref().filter(|_| disks.image_is_original || wanted.is_some())
            && !self.has_image(image).await?
        {
            problems.push(format!("the image {image} is not there; name another with image_id"));
        }

        let known = choose::is_known(&self.record, &self.task.restored, parameters);
        let existing = match known {
            true => None,
            false => Some(network::existing(self.session).await?),
        };
        let (built, missing) =
            choose::surroundings(&self.record, &self.task.restored, existing.as_ref(), parameters);
        problems.extend(missing);
        let values = flavors.into_iter().find(|one| one.id == flavor);
        Ok(Chosen { flavor, values, zone, key, disks, built, notes, problems })
    }

    async fn has_image(&self, id: &str) -> Result<bool> {
        let doing = || format!("looking at image {id}");
        let glance = self.session.service(ServiceType::Image).doing(doing)?;
        let path = karbor_openstack_client::Service::path(&["images", id]);
        match glance.get::<karbor_openstack_client::Ignored>(path).await {
            Err(err) if err.is_not_found() => Ok(false),
            shown => shown.doing(doing).map(|_| true),
        }
    }

    /// Removes a server of an earlier attempt that came to nothing, so that it is made again.
    async fn forget_broken(&self) -> Result<()> {
        let made = Made::product(SERVER, SERVER);
        let tag = made.tag(self.task);
        for entry in self.task.ledger.entries().await? {
            if !entry.is_open() || entry.kind != SERVER {
                continue;
            }
            let Some(id) = crate::made::id_of(&entry, || self.find(&tag)).await? else { continue };
            let gone = match self.nova.server(&id).await {
                Ok(server) if server.status == "ERROR" => self.remove(&id).await.map(|()| true)?,
                Ok(_) => false,
                Err(err) if err.is_not_found() => true,
                Err(err) => return Err(err).doing(|| format!("looking at server {id}")),
            };
            if gone {
                made.gone(self.task).await?;
            }
        }
        Ok(())
    }

    /// Removes a server and waits until it has gone.
    pub(crate) async fn remove(&self, id: &str) -> Result<()> {
        remove(&self.nova, self.patience, self.task, id).await
    }

    /// Finds what an earlier attempt made.
    async fn find(&self, tag: &str) -> Result<Option<String>> {
        find(&self.nova, tag).await
    }

    /// Returns the ids of the server's ports. One that outlived its server is taken again.
    async fn ports(&self, chosen: &mut Chosen, live: &Live<'_>) -> Result<Vec<String>> {
        let query: Vec<(&str, &str)> =
            self.record.ports.iter().map(|port| ("id", port.port.id.as_str())).collect();
        let there: Vec<neutron::Port> = match query.is_empty() {
            true => Vec::new(),
            false => {
                let listed = live.neutron.list(Kind::Port, &query).all().await;
                listed.doing(|| "looking for the ports of the server".to_owned())?
            }
        };
        let mut entries = self.task.ledger.entries().await?.into_iter();
        let server =
            entries.find(|entry| entry.kind == SERVER && entry.is_open()).map(|entry| entry.reference);
        let mut ids = Vec::new();
        for port in &self.record.ports {
            let port = &port.port;
            let part = (Kind::Port, port.id.clone());
            let network = chosen.built.map.get(&(Kind::Network, port.network_id.clone())).cloned();
            let free = there.iter().any(|one| {
                let is_ours = one.device_id.is_empty() || Some(&one.device_id) == server.as_ref();
                one.id == port.id && is_ours && Some(&one.network_id) == network.as_ref()
            });
            let id = match free {
                true => port.id.clone(),
                false => chosen.built.port(&part, port, Map::new(), live).await?,
            };
            chosen.built.map.insert(part, id.clone());
            ids.push(id);
        }
        Ok(ids)
    }

    async fn server(&self, chosen: &Chosen, ports: &[String]) -> Result<String> {
        let key = self.key(&chosen.key).await?;
        let mut hints = Map::new();
        if let Some(group) = &self.record.group {
            hints.insert("group".to_owned(), json!(self.group(group).await?));
        }
        let made = Made::product(SERVER, SERVER);
        let tag = made.tag(self.task);
        let body = self.body(chosen, ports, key.as_deref(), &tag);
        let make = async {
            let created = self.nova.create_server(&body, &hints).await;
            created.doing(|| format!("making the server {}", self.name()))
        };
        made.once(self.task, || self.find(&tag), make).await
    }

    fn body(&self, chosen: &Chosen, ports: &[String], key: Option<&str>, tag: &str) -> Value {
        let record = &self.record;
        let mut disks = Vec::new();
        if let Some(image) = &chosen.disks.image {
            disks.push(json!({
                "uuid": image, "source_type": "image", "destination_type": "local", "boot_index": 0,
                "delete_on_termination": true,
            }));
        }
        for (volume, new) in record.volumes.iter().zip(&chosen.disks.volumes) {
            let mut disk = json!({
                "uuid": new, "source_type": "volume", "destination_type": "volume",
                "boot_index": if volume.is_root { Some(0) } else { None },
                "delete_on_termination": volume.delete_on_termination,
            });
            if let Some(device) = &volume.device {
                disk["device_name"] = json!(device);
            }
            if let Some(tag) = &volume.tag {
                disk["tag"] = json!(tag);
            }
            disks.push(disk);
        }
        let mut metadata = record.metadata.clone();
        metadata.insert(TAG_KEY.to_owned(), json!(tag));
        let networks = match ports {
            [] => json!("none"),
            ports => ports.iter().map(|port| json!({"port": port})).collect(),
        };
        let mut body = json!({
            "name": self.name(), "flavorRef": chosen.flavor, "networks": networks, "metadata": metadata,
            "block_device_mapping_v2": disks, "config_drive": record.config_drive,
        });
        if let Some(image) = &chosen.disks.image {
            body["imageRef"] = json!(image);
        }
        if !record.tags.is_empty() {
            body["tags"] = json!(record.tags);
        }
        let texts = [
            ("description", record.description.as_deref()),
            ("availability_zone", chosen.zone.as_deref()),
            ("user_data", record.user_data.as_deref()),
            ("key_name", key),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                body[name] = json!(text);
            }
        }
        body
    }

    /// Returns the name of the key pair, which is given to the user again if it is not there.
    async fn key(&self, key: &Key) -> Result<Option<String>> {
        let pair = match key {
            Key::None => return Ok(None),
            Key::Use(name) => return Ok(Some(name.clone())),
            Key::Import(pair) => pair,
        };
        let _one_at_a_time = self.sharing.lock().await;
        let doing = || format!("giving you the key pair {} again", pair.name);
        let find = || async {
            match self.nova.key_pair(&pair.name).await {
                Ok(pair) => Ok(Some(pair.name)),
                Err(err) if err.is_not_found() => Ok(None),
                Err(err) => Err(err).doing(doing),
            }
        };
        // Another server may have needed it too, and be first.
        if let Some(name) = find().await? {
            return Ok(Some(name));
        }
        let make = async {
            self.nova.import_key_pair(pair).await.doing(doing)?;
            Ok(pair.name.clone())
        };
        let name = pair.name.as_str();
        let made = Made::product(KEY_PAIR, format!("{KEY_PAIR}:{name}")).with("name", name);
        made.once(self.task, find, make).await.map(Some)
    }

    /// Returns the server's group: the same, one like it, or a new one.
    async fn group(&self, record: &GroupRecord) -> Result<String> {
        let _one_at_a_time = self.sharing.lock().await;
        let doing = || format!("looking for the server group {}", record.name);
        let groups = self.nova.server_groups().await.doing(doing)?;
        let alike = |one: &&karbor_openstack_client::nova::ServerGroup| {
            one.name == record.name && one.policy == record.policy
        };
        let found = groups.iter().find(|one| one.id == record.id).or_else(|| groups.iter().find(alike));
        if let Some(found) = found {
            return Ok(found.id.clone());
        }
        let make = async {
            let made = self.nova.create_server_group(&record.name, &record.policy, &record.rules).await;
            made.doing(|| format!("making the server group {}", record.name))
        };
        let made = Made::product(SERVER_GROUP, format!("{SERVER_GROUP}:{}", record.id));
        let made = made.with("name", record.name.as_str()).with("policy", record.policy.as_str());
        made.once(self.task, || async { Ok(None) }, make).await
    }

    async fn wait_for(&self, id: &str, wanted: &[&str], on_the_way: &[&str]) -> Result<()> {
        let what = format!("server {id} to become {}", wanted.join(" or "));
        let ask = || async {
            let server = self.nova.server(id).await.doing(|| format!("looking at server {id}"))?;
            match reached(&server.status, wanted, on_the_way) {
                Reached::Yes => Ok(Some(())),
                Reached::NotYet => Ok(None),
                Reached::Never => {
                    let why = server.fault.map(|fault| fault.message).unwrap_or_default();
                    let text = format!("server {id} became {} {why}", server.status);
                    Err(Error::new(ErrorKind::Other, text.trim_end()))
                }
            }
        };
        self.patience.wait(self.task, &what, ask).await
    }

    async fn stop(&self, id: &str) -> Result<()> {
        let doing = || format!("stopping server {id}, as it was");
        if self.nova.server(id).await.doing(doing)?.status == "ACTIVE" {
            self.nova.act(id, &json!({"os-stop": null})).await.doing(doing)?;
        }
        self.wait_for(id, &["SHUTOFF"], &["ACTIVE"]).await
    }

    /// Gives the floating addresses back: the restored one, the same one if it is free, or another.
    async fn floating(&self, chosen: &mut Chosen, live: &Live<'_>) -> Result<()> {
        let all: Vec<FloatingIp> =
            self.record.ports.iter().flat_map(|port| port.floating_ips.iter().cloned()).collect();
        for address in all {
            let part = (Kind::FloatingIp, address.id.clone());
            let port = address.port_id.as_ref().map(|id| (Kind::Port, id.clone()));
            let Some(port) = port.and_then(|port| chosen.built.map.get(&port).cloned()) else { continue };
            let known = chosen.built.map.get(&part).map_or(address.id.as_str(), String::as_str).to_owned();
            let own = |query: Vec<(&'static str, String)>| async move {
                let query: Vec<(&str, &str)> =
                    query.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let listed = live.neutron.list::<neutron::FloatingIp>(Kind::FloatingIp, &query).all().await;
                listed.doing(|| "looking at the floating addresses".to_owned())
            };
            let mut there = own(vec![("id", known)]).await?;
            if there.is_empty() {
                there = own(vec![("floating_ip_address", address.address.clone())]).await?;
            }
            let usable = there.iter().find(|one| one.port_id.as_ref().is_none_or(|id| *id == port));
            let given = match usable {
                Some(one) if one.port_id.is_some() => Ok(()),
                Some(one) => {
                    let body =
                        json!({"port_id": port, "fixed_ip_address": fixed(live, &port, &address).await?});
                    live.update(Kind::FloatingIp, &one.id, body).await
                }
                None => {
                    let mut other = address.clone();
                    other.fixed_ip_address = fixed(live, &port, &address).await?;
                    chosen.built.address(&other, live).await
                }
            };
            match given {
                Ok(()) => {}
                Err(err) if matches!(err.kind(), ErrorKind::Unavailable | ErrorKind::Fenced) => {
                    return Err(err);
                }
                Err(err) => {
                    let text = format!("it is not reached at {}: {}", address.address, err.message());
                    chosen.notes.push(text);
                }
            }
        }
        Ok(())
    }

    /// Returns what is different from what it was.
    async fn findings(&self, id: &str, chosen: &Chosen) -> Result<Vec<Finding>> {
        let now = self.nova.volume_attachments(id).await;
        let now = now.doing(|| format!("looking at the volumes of server {id}"))?;
        let mut notes = chosen.notes.clone();
        for (volume, new) in self.record.volumes.iter().zip(&chosen.disks.volumes) {
            let device = now.iter().find(|one| one.volume_id == *new).map(|one| &one.device);
            match (device, &volume.device) {
                (None, _) => notes.push(format!("volume {new} is not attached to it any more")),
                (Some(Some(now)), Some(had)) if now != had => {
                    notes.push(format!("volume {new} is attached as {now}, and was as {had}"));
                }
                _ => {}
            }
        }
        let of_parts = chosen.built.notes.iter().map(|((kind, old), text)| {
            frame::warning(format!("{} {old}", kind.member().replace('_', " ")), text.clone())
        });
        let name = &self.record.name;
        Ok(notes.into_iter().map(|text| frame::warning(name.clone(), text)).chain(of_parts).collect())
    }

    async fn rehearse(&self, chosen: Chosen) -> Result<Outcome> {
        let mut needs = Vec::new();
        if let Some(flavor) = &chosen.values {
            let limits = self.nova.limits().await;
            needs =
                choose::needs(flavor, &limits.doing(|| "looking at the quota of the project".to_owned())?);
        }
        let flavor = chosen.values.as_ref().map(|flavor| flavor.name.as_str());
        let key = match &chosen.key {
            Key::None => None,
            Key::Use(name) => Some(name.as_str()),
            Key::Import(pair) => Some(pair.name.as_str()),
        };
        let volumes = self.record.volumes.iter().zip(&chosen.disks.volumes).map(|(volume, new)| {
            json!({"id": volume.id, "mapped_to": new, "device": volume.device, "is_root": volume.is_root})
        });
        let details = json!({
            "flavor": {"name": self.record.flavor.name, "mapped_to": flavor},
            "image": {"id": self.record.image_id, "mapped_to": chosen.disks.image},
            "volumes": volumes.collect::<Vec<_>>(), "key_name": key, "availability_zone": chosen.zone,
            "ends": if self.record.was_running() { "running" } else { "stopped" },
            "notes": chosen.notes,
        });
        let action = frame::planned(PlannedEffect::Create, self.name(), details, None);
        let mut plan = vec![PlannedAction { needs, ..action }];
        if let Key::Import(pair) = &chosen.key {
            let subject = format!("key pair {}", pair.name);
            plan.push(frame::planned(PlannedEffect::Create, subject, Value::Null, None));
        }
        plan.extend(self.planned_ports(&chosen).await?);
        for problem in chosen.problems.clone() {
            plan.push(frame::planned(PlannedEffect::Create, self.name(), Value::Null, Some(problem)));
        }
        Ok(Outcome { plan, ..Outcome::default() })
    }

    /// Returns what would be done with each port; an address that is taken is replaced, which is no problem.
    async fn planned_ports(&self, chosen: &Chosen) -> Result<Vec<PlannedAction>> {
        let mut plan = Vec::new();
        for record in &self.record.ports {
            let port = &record.port;
            let network = chosen.built.map.get(&(Kind::Network, port.network_id.clone()));
            let taken = match network {
                Some(network) if network != network::PLANNED => self.taken(network, port).await?,
                _ => BTreeSet::new(),
            };
            let addresses = port.fixed_ips.iter().map(|address| &address.ip_address).collect::<Vec<_>>();
            let floating = record.floating_ips.iter().map(|address| &address.address).collect::<Vec<_>>();
            let details = json!({
                "network": {"id": port.network_id, "mapped_to": network}, "mac_address": port.mac_address,
                "addresses": addresses, "taken": taken, "floating_addresses": floating,
            });
            plan.push(frame::planned(PlannedEffect::Create, format!("port {}", port.id), details, None));
        }
        Ok(plan)
    }

    /// Returns which of a port's addresses others have.
    async fn taken(&self, network: &str, port: &Port) -> Result<BTreeSet<String>> {
        let live = Live::new(self.session, self.task).await?;
        let listed = live.neutron.list::<neutron::Port>(Kind::Port, &[("network_id", network)]).all().await;
        let listed = listed.doing(|| format!("looking at the ports of network {network}"))?;
        let used = listed.iter().filter(|one| one.id != port.id || !one.device_id.is_empty());
        let all = used.flat_map(|one| {
            let addresses = one.fixed_ips.iter().map(|address| address.ip_address.clone());
            addresses.chain([one.mac_address.clone()])
        });
        let mine = port.fixed_ips.iter().map(|address| &address.ip_address).chain([&port.mac_address]);
        let mine: BTreeSet<&String> = mine.collect();
        Ok(all.filter(|address| mine.contains(address)).collect())
    }
}

/// Returns the port's address that a floating one leads to: the recorded one, if the port has it.
async fn fixed(live: &Live<'_>, port: &str, address: &FloatingIp) -> Result<Option<String>> {
    let shown = live.neutron.show::<neutron::Port>(Kind::Port, port).await;
    let shown = shown.doing(|| format!("looking at port {port}"))?;
    let wanted = address.fixed_ip_address.as_ref();
    let has = shown.fixed_ips.iter().any(|one| Some(&one.ip_address) == wanted);
    Ok(wanted.filter(|_| has).cloned())
}

/// Takes a choice, or notes what stands in the way of one.
fn taken<T>(
    choice: std::result::Result<choose::Choice<T>, String>,
    notes: &mut Vec<String>,
    problems: &mut Vec<String>,
) -> Option<T> {
    match choice {
        Ok(choice) => {
            notes.extend(choice.note);
            Some(choice.value)
        }
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

/// Finds the server that carries a tag.
pub(crate) async fn find(nova: &Nova, tag: &str) -> Result<Option<String>> {
    let servers = nova.servers(&[]).all().await.doing(|| "looking for a new server".to_owned())?;
    let has = |server: &&karbor_openstack_client::nova::Server| {
        server.metadata.get(TAG_KEY).and_then(Value::as_str) == Some(tag)
    };
    Ok(servers.iter().find(has).map(|server| server.id.clone()))
}

/// Removes a server and waits until it has gone.
pub(crate) async fn remove(nova: &Nova, patience: Patience, task: &Task, id: &str) -> Result<()> {
    let doing = || format!("removing server {id}");
    if !nova.delete_server(id).await.doing(doing)? {
        return Ok(());
    }
    let ask = || async {
        match nova.server(id).await {
            Err(err) if err.is_not_found() => Ok(Some(())),
            Ok(server) if server.status == "ERROR" && server.task_state.is_none() => {
                let text = format!("server {id} could not be removed; it is in error");
                Err(Error::new(ErrorKind::Other, text))
            }
            Ok(_) => Ok(None),
            Err(err) => Err(err).doing(doing),
        }
    };
    patience.wait(task, &format!("server {id} to go"), ask).await
}
