//! Lists: filters, order, pages.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use karbor_store::{
    CheckpointColumn, CheckpointQuery, Direction, Error, Filter, FilterValue, NewCheckpoint, Plan,
    PlanColumn, PlanQuery, PlanSnapshot, PlanUpdate,
};
use karbor_types::{CheckpointState, PlanId, ProviderId};

use crate::checkpoints::import;
use crate::kit::World;
use crate::rows::{UNLIMITED, at, checkpoint, plan, project, protect, uuid};

use Direction::{Ascending, Descending};

/// Plans with many equal values, and with missing ones.
async fn some_plans(world: &World) -> Vec<Plan> {
    let mut plans = Vec::new();
    for number in 0..41u128 {
        let small = i64::try_from(number).expect("small");
        let made = Plan {
            name: ["beta", "Alpha", "alpha", "äther", "zeta", "Zeta"]
                [usize::try_from(number % 6).expect("small")]
            .to_owned(),
            description: (number % 3 > 0).then(|| format!("about {}", number % 4)),
            status: (number % 5 > 0).then(|| "suspended".to_owned()),
            created_at: at(small * 7 % 9),
            updated_at: (number % 4 == 0).then(|| at(small % 3)),
            // Ids in another order than creation.
            ..plan(number * 7919 % 1009, if number % 2 == 0 { "p" } else { "q" })
        };
        world.store.create_plan(&made, &UNLIMITED).await.expect("created");
        plans.push(made);
    }
    plans
}

fn compare(column: PlanColumn, a: &Plan, b: &Plan) -> Ordering {
    match column {
        PlanColumn::Id => a.id.cmp(&b.id),
        PlanColumn::Name => a.name.cmp(&b.name),
        PlanColumn::Description => a.description.cmp(&b.description),
        PlanColumn::Status => a.status.cmp(&b.status),
        PlanColumn::CreatedAt => a.created_at.cmp(&b.created_at),
        PlanColumn::UpdatedAt => a.updated_at.cmp(&b.updated_at),
        other => panic!("{other:?} is not compared here"),
    }
}

fn ids(plans: &[Plan]) -> Vec<PlanId> {
    plans.iter().map(|plan| plan.id).collect()
}

pub(crate) async fn pages_in_any_order_hold_every_row_once(world: World) {
    use PlanColumn as C;
    let plans = some_plans(&world).await;
    let orders: [&[(C, Direction)]; 9] = [
        &[],
        &[(C::CreatedAt, Ascending)],
        &[(C::Name, Ascending)],
        &[(C::Name, Descending), (C::CreatedAt, Ascending)],
        &[(C::Description, Ascending), (C::Name, Descending)],
        &[(C::UpdatedAt, Descending)],
        &[(C::UpdatedAt, Ascending), (C::Status, Descending), (C::Id, Ascending)],
        &[(C::Id, Descending), (C::Name, Ascending)],
        &[(C::Status, Ascending), (C::Status, Descending)],
    ];
    for order in orders {
        for owner in [None, Some("p")] {
            let mut expected: Vec<Plan> = plans
                .iter()
                .filter(|plan| owner.is_none_or(|owner| plan.project.as_str() == owner))
                .cloned()
                .collect();
            let first = order.first().map_or(Descending, |(_, direction)| *direction);
            let mut total = order.to_vec();
            total.extend([(C::CreatedAt, first), (C::Id, first)]);
            expected.sort_by(|a, b| {
                let keys = total.iter().map(|(column, direction)| match direction {
                    Ascending => compare(*column, a, b),
                    Descending => compare(*column, b, a),
                });
                keys.fold(Ordering::Equal, Ordering::then)
            });
            let mut query = PlanQuery {
                project: owner.map(project),
                sort: order.to_vec(),
                limit: 7,
                ..PlanQuery::default()
            };
            let mut seen = Vec::new();
            loop {
                let page = world.store.list_plans(&query).await.expect("listed");
                query.marker = page.last().map(|plan| plan.id).or(query.marker);
                if page.is_empty() {
                    break;
                }
                seen.extend(page);
            }
            assert_eq!(ids(&seen), ids(&expected), "{order:?} of {owner:?}");
            let skipped = PlanQuery { marker: None, offset: 5, limit: 10, ..query };
            let page = world.store.list_plans(&skipped).await.expect("listed");
            assert_eq!(ids(&page), ids(&expected[5..15]), "{order:?} of {owner:?}");
        }
    }
    let far = PlanQuery { offset: u64::MAX, ..PlanQuery::default() };
    assert!(world.store.list_plans(&far).await.expect("listed").is_empty());
    let none = PlanQuery { limit: 0, ..PlanQuery::default() };
    assert!(world.store.list_plans(&none).await.expect("listed").is_empty());
}

pub(crate) async fn filters_find_what_they_name(world: World) {
    use PlanColumn as C;
    let plans = some_plans(&world).await;
    let text = |text: &str| FilterValue::from(text);
    type Test = fn(&Plan) -> bool;
    let table: [(Vec<Filter<C>>, Test); 16] = [
        (vec![], |_| true),
        (vec![Filter::Equals(C::Name, text("alpha"))], |plan| plan.name == "alpha"),
        (vec![Filter::Equals(C::Name, text("alpha "))], |_| false),
        (vec![Filter::Equals(C::Name, FilterValue::Number(5))], |_| false),
        (vec![Filter::Equals(C::CreatedAt, FilterValue::Number(at(4).as_micros()))], |p| {
            p.created_at == at(4)
        }),
        (vec![Filter::Equals(C::CreatedAt, text("never"))], |_| false),
        (vec![Filter::OneOf(C::Name, vec![text("alpha"), text("äther"), text("?")])], |plan| {
            ["alpha", "äther"].contains(&plan.name.as_str())
        }),
        (vec![Filter::OneOf(C::Name, vec![])], |_| false),
        (vec![Filter::IsNull(C::Status)], |plan| plan.status.is_none()),
        (vec![Filter::Contains(C::Name, "eta".to_owned())], |plan| plan.name.contains("eta")),
        (vec![Filter::Contains(C::Name, "A".to_owned())], |plan| plan.name.contains('A')),
        (vec![Filter::Contains(C::Name, "%".to_owned())], |_| false),
        (vec![Filter::Contains(C::Description, "out 1".to_owned())], |plan| {
            plan.description.as_ref().is_some_and(|text| text.contains("out 1"))
        }),
        (vec![Filter::Contains(C::CreatedAt, "1".to_owned())], |_| false),
        (vec![Filter::Since(C::CreatedAt, at(3)), Filter::Before(C::CreatedAt, at(6))], |plan| {
            (at(3)..at(6)).contains(&plan.created_at)
        }),
        (vec![Filter::Before(C::UpdatedAt, at(1)), Filter::Equals(C::Project, text("p"))], |plan| {
            plan.updated_at.is_some_and(|updated| updated < at(1)) && plan.project == project("p")
        }),
    ];
    for (filters, test) in table {
        let query = PlanQuery { filters, ..PlanQuery::default() };
        let found: BTreeSet<PlanId> =
            ids(&world.store.list_plans(&query).await.expect("listed")).into_iter().collect();
        let expected: BTreeSet<PlanId> = plans.iter().filter(|plan| test(plan)).map(|plan| plan.id).collect();
        assert_eq!(found, expected, "{:?}", query.filters);
    }

    for number in 1..=6u128 {
        let mut new = checkpoint(number, if number <= 3 { "p" } else { "q" });
        new.plan = PlanSnapshot { id: PlanId(uuid(number % 2)), ..new.plan };
        new.provider = ProviderId(uuid(number % 3));
        world
            .store
            .create_checkpoint(
                &new,
                &protect(&new),
                &UNLIMITED,
                at(100 * i64::try_from(number).expect("small")),
            )
            .await
            .expect("created");
    }
    import(&world, &NewCheckpoint { ..checkpoint(7, "p") }, CheckpointState::Error).await;
    type Rows<'a> = (Option<&'a str>, Vec<Filter<CheckpointColumn>>, Vec<u128>);
    let table: [Rows<'_>; 6] = [
        (None, vec![Filter::Equals(CheckpointColumn::Plan, uuid(1).to_string().into())], vec![5, 3, 1]),
        (Some("p"), vec![Filter::Equals(CheckpointColumn::Provider, uuid(1).to_string().into())], vec![1]),
        (None, vec![Filter::Equals(CheckpointColumn::State, text("error"))], vec![7]),
        (Some("q"), vec![], vec![6, 5, 4]),
        (
            None,
            vec![
                Filter::Since(CheckpointColumn::CreatedAt, at(200)),
                Filter::Before(CheckpointColumn::CreatedAt, at(500)),
            ],
            vec![4, 3, 2],
        ),
        (None, vec![Filter::Since(CheckpointColumn::CommittedAt, at(0))], vec![7]),
    ];
    for (owner, filters, expected) in table {
        let query = CheckpointQuery { project: owner.map(project), filters, ..CheckpointQuery::default() };
        let found = world.store.list_checkpoints(&query).await.expect("listed");
        let found: Vec<u128> = found.iter().map(|checkpoint| checkpoint.id.0.as_u128()).collect();
        assert_eq!(found, expected, "{owner:?} {:?}", query.filters);
    }
}

pub(crate) async fn an_unknown_marker_is_told(world: World) {
    world.store.create_plan(&plan(1, "p"), &UNLIMITED).await.expect("created");
    for (owner, marker) in [(None, 2), (Some("q"), 1)] {
        let marker = PlanId(uuid(marker));
        let query = PlanQuery { project: owner.map(project), marker: Some(marker), ..PlanQuery::default() };
        let refused = world.store.list_plans(&query).await;
        let told =
            matches!(&refused, Err(Error::UnknownMarker { marker: told }) if *told == marker.to_string());
        assert!(told, "{owner:?}: {refused:?}");
    }
    let query = PlanQuery {
        project: Some(project("q")),
        marker: Some(PlanId(uuid(1))),
        foreign_marker: true,
        ..PlanQuery::default()
    };
    assert_eq!(world.store.list_plans(&query).await.expect("begins behind any row"), []);
}

pub(crate) async fn rows_that_come_and_go_do_not_disturb_pages(world: World) {
    let store = &world.store;
    for number in 1..=6 {
        store.create_plan(&plan(number, "p"), &UNLIMITED).await.expect("created");
    }
    let mut query = PlanQuery { sort: vec![(PlanColumn::Id, Ascending)], limit: 3, ..PlanQuery::default() };
    let first = ids(&store.list_plans(&query).await.expect("listed"));
    // The last row of the page goes, one before it changes, and new ones come on both sides.
    store.delete_plan(first[2], at(1)).await.expect("deleted");
    store
        .update_plan(first[1], &PlanUpdate { name: Some("new".to_owned()), ..PlanUpdate::default() }, at(1))
        .await
        .expect("changed");
    store.create_plan(&plan(0, "p"), &UNLIMITED).await.expect("created");
    store.create_plan(&plan(7, "p"), &UNLIMITED).await.expect("created");
    query.marker = Some(first[2]);
    let second = ids(&store.list_plans(&query).await.expect("the marker is still known"));
    assert_eq!(second, [4, 5, 6].map(|number| PlanId(uuid(number))));
}
