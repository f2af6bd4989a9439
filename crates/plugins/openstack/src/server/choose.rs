//! What stands for what a server had: by what was asked for, by what was restored before, by what is alike. Pure.

use std::collections::BTreeSet;

use karbor_openstack_client::neutron::Kind;
use karbor_openstack_client::nova::{Flavor, KeyPair, Limits, Zone};
use karbor_plugin::{IdMap, Need, ResourceKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::network::{Built, Choices, Existing, PLANNED, find_foreign, pairs, part_type};
use crate::server::record::{FlavorRecord, KeyRecord, ServerRecord};
use crate::{frame, image, kinds};

/// What a restore is asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Parameters {
    pub(crate) restore_name: Option<String>,
    pub(crate) restore_net_id: Option<String>,
    pub(crate) restore_flavor_id: Option<String>,
    pub(crate) networks: Option<Map<String, Value>>,
    pub(crate) security_groups: Option<Map<String, Value>>,
    pub(crate) public_network_id: Option<String>,
    pub(crate) key_name: Option<String>,
    pub(crate) availability_zone: Option<String>,
    pub(crate) image_id: Option<String>,
    pub(crate) restore_floating_ips: Option<bool>,
}

impl Parameters {
    /// Returns what was asked for of networks.
    pub(crate) fn choices(&self) -> Choices {
        Choices {
            reuse: true,
            networks: pairs(self.networks.as_ref()),
            security_groups: pairs(self.security_groups.as_ref()),
            external: frame::given(self.public_network_id.as_deref()).map(str::to_owned),
        }
    }
}

/// Something that stands for what was, and what is different about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Choice<T> {
    pub(crate) value: T,
    pub(crate) note: Option<String>,
}

impl<T> Choice<T> {
    fn same(value: T) -> Self {
        Self { value, note: None }
    }

    fn other(value: T, note: String) -> Self {
        Self { value, note: Some(note) }
    }
}

/// Chooses a flavor: the one that was asked for; the one of the same name; one of the same values.
///
/// # Errors
/// What stands in the way, and what to do.
pub(crate) fn flavor(
    record: &FlavorRecord,
    flavors: &[Flavor],
    wanted: Option<&str>,
) -> Result<Choice<String>, String> {
    if let Some(wanted) = wanted {
        let found = flavors.iter().find(|one| one.id == wanted);
        let found = found.or_else(|| flavors.iter().find(|one| one.name == wanted));
        let id = found.map(|flavor| flavor.id.clone());
        return id.map(Choice::same).ok_or_else(|| format!("there is no flavor {wanted}; name another"));
    }
    let values = |one: &Flavor| (one.vcpus, one.ram, one.disk, one.ephemeral, one.swap);
    let had = (record.vcpus, record.ram, record.disk, record.ephemeral, record.swap);
    let specs = |one: &&Flavor| match (&one.extra_specs, &record.extra_specs) {
        (Some(one), Some(had)) => one == had,
        _ => true,
    };
    if let Some(found) = flavors.iter().find(|one| one.name == record.name) {
        if values(found) == had {
            return Ok(Choice::same(found.id.clone()));
        }
        let note = format!("the flavor {} has other values than it had", record.name);
        return Ok(Choice::other(found.id.clone(), note));
    }
    let mut alike = flavors.iter().filter(|one| values(one) == had);
    if let Some(found) = alike.clone().find(specs).or_else(|| alike.next()) {
        let note = format!("the flavor {} is not there; {} has the same values", record.name, found.name);
        return Ok(Choice::other(found.id.clone(), note));
    }
    Err(format!(
        "there is no flavor {} and none with {} vCPUs, {} MiB of memory and {} GiB of disk; name one with \
         restore_flavor_id",
        record.name, record.vcpus, record.ram, record.disk
    ))
}

/// Chooses a zone: the one that was asked for; the one that it was in; none.
///
/// # Errors
/// What stands in the way, and what to do.
pub(crate) fn zone(
    record: Option<&str>,
    zones: &[Zone],
    wanted: Option<&str>,
) -> Result<Choice<Option<String>>, String> {
    let is_there = |name: &str| zones.iter().any(|zone| zone.name == name && zone.state.available);
    match (wanted, record) {
        (Some(wanted), _) if is_there(wanted) => Ok(Choice::same(Some(wanted.to_owned()))),
        (Some(wanted), _) => Err(format!("there is no zone {wanted} that can be used; name another")),
        (None, Some(had)) if is_there(had) => Ok(Choice::same(Some(had.to_owned()))),
        (None, Some(had)) => {
            Ok(Choice::other(None, format!("the zone {had} is not there: the cloud chooses one")))
        }
        (None, None) => Ok(Choice::same(None)),
    }
}

/// What becomes of a key pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    None,
    /// The user has one of that name.
    Use(String),
    /// It is given to the user again.
    Import(KeyPair),
}

/// Chooses a key pair: `there` is what the user has by the name that is wanted.
///
/// # Errors
/// What stands in the way, and what to do.
pub(crate) fn key(
    record: Option<&KeyRecord>,
    there: Option<&KeyPair>,
    wanted: Option<&str>,
) -> Result<Choice<Key>, String> {
    if let Some(wanted) = wanted {
        return match there {
            Some(_) => Ok(Choice::same(Key::Use(wanted.to_owned()))),
            None => Err(format!("you have no key pair {wanted}; name another")),
        };
    }
    let Some(record) = record else { return Ok(Choice::same(Key::None)) };
    let name = record.name.clone();
    match (there, &record.public_key) {
        (Some(there), Some(had)) if there.public_key.trim() != had.trim() => {
            let note = format!("the key pair {name} is another one than it was");
            Ok(Choice::other(Key::Use(name), note))
        }
        (Some(_), _) => Ok(Choice::same(Key::Use(name))),
        (None, Some(had)) => {
            let kind = record.kind.clone().unwrap_or_else(|| "ssh".to_owned());
            let pair = KeyPair { name, public_key: had.clone(), kind, ..KeyPair::default() };
            Ok(Choice::same(Key::Import(pair)))
        }
        (None, None) => {
            let note =
                format!("it has no key pair: {name} was another user's, and you have none by that name");
            Ok(Choice::other(Key::None, note))
        }
    }
}

/// What a server boots from and has attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Disks {
    /// The image, unless it boots from a volume.
    pub(crate) image: Option<String>,
    /// For each volume of the record what stands for it.
    pub(crate) volumes: Vec<String>,
    /// What stands in the way.
    pub(crate) problems: Vec<String>,
    /// The image was not restored, so that it must exist still.
    pub(crate) image_is_original: bool,
}

/// Finds what stands for image and volumes. What a server made of its image stands before the image itself.
pub(crate) fn disks(record: &ServerRecord, restored: &IdMap, wanted: Option<&str>) -> Disks {
    let new = |key: &ResourceKey| restored.get(key).map(|key| key.id.clone());
    let mut disks = Disks::default();
    if let Some(old) = &record.image_id {
        let of_server = new(&image::of_server(old, &record.id));
        let restored = of_server.or_else(|| new(&ResourceKey::new(kinds::IMAGE, old.clone())));
        disks.image_is_original = wanted.is_none() && restored.is_none();
        disks.image = Some(wanted.map(str::to_owned).or(restored).unwrap_or_else(|| old.clone()));
    }
    for volume in &record.volumes {
        match new(&ResourceKey::new(kinds::VOLUME, volume.id.clone())) {
            Some(new) => disks.volumes.push(new),
            None => {
                disks.volumes.push(PLANNED.to_owned());
                disks.problems.push(format!("its volume {} was not restored before it", volume.id));
            }
        }
    }
    disks
}

/// Finds what stands for the networks, subnets, groups and addresses of a server's ports.
///
/// What was asked for comes before what was restored. `existing` is needed only if [`is_known`] says so.
pub(crate) fn surroundings(
    record: &ServerRecord,
    restored: &IdMap,
    existing: Option<&Existing>,
    parameters: &Parameters,
) -> (Built, Vec<String>) {
    let (mut built, mut problems) = (Built::default(), Vec::new());
    for (kind, id) in parts(record) {
        if let Some(new) = restored.get(&ResourceKey::new(part_type(kind), id.clone())) {
            built.map.insert((kind, id), new.id.clone());
        }
    }
    let Some(existing) = existing else { return (built, problems) };
    let choices = parameters.choices();
    let one_network = frame::given(parameters.restore_net_id.as_deref());
    for network in &record.networks {
        let part = (Kind::Network, network.id.clone());
        let chosen = one_network.filter(|_| !network.external).or_else(|| {
            let by_id = choices.networks.get(&network.id);
            by_id.or_else(|| choices.networks.get(&network.name)).map(String::as_str)
        });
        let chosen = chosen.or(choices.external.as_deref().filter(|_| network.external));
        if chosen.is_none() && built.map.contains_key(&part) {
            continue;
        }
        let mut asked = choices.clone();
        if let Some(chosen) = chosen {
            asked.networks.insert(network.id.clone(), chosen.to_owned());
        }
        match find_foreign(network, existing, &asked) {
            Ok(found) => {
                built.map.insert(part, found.id.clone());
                for subnet in &network.subnets {
                    let own = existing.subnets.iter().filter(|one| one.network_id == found.id);
                    let same = own.clone().find(|one| one.id == subnet.id);
                    let there = same.or_else(|| own.clone().find(|one| one.cidr == subnet.cidr));
                    let part = (Kind::Subnet, subnet.id.clone());
                    match there {
                        Some(there) => built.map.insert(part, there.id.clone()),
                        None => built.map.remove(&part),
                    };
                }
            }
            Err(reason) => problems.push(reason),
        }
    }
    let groups: BTreeSet<&String> = record.ports.iter().flat_map(|port| &port.port.security_groups).collect();
    for group in groups {
        let part = (Kind::SecurityGroup, group.clone());
        let chosen = choices.security_groups.get(group);
        if chosen.is_none() && built.map.contains_key(&part) {
            continue;
        }
        let wanted = chosen.unwrap_or(group);
        let found = existing.security_groups.iter().find(|one| one.id == *wanted || one.name == *wanted);
        match found {
            Some(found) => {
                built.map.insert(part, found.id.clone());
            }
            None => problems.push(format!(
                "nothing stands for its security group {group}; say what with the parameter security_groups"
            )),
        }
    }
    (built, problems)
}

/// Returns whether everything that a server's ports refer to was restored before it, and nothing else was asked for.
pub(crate) fn is_known(record: &ServerRecord, restored: &IdMap, parameters: &Parameters) -> bool {
    let asked = [&parameters.restore_net_id, &parameters.public_network_id];
    let maps = [&parameters.networks, &parameters.security_groups];
    let nothing_asked = asked.iter().all(|text| frame::given(text.as_deref()).is_none())
        && maps.iter().all(|map| map.as_ref().is_none_or(Map::is_empty));
    let needed =
        parts(record).into_iter().filter(|(kind, _)| *kind != Kind::FloatingIp && *kind != Kind::Subnet);
    nothing_asked
        && needed.into_iter().all(|(kind, id)| restored.contains_key(&ResourceKey::new(part_type(kind), id)))
}

/// Returns all that a server's ports refer to.
fn parts(record: &ServerRecord) -> BTreeSet<(Kind, String)> {
    let mut parts = BTreeSet::new();
    for network in &record.networks {
        parts.insert((Kind::Network, network.id.clone()));
        parts.extend(network.subnets.iter().map(|subnet| (Kind::Subnet, subnet.id.clone())));
    }
    for port in &record.ports {
        parts.extend(port.port.security_groups.iter().map(|id| (Kind::SecurityGroup, id.clone())));
        parts.extend(port.floating_ips.iter().map(|address| (Kind::FloatingIp, address.id.clone())));
    }
    parts
}

/// Returns what one more server takes of the quota.
pub(crate) fn needs(flavor: &Flavor, limits: &Limits) -> Vec<Need> {
    vec![
        Need::of_limit("servers", 1, limits.max_total_instances, limits.total_instances_used),
        Need::of_limit("vCPUs", flavor.vcpus.into(), limits.max_total_cores, limits.total_cores_used),
        Need::of_limit("MiB of memory", flavor.ram.into(), limits.max_total_ram, limits.total_ram_used),
    ]
}

#[cfg(test)]
mod tests;
