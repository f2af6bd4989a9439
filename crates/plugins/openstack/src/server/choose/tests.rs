use karbor_openstack_client::neutron;
use karbor_openstack_client::nova::ZoneState;
use serde_json::json;

use super::*;
use crate::network::{Foreign, ForeignSubnet, Port};
use crate::server::record::{PortRecord, VolumeRecord};

fn a_flavor(id: &str, name: &str, ram: u32) -> Flavor {
    Flavor { id: id.to_owned(), name: name.to_owned(), vcpus: 1, ram, disk: 10, ..Flavor::default() }
}

#[test]
fn a_flavor_is_found_by_what_was_asked_by_name_and_by_values() {
    let flavors = [a_flavor("1", "small", 512), a_flavor("2", "large", 4096), a_flavor("3", "tiny", 512)];
    let record = |name: &str, ram| FlavorRecord {
        name: name.to_owned(),
        vcpus: 1,
        ram,
        disk: 10,
        ..Default::default()
    };
    for (name, ram, wanted, want) in [
        ("tiny", 512, None, Ok(("3", false))),
        ("small", 512, Some("large"), Ok(("2", false))),
        ("small", 512, Some("2"), Ok(("2", false))),
        ("gone", 4096, None, Ok(("2", true))),
        ("small", 999, None, Ok(("1", true))),
        ("gone", 999, None, Err("restore_flavor_id")),
        ("small", 512, Some("none"), Err("none")),
    ] {
        match (flavor(&record(name, ram), &flavors, wanted), want) {
            (Ok(choice), Ok((id, differs))) => {
                assert_eq!((choice.value.as_str(), choice.note.is_some()), (id, differs), "{name} {ram}");
            }
            (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
            (got, want) => panic!("{name} {ram}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn a_zone_that_is_not_there_is_the_clouds_to_choose_unless_it_was_asked_for() {
    let zones = [Zone { name: "nova".to_owned(), state: ZoneState { available: true } }];
    assert_eq!(zone(Some("nova"), &zones, None).unwrap().value.as_deref(), Some("nova"));
    let other = zone(Some("gone"), &zones, None).unwrap();
    assert!(other.value.is_none() && other.note.is_some());
    assert!(zone(Some("nova"), &zones, Some("gone")).is_err());
}

#[test]
fn a_key_pair_is_used_given_again_or_left_out() {
    let pair =
        |public: &str| KeyPair { name: "k".to_owned(), public_key: public.to_owned(), ..KeyPair::default() };
    let record = |public: Option<&str>| KeyRecord {
        name: "k".to_owned(),
        kind: None,
        public_key: public.map(str::to_owned),
    };
    let known = record(Some("ssh-rsa A"));
    assert_eq!(key(Some(&known), Some(&pair("ssh-rsa A\n")), None).unwrap().note, None);
    assert!(key(Some(&known), Some(&pair("ssh-rsa B")), None).unwrap().note.is_some());
    assert!(matches!(key(Some(&known), None, None).unwrap().value, Key::Import(pair) if pair.kind == "ssh"));
    let unknown = key(Some(&record(None)), None, None).unwrap();
    assert!(unknown.value == Key::None && unknown.note.is_some());
    assert!(key(Some(&known), None, Some("other")).is_err());
}

fn a_server() -> ServerRecord {
    let port = Port {
        id: "p".to_owned(),
        network_id: "n".to_owned(),
        security_groups: vec!["g".to_owned()],
        ..Port::default()
    };
    let subnets = vec![ForeignSubnet { id: "s".to_owned(), cidr: "10.0.0.0/24".to_owned() }];
    ServerRecord {
        id: "server".to_owned(),
        image_id: Some("i".to_owned()),
        volumes: vec![VolumeRecord { id: "v".to_owned(), ..VolumeRecord::default() }],
        ports: vec![PortRecord { port, floating_ips: Vec::new() }],
        networks: vec![Foreign { id: "n".to_owned(), name: "net".to_owned(), external: false, subnets }],
        ..ServerRecord::default()
    }
}

fn restored(rows: &[(&str, &str, &str)]) -> IdMap {
    let row = |(kind, old, new): &(&str, &str, &str)| {
        (ResourceKey::new(*kind, *old), ResourceKey::new(*kind, *new))
    };
    rows.iter().map(row).collect()
}

#[test]
fn what_a_server_made_of_its_image_stands_before_the_image() {
    let both = restored(&[
        (kinds::IMAGE, "i", "new"),
        (kinds::IMAGE, "i@server", "made"),
        (kinds::VOLUME, "v", "w"),
    ]);
    let found = disks(&a_server(), &both, None);
    assert_eq!((found.image.as_deref(), found.volumes.as_slice()), (Some("made"), &["w".to_owned()][..]));
    assert!(found.problems.is_empty() && !found.image_is_original);
    let found = disks(&a_server(), &IdMap::new(), None);
    assert!(found.image_is_original && found.problems.len() == 1);
    assert_eq!(disks(&a_server(), &both, Some("mine")).image.as_deref(), Some("mine"));
}

#[test]
fn ports_stand_on_what_was_restored_unless_something_else_was_asked_for() {
    let map = restored(&[
        ("OS::Neutron::Net", "n", "n2"),
        ("OS::Neutron::Subnet", "s", "s2"),
        ("OS::Neutron::SecurityGroup", "g", "g2"),
    ]);
    let mut parameters = Parameters::default();
    assert!(is_known(&a_server(), &map, &parameters));
    let (built, problems) = surroundings(&a_server(), &map, None, &parameters);
    assert!(problems.is_empty());
    assert_eq!(built.map[&(Kind::Subnet, "s".to_owned())], "s2");

    parameters.networks = json!({"net": "theirs"}).as_object().cloned();
    assert!(!is_known(&a_server(), &map, &parameters));
    let network = neutron::Network { id: "t".to_owned(), name: "theirs".to_owned(), ..Default::default() };
    let existing = Existing { networks: vec![network], ..Existing::default() };
    let (built, problems) = surroundings(&a_server(), &map, Some(&existing), &parameters);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(built.map[&(Kind::Network, "n".to_owned())], "t");
    assert!(!built.map.contains_key(&(Kind::Subnet, "s".to_owned())), "its addresses are of no use there");
    assert_eq!(built.map[&(Kind::SecurityGroup, "g".to_owned())], "g2");

    let (_, problems) = surroundings(&a_server(), &IdMap::new(), Some(&Existing::default()), &parameters);
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_server_takes_its_flavor_from_the_quota() {
    let limits = Limits {
        max_total_instances: 10,
        total_instances_used: 10,
        max_total_cores: -1,
        max_total_ram: 1024,
        total_ram_used: 600,
        ..Limits::default()
    };
    let needs = needs(&a_flavor("1", "small", 512), &limits);
    let found: Vec<_> = needs.iter().map(|need| (need.of.as_str(), need.amount, need.free)).collect();
    let vcpus = u64::from(a_flavor("1", "small", 512).vcpus);
    assert_eq!(found, [("servers", 1, Some(0)), ("vCPUs", vcpus, None), ("MiB of memory", 512, Some(424))]);
}
