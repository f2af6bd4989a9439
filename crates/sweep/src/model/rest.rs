//! What must be true when everybody has stopped.

use std::num::NonZeroUsize;

use crate::io::{Listing, list_sessions};
use crate::mark::Survey;
use crate::model::bank::ModelBank;
use crate::model::rng::Rng;
use crate::model::vault::{Reach, Service};
use crate::model::world::{FirstPut, World};
use crate::{
    Area, Doomed, Gone, NoPatience, PackName, PackSet, Progress, Result, SessionId, SweepOptions, Sweeper,
};

/// Everybody stops. Two sweeps leave nothing that is not needed; and again after what was late has arrived.
pub(crate) fn rest(world: &mut World, service: &Service, rng: &mut Rng) -> Result<(), String> {
    for actor in world.running() {
        world.stop(actor);
    }
    let bank = world.bank.clone();
    for _ in 0..2 {
        settle(&bank, service)?;
        while !bank.inner().late.is_empty() {
            let late = bank.inner().late.len();
            bank.arrive(rng.below(late));
        }
    }
    settle(&bank, service)
}

/// Resolves all sessions, sweeps twice, and looks what is left.
pub(crate) fn settle(bank: &ModelBank, service: &Service) -> Result<(), String> {
    let place = &service.place;
    let text = |error: crate::Error| format!("at rest: {error:?}");
    for (session, _) in bank.run(list_sessions(place, Area::Sessions, "listing sessions")).map_err(text)? {
        if !service.oracle(|oracle| matches!(oracle.ends.get(&session), Some(FirstPut::Record(_)))) {
            bank.run(crate::fence(place, &session, None, "test", "")).map_err(text)?;
        }
    }
    let reach = Reach { place: place.clone() };
    for _ in 0..2 {
        let fold_after = NonZeroUsize::new(2).expect("two is not zero");
        let options = SweepOptions { fold_after, ..SweepOptions::default() };
        let sweeper = Sweeper::new(place, &reach, &NoPatience, options);
        let report = bank.run(sweeper.sweep(service.uuid())).map_err(text)?;
        if report.progress == Progress::Waiting {
            return Err(format!("at rest, a sweep waits: {report:?}"));
        }
    }
    if let Some(violation) = service.oracle(|oracle| oracle.violation.clone()) {
        return Err(violation);
    }
    bank.run(leftovers(service)).map_err(text)?.map_or(Ok(()), Err)
}

/// Returns what two sweeps should not have left.
async fn leftovers(service: &Service) -> Result<Option<String>> {
    let place = &service.place;
    let mut gone = Gone::read(place).await?;
    let reach = Reach { place: place.clone() };
    let survey = Survey::make(place, &mut gone, &Doomed::default(), &reach).await?.0;
    let mut present = PackSet::new();
    for meta in Listing::of(place, Area::Packs, "listing packs").all().await? {
        present.insert(
            meta.key
                .as_str()
                .strip_prefix("acct/packs/")
                .expect("a pack")
                .parse::<PackName>()
                .expect("a name"),
        );
    }
    if present != survey.needed {
        let extra: Vec<String> =
            present.iter().filter(|p| !survey.needed.contains(p)).map(|p| p.to_string()).collect();
        return Ok(Some(format!("two sweeps leave packs that nothing needs: {extra:?}")));
    }
    for area in [Area::Sessions, Area::Commits, Area::Deleted] {
        for (session, meta) in list_sessions(place, area, "listing what is left").await? {
            let lives = service.oracle(|oracle| oracle.living().any(|(living, _)| *living == session));
            if !lives && !present.contains_session(&session) {
                return Ok(Some(format!("two sweeps leave {}", meta.key)));
            }
        }
    }
    let mut listed = crate::living_commits(place).await?;
    listed.sort();
    let living: Vec<SessionId> = service.oracle(|oracle| oracle.living().map(|(s, _)| *s).collect());
    if listed != living {
        return Ok(Some(format!("{listed:?} are listed as living, and {living:?} are")));
    }
    let acks = Listing::of(place, Area::Acks, "listing acks").all().await?;
    Ok(acks.first().map(|ack| format!("two sweeps leave {}", ack.key)))
}
