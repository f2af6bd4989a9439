//! Which checkpoints of a scheduled operation are kept, and which may go.
//!
//! The arithmetic is pure: policy, checkpoints and the time come in, a verdict for each checkpoint goes out.
//! It decides over what cannot be brought back, so it is timid in every doubt: only checkpoints that are
//! `available`, were made by the operation itself and are not held are counted, and no other is ever let go;
//! of those counted the newest stays whatever the policy says.
//!
//! Rules add up. A checkpoint stays if *any* of them keeps it: the limits (maximum count and duration, of which
//! both must hold where both are given), a generation, or the minimum. With no rule at all every checkpoint
//! stays.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{CheckpointId, CheckpointState, Instant, ScheduledOperationId};

const DAY_MICROS: i64 = 86_400 * 1_000_000;

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionPolicy {
    /// At most so many, the newest.
    pub max_count: Option<u32>,
    /// Those whose age in whole days, counted from the midnight (UTC) before they were made, is not above this.
    pub max_days: Option<u32>,
    /// Of each of so many latest periods with a checkpoint its newest; zero for none.
    pub generations: Generations,
    /// Never fewer than so many, the newest.
    pub minimum: u32,
}

/// How many periods of each length keep their newest checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Generations {
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// Weeks, which begin on Monday.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// One length of period; all are of the calendar in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// An hour.
    Hourly,
    /// A day.
    Daily,
    /// A week.
    Weekly,
    /// A month.
    Monthly,
    /// A year.
    Yearly,
}

/// What retention knows of one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionCandidate {
    /// The checkpoint.
    pub id: CheckpointId,
    /// When it was made.
    pub created_at: Instant,
    /// Its state.
    pub state: CheckpointState,
    /// The scheduled operation that made it; `None` for one made by hand.
    pub operation: Option<ScheduledOperationId>,
    /// Whether somebody holds it.
    pub held: bool,
}

/// Why a checkpoint stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBecause {
    /// It is not `available`: retention has no say over it.
    NotAvailable,
    /// Somebody made it by hand, or another scheduled operation did.
    NotOfThisOperation,
    /// Somebody holds it.
    Held,
    /// It is the newest.
    Newest,
    /// It is one of the fewest that are kept.
    Minimum,
    /// It is within the limits of count and duration.
    WithinLimits,
    /// It is the newest of a period.
    Generation(Generation),
    /// The policy has no rule.
    NoRule,
}

/// Why a checkpoint may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpiredBecause {
    /// There are more than so many newer ones.
    Count(u32),
    /// It is older than so many days.
    Days(u32),
    /// No generation keeps it.
    NoGeneration,
}

/// What becomes of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// It stays.
    Kept(KeptBecause),
    /// It may go.
    Expired(ExpiredBecause),
}

/// A policy that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {expected}")]
pub struct RetentionError {
    /// The field of the definition.
    pub field: &'static str,
    /// What it may be.
    pub expected: String,
}

impl RetentionPolicy {
    /// The fields of a definition that a policy is read from, and since when clients may send them: the first two
    /// are those of the old service.
    pub const FIELDS: [&'static str; 8] = [
        "max_backups",
        "retention_duration",
        "keep_hourly",
        "keep_daily",
        "keep_weekly",
        "keep_monthly",
        "keep_yearly",
        "keep_minimum",
    ];

    /// Reads a policy from the definition of a scheduled operation. What is not there, zero or below is off.
    ///
    /// # Errors
    /// [`RetentionError`] for what is no whole number.
    pub fn from_definition(definition: &Map<String, Value>) -> Result<Self, RetentionError> {
        let number = |field: &'static str| -> Result<u32, RetentionError> {
            let read = match definition.get(field) {
                None | Some(Value::Null) => return Ok(0),
                Some(Value::Number(number)) => number.as_i64(),
                Some(Value::String(text)) => text.trim().parse().ok(),
                Some(_) => None,
            };
            let Some(read) = read else {
                return Err(RetentionError { field, expected: "a whole number".to_owned() });
            };
            // More than that is as good as any number.
            Ok(u32::try_from(read.max(0)).unwrap_or(u32::MAX))
        };
        let some = |number: u32| (number > 0).then_some(number);
        Ok(Self {
            max_count: some(number("max_backups")?),
            max_days: some(number("retention_duration")?),
            generations: Generations {
                hourly: number("keep_hourly")?,
                daily: number("keep_daily")?,
                weekly: number("keep_weekly")?,
                monthly: number("keep_monthly")?,
                yearly: number("keep_yearly")?,
            },
            minimum: number("keep_minimum")?,
        })
    }

    /// Whether the policy lets anything go.
    pub fn has_rules(&self) -> bool {
        self.has_limits() || self.generations != Generations::default()
    }

    fn has_limits(&self) -> bool {
        self.max_count.is_some() || self.max_days.is_some()
    }

    /// Decides what becomes of each checkpoint of `operation`, in the order in which they were given.
    pub fn decide(
        &self,
        operation: ScheduledOperationId,
        now: Instant,
        checkpoints: &[RetentionCandidate],
    ) -> Vec<(CheckpointId, Retention)> {
        let mut counted: Vec<&RetentionCandidate> =
            checkpoints.iter().filter(|checkpoint| uncounted(operation, checkpoint).is_none()).collect();
        counted.sort_unstable_by_key(|checkpoint| std::cmp::Reverse((checkpoint.created_at, checkpoint.id)));
        let ranks: BTreeMap<CheckpointId, usize> =
            counted.iter().enumerate().map(|(rank, checkpoint)| (checkpoint.id, rank)).collect();
        let generations = self.kept_by_generations(&counted);
        let mut verdicts = Vec::with_capacity(checkpoints.len());
        for checkpoint in checkpoints {
            let verdict = match uncounted(operation, checkpoint) {
                Some(reason) => Retention::Kept(reason),
                None => {
                    let rank = ranks.get(&checkpoint.id).copied().unwrap_or(0);
                    self.verdict(rank, generations.get(rank).copied().flatten(), now, checkpoint)
                }
            };
            verdicts.push((checkpoint.id, verdict));
        }
        verdicts
    }

    /// Decides over one counted checkpoint; `rank` of them are newer.
    fn verdict(
        &self,
        rank: usize,
        generation: Option<Generation>,
        now: Instant,
        checkpoint: &RetentionCandidate,
    ) -> Retention {
        let among = |count: u32| usize::try_from(count).is_ok_and(|count| rank < count);
        if rank == 0 {
            return Retention::Kept(KeptBecause::Newest);
        }
        if !self.has_rules() {
            return Retention::Kept(KeptBecause::NoRule);
        }
        if among(self.minimum) {
            return Retention::Kept(KeptBecause::Minimum);
        }
        let surplus = self.max_count.filter(|count| !among(*count)).map(ExpiredBecause::Count);
        let age = days_since_midnight_before(checkpoint.created_at, now);
        let outlived = self.max_days.filter(|days| age > i64::from(*days)).map(ExpiredBecause::Days);
        let beyond_limits = surplus.or(outlived);
        if self.has_limits() && beyond_limits.is_none() {
            return Retention::Kept(KeptBecause::WithinLimits);
        }
        match generation {
            Some(generation) => Retention::Kept(KeptBecause::Generation(generation)),
            None => Retention::Expired(beyond_limits.unwrap_or(ExpiredBecause::NoGeneration)),
        }
    }

    /// Returns for each of the checkpoints, which come newest first, the shortest generation that keeps it.
    fn kept_by_generations(&self, newest_first: &[&RetentionCandidate]) -> Vec<Option<Generation>> {
        let mut kept = vec![None; newest_first.len()];
        let Generations { hourly, daily, weekly, monthly, yearly } = self.generations;
        for (generation, count) in [
            (Generation::Hourly, hourly),
            (Generation::Daily, daily),
            (Generation::Weekly, weekly),
            (Generation::Monthly, monthly),
            (Generation::Yearly, yearly),
        ] {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let mut periods = BTreeSet::new();
            for (checkpoint, kept) in newest_first.iter().zip(&mut kept) {
                if periods.len() == count {
                    break;
                }
                if periods.insert(generation.period(checkpoint.created_at)) {
                    kept.get_or_insert(generation);
                }
            }
        }
        kept
    }
}

/// Returns why a checkpoint is none of those that are counted.
fn uncounted(operation: ScheduledOperationId, checkpoint: &RetentionCandidate) -> Option<KeptBecause> {
    if checkpoint.state != CheckpointState::Available {
        return Some(KeptBecause::NotAvailable);
    }
    if checkpoint.operation != Some(operation) {
        return Some(KeptBecause::NotOfThisOperation);
    }
    checkpoint.held.then_some(KeptBecause::Held)
}

/// Returns the age in whole days, counted from the midnight before a checkpoint was made, as the old service did.
fn days_since_midnight_before(created_at: Instant, now: Instant) -> i64 {
    let midnight = created_at.as_micros().div_euclid(DAY_MICROS).saturating_mul(DAY_MICROS);
    now.as_micros().saturating_sub(midnight).div_euclid(DAY_MICROS)
}

impl Generation {
    /// Returns a number that is the same for all instants of one period.
    fn period(self, at: Instant) -> i64 {
        let days = at.as_micros().div_euclid(DAY_MICROS);
        let date = jiff::Timestamp::from_microsecond(at.as_micros())
            .map(|at| jiff::tz::Offset::UTC.to_datetime(at).date())
            .unwrap_or_default();
        match self {
            Self::Hourly => at.as_micros().div_euclid(DAY_MICROS / 24),
            Self::Daily => days,
            // 1970-01-01 was a Thursday.
            Self::Weekly => (days + 3).div_euclid(7),
            Self::Monthly => i64::from(date.year()) * 12 + i64::from(date.month()),
            Self::Yearly => i64::from(date.year()),
        }
    }

    /// Returns the word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }
}

impl Retention {
    /// Whether the checkpoint may go.
    pub const fn is_expired(self) -> bool {
        matches!(self, Self::Expired(_))
    }

    /// Returns the word that clients read.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kept(KeptBecause::NotAvailable) => "not_available",
            Self::Kept(KeptBecause::NotOfThisOperation) => "not_of_this_operation",
            Self::Kept(KeptBecause::Held) => "held",
            Self::Kept(KeptBecause::Newest) => "newest",
            Self::Kept(KeptBecause::Minimum) => "keep_minimum",
            Self::Kept(KeptBecause::WithinLimits) => "within_limits",
            Self::Kept(KeptBecause::Generation(generation)) => match generation {
                Generation::Hourly => "keep_hourly",
                Generation::Daily => "keep_daily",
                Generation::Weekly => "keep_weekly",
                Generation::Monthly => "keep_monthly",
                Generation::Yearly => "keep_yearly",
            },
            Self::Kept(KeptBecause::NoRule) => "no_rule",
            Self::Expired(ExpiredBecause::Count(_)) => "max_backups",
            Self::Expired(ExpiredBecause::Days(_)) => "retention_duration",
            Self::Expired(ExpiredBecause::NoGeneration) => "no_generation",
        }
    }
}

#[cfg(test)]
mod tests;
