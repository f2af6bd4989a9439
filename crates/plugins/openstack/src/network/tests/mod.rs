//! Capture → plan → build on a model equals the original up to ids, for any topology.

mod model;

use std::collections::{BTreeMap, BTreeSet};

use karbor_openstack_client::neutron::Kind;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::network::build::{Built, build};
use crate::network::plan::{Choices, Existing, Plan, Step, Target};
use crate::network::topology::Topology;
use model::{Model, OUTSIDE};

/// A topology, in numbers. What does not fit is brought into range.
#[derive(Debug, Clone)]
struct Sketch {
    /// For each network the kinds of its subnets: even ones have a gateway, each third is one of IPv6.
    networks: Vec<Vec<u8>>,
    /// For each router whether it leads outside, and to which subnets.
    routers: Vec<(bool, Vec<u8>)>,
    /// For each group its rules: a protocol, and a group of the other side.
    groups: Vec<Vec<(u8, Option<u8>)>>,
    /// For each port its subnet and its groups.
    ports: Vec<(u8, Vec<u8>)>,
    /// For each floating address the port that has it.
    addresses: Vec<Option<u8>>,
}

fn sketches() -> impl Strategy<Value = Sketch> {
    let some = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let groups = proptest::collection::vec((any::<u8>(), any::<Option<u8>>()), 0..5);
    (
        proptest::collection::vec(some(3), 0..4),
        proptest::collection::vec((any::<bool>(), some(4)), 0..4),
        proptest::collection::vec(groups, 0..4),
        proptest::collection::vec((any::<u8>(), some(3)), 0..5),
        proptest::collection::vec(any::<Option<u8>>(), 0..4),
    )
        .prop_map(|(networks, routers, groups, ports, addresses)| Sketch {
            networks,
            routers,
            groups,
            ports,
            addresses,
        })
}

fn pick<T: Clone>(from: &[T], number: u8) -> Option<T> {
    from.get(usize::from(number) % from.len().max(1)).cloned()
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(object) = value else { panic!("not an object: {value}") };
    object
}

/// Draws a sketch into a model, for the model's project. All things of a kind have one name: names say nothing.
fn draw(sketch: &Sketch, model: &Model) {
    let create = |kind, body| model.create(kind, object(body)).unwrap();
    let (mut subnets, mut connected) = (Vec::new(), BTreeSet::new());
    for (n, kinds) in sketch.networks.iter().enumerate() {
        let body = json!({"name": "net", "mtu": 1400 + n, "admin_state_up": n % 2 == 0, "tags": ["blue"]});
        let network = create(Kind::Network, body);
        for (s, kind) in kinds.iter().enumerate() {
            let (prefix, length, version) = match kind % 3 {
                2 => (format!("fd00:{n}:{s}::"), 64, 6),
                _ => (format!("10.{n}.{s}."), 24, 4),
            };
            let cidr =
                if version == 6 { format!("{prefix}/{length}") } else { format!("{prefix}0/{length}") };
            let gateway = (kind % 2 == 0).then(|| format!("{prefix}1"));
            let mode = (version == 6).then_some("dhcpv6-stateful");
            let id = create(
                Kind::Subnet,
                json!({
                    "network_id": network, "name": "sub", "ip_version": version, "cidr": cidr,
                    "gateway_ip": gateway, "enable_dhcp": true, "dns_nameservers": ["9.9.9.9", "1.1.1.1"],
                    "allocation_pools": [{"start": format!("{prefix}10"), "end": format!("{prefix}99")}],
                    "host_routes": [], "ipv6_address_mode": mode, "ipv6_ra_mode": mode,
                }),
            );
            subnets.push((id, network.clone(), prefix, gateway));
        }
    }
    for (r, (outside, to)) in sketch.routers.iter().enumerate() {
        let gateway = outside.then(|| json!({"network_id": OUTSIDE, "enable_snat": r % 2 == 0}));
        let body = json!({"name": "router", "admin_state_up": true, "external_gateway_info": gateway});
        let router = create(Kind::Router, body);
        let mut own = BTreeSet::new();
        for number in to {
            let Some((subnet, network, prefix, gateway)) = pick(&subnets, *number) else { continue };
            if !own.insert(subnet.clone()) {
                continue;
            }
            if gateway.is_some() && connected.insert(subnet.clone()) {
                model.connect_by(&router, &json!({"subnet_id": subnet}));
            } else {
                let fixed = json!([{"subnet_id": subnet, "ip_address": format!("{prefix}2{r}")}]);
                let body = json!({"network_id": network, "fixed_ips": fixed, "admin_state_up": true});
                model.connect_by(&router, &json!({"port_id": create(Kind::Port, body)}));
            }
            let mut state = model.state();
            let routes = &mut state.routers.iter_mut().find(|one| one.id == router).unwrap().routes;
            let destination = format!("192.168.{number}.0/24");
            if !routes.iter().any(|route| route.destination == destination) {
                let nexthop = format!("{prefix}9");
                routes.push(karbor_openstack_client::neutron::Route { destination, nexthop });
            }
        }
    }
    let mut groups = vec![model.listing().security_groups[0].id.clone()];
    for (g, _) in sketch.groups.iter().enumerate() {
        groups.push(create(
            Kind::SecurityGroup,
            json!({"name": "group", "description": format!("{g}"), "stateful": g % 2 == 0}),
        ));
    }
    for (g, rules) in sketch.groups.iter().enumerate() {
        if g % 2 == 1 {
            // A group that lets nothing out by itself.
            let mut state = model.state();
            let group = state.groups.iter_mut().find(|one| one.id == groups[g]).unwrap();
            group.security_group_rules.clear();
        }
        for (number, remote) in rules {
            let mut rule = json!({
                "security_group_id": groups[g], "direction": "ingress", "ethertype": "IPv4",
                "protocol": if number % 2 == 0 { "tcp" } else { "udp" },
                "port_range_min": number, "port_range_max": number,
            });
            match remote.and_then(|remote| pick(&groups, remote)) {
                Some(remote) => rule["remote_group_id"] = json!(remote),
                None => rule["remote_ip_prefix"] = json!("10.0.0.0/8"),
            }
            model.add_rule_now(object(rule));
        }
    }
    let mut ports = Vec::new();
    for (p, (number, guards)) in sketch.ports.iter().enumerate() {
        let Some((subnet, network, prefix, _)) = pick(&subnets, *number) else { continue };
        let guards: BTreeSet<String> = guards.iter().filter_map(|guard| pick(&groups, *guard)).collect();
        let address = format!("{prefix}5{p}");
        let body = json!({
            "network_id": network, "name": "port", "admin_state_up": true, "security_groups": guards,
            "mac_address": format!("fa:16:3e:ff:00:{p:02x}"),
            "fixed_ips": [{"subnet_id": subnet, "ip_address": address}],
            "allowed_address_pairs": [{"ip_address": format!("{prefix}7")}],
            "extra_dhcp_opts": [{"opt_name": "mtu", "opt_value": "1400", "ip_version": 4}],
        });
        ports.push((create(Kind::Port, body), address));
    }
    let mut taken = BTreeSet::new();
    for (a, port) in sketch.addresses.iter().enumerate() {
        let port = port.and_then(|number| pick(&ports, number)).filter(|(id, _)| taken.insert(id.clone()));
        let (port, fixed) = port.unzip();
        let body = json!({
            "floating_network_id": OUTSIDE, "floating_ip_address": format!("198.51.100.{a}"),
            "port_id": port, "fixed_ip_address": fixed, "description": "reached from outside",
        });
        create(Kind::FloatingIp, body);
    }
}

/// Returns a topology as one text in which ids are what they are mapped to, and no order is left.
fn normal(
    topology: &Topology,
    map: &BTreeMap<(Kind, String), String>,
) -> BTreeMap<&'static str, Vec<String>> {
    let mut topology = topology.clone();
    for interface in topology.routers.iter_mut().flat_map(|router| &mut router.interfaces) {
        // Neutron makes it anew with each connection.
        interface.port_id.clear();
    }
    let ids: BTreeMap<&str, &str> = map.iter().map(|((_, old), new)| (old.as_str(), new.as_str())).collect();
    fn rename(value: &mut Value, ids: &BTreeMap<&str, &str>) {
        match value {
            Value::String(text) => {
                if let Some(new) = ids.get(text.as_str()) {
                    *text = (*new).to_owned();
                }
            }
            Value::Array(items) => {
                items.iter_mut().for_each(|item| rename(item, ids));
                items.sort_by_key(Value::to_string);
            }
            Value::Object(members) => members.values_mut().for_each(|member| rename(member, ids)),
            _ => {}
        }
    }
    let texts = |mut value: Value| -> Vec<String> {
        rename(&mut value, &ids);
        value.as_array().unwrap().iter().map(Value::to_string).collect()
    };
    BTreeMap::from([
        ("networks", texts(json!(topology.networks))),
        ("subnets", texts(json!(topology.subnets))),
        ("routers", texts(json!(topology.routers))),
        ("ports", texts(json!(topology.ports))),
        ("groups", texts(json!(topology.security_groups))),
        ("addresses", texts(json!(topology.floating_ips))),
    ])
}

fn run(plan: &Plan, model: &Model) -> Built {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(build(plan, model)).unwrap()
}

fn reuse() -> Choices {
    Choices { reuse: true, ..Choices::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_lost_comes_back_up_to_ids(sketch in sketches(), elsewhere in any::<bool>()) {
        let model = Model::new();
        draw(&sketch, &model);
        let (before, left_out) = model.listing().topology();
        prop_assert!(left_out.is_empty(), "{left_out:?}");
        model.lose();
        if elsewhere {
            model.become_project("two");
        }
        let plan = Plan::new(&before, &model.existing(), &reuse());
        prop_assert!(plan.notes.is_empty(), "{:?}", plan.notes);
        let built = run(&plan, &model);
        prop_assert!(built.notes.is_empty(), "{:?}", built.notes);
        // Again: a service that died after its last step begins from the first.
        prop_assert_eq!(&run(&plan, &model), &built);
        let again = Plan::new(&before, &model.existing(), &reuse());
        prop_assert_eq!(&run(&again, &model).map, &built.map);
        let (after, _) = model.listing().topology();
        let mut before = before;
        if elsewhere {
            // The other project's own group has its rules already.
            let own = model.existing().security_groups[0].security_group_rules.len();
            prop_assert!(own >= before.security_groups[0].rules.len());
            before.security_groups.remove(0);
            let after = Topology {
                security_groups: after.security_groups.iter().filter(|one| one.name != "default").cloned().collect(),
                ..after.clone()
            };
            prop_assert_eq!(normal(&before, &built.map), normal(&after, &BTreeMap::new()));
        } else {
            prop_assert_eq!(normal(&before, &built.map), normal(&after, &BTreeMap::new()));
        }
    }

    #[test]
    fn nothing_is_made_where_nothing_was_lost(sketch in sketches()) {
        let model = Model::new();
        draw(&sketch, &model);
        let (topology, _) = model.listing().topology();
        let plan = Plan::new(&topology, &model.existing(), &reuse());
        prop_assert_eq!(&plan.steps, &Vec::<Step>::new());
        for ((_, old), target) in &plan.targets {
            prop_assert_eq!(target, &Target::Existing(old.clone()));
        }
    }

    #[test]
    fn a_part_that_was_lost_is_all_that_is_made(sketch in sketches(), which in any::<u8>()) {
        let model = Model::new();
        draw(&sketch, &model);
        let (before, _) = model.listing().topology();
        let ports: Vec<String> = before.ports.iter().map(|port| port.id.clone()).collect();
        let Some(lost) = pick(&ports, which) else { return Ok(()) };
        {
            let mut state = model.state();
            state.ports.retain(|port| port.id != lost);
            for address in state.addresses.iter_mut().filter(|one| one.port_id.as_ref() == Some(&lost)) {
                (address.port_id, address.fixed_ip_address) = (None, None);
            }
        }
        let plan = Plan::new(&before, &model.existing(), &reuse());
        let others = plan.steps.iter().filter(|step| !matches!(step, Step::Port(_) | Step::Associate(_)));
        prop_assert_eq!(others.count(), 0);
        let built = run(&plan, &model);
        let (after, _) = model.listing().topology();
        prop_assert_eq!(normal(&before, &built.map), normal(&after, &BTreeMap::new()));
    }
}

/// A network with a subnet and a router that leads outside.
fn small() -> (Model, Topology) {
    let sketch = Sketch {
        networks: vec![vec![0]],
        routers: vec![(true, vec![0])],
        groups: vec![vec![(80, Some(1))]],
        ports: vec![(0, vec![1])],
        addresses: vec![Some(0)],
    };
    let model = Model::new();
    draw(&sketch, &model);
    let (topology, _) = model.listing().topology();
    (model, topology)
}

#[test]
fn everything_is_made_new_beside_what_exists() {
    let (model, topology) = small();
    let plan = Plan::new(&topology, &model.existing(), &Choices::default());
    let made = plan.targets.iter().filter(|(_, target)| **target == Target::New).count();
    // The group `default`, the external network and an address that would be taken stay as they are.
    assert_eq!(made, 6, "{:?}", plan.targets);
    let built = run(&plan, &model);
    assert_eq!(model.listing().topology().0.networks.len(), 2);
    assert!(built.notes.is_empty(), "{:?}", built.notes);
}

#[test]
fn an_address_in_use_is_not_taken_away() {
    let (model, topology) = small();
    let plan = Plan::new(&topology, &model.existing(), &Choices::default());
    let built = run(&plan, &model);
    let state = model.state();
    let old = state.addresses.iter().find(|one| one.id == topology.floating_ips[0].id).unwrap();
    assert_eq!(old.port_id.as_ref(), Some(&topology.ports[0].id));
    let new = &built.map[&(Kind::FloatingIp, old.id.clone())];
    assert_ne!(new, &old.id);
}

#[test]
fn a_network_can_be_chosen_in_place_of_one() {
    let (model, topology) = small();
    model.become_project("two");
    let chosen = model.create(Kind::Network, object(json!({"name": "theirs"}))).unwrap();
    let networks = BTreeMap::from([("net".to_owned(), "theirs".to_owned())]);
    let plan = Plan::new(&topology, &model.existing(), &Choices { networks, ..reuse() });
    assert_eq!(
        plan.targets[&(Kind::Network, topology.networks[0].id.clone())],
        Target::Existing(chosen.clone())
    );
    assert!(
        !plan
            .steps
            .iter()
            .any(|step| matches!(step, Step::Network(_) | Step::Subnet(_) | Step::Interface { .. }))
    );
    let built = run(&plan, &model);
    let port = &built.map[&(Kind::Port, topology.ports[0].id.clone())];
    assert_eq!(model.state().ports.iter().find(|one| one.id == *port).unwrap().network_id, chosen);
}

#[test]
fn what_nothing_stands_for_stands_in_the_way() {
    let (model, topology) = small();
    let networks = BTreeMap::from([("net".to_owned(), "nowhere".to_owned())]);
    let plan = Plan::new(&topology, &model.existing(), &Choices { networks, ..reuse() });
    assert!(plan.notes.iter().any(|note| note.blocks && note.message.contains("nowhere")));
    model.become_project("two");
    let existing = Existing { networks: Vec::new(), ..model.existing() };
    let plan = Plan::new(&topology, &existing, &reuse());
    let blocked: BTreeSet<Kind> =
        plan.notes.iter().filter(|note| note.blocks).map(|note| note.part.0).collect();
    assert!(blocked.contains(&Kind::Router) && blocked.contains(&Kind::FloatingIp), "{:?}", plan.notes);
}
