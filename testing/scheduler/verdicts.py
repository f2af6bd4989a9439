"""What became of every occurrence, read straight from PostgreSQL, against what was due and what retention should keep."""

import collections
import datetime
import json
from dataclasses import dataclass

from clock import UTC
from house import micros
from service import Failed

FINAL = ("succeeded", "failed", "skipped")


@dataclass
class Scheduled:
    """A scheduled operation as it was asked for, with all times at which it is due."""
    id: str
    kind: str
    definition: dict
    due: list


class Judge:
    def __init__(self, database, operations, now):
        self.operations, self.now = operations, now
        self.by_hand, self.held, self.paused = set(), set(), set()
        self.occurrences = database.rows("SELECT * FROM occurrences")
        self.started = database.rows("SELECT id, occurrence_id, occurrence_attempt, checkpoint_id, state, kind FROM operations")
        self.checkpoints = {row["id"]: row for row in database.rows("SELECT id, state, extra_info, created_at, held_at FROM checkpoints")}
        self.triggers = database.rows("SELECT id, next_at, fault FROM triggers")
        self.of = collections.defaultdict(list)
        for one in self.occurrences:
            self.of[one["scheduled_operation_id"]].append(one)

    def tests(self):
        return (self.every_due_occurrence_has_one_record, self.no_occurrence_ran_twice, self.each_has_its_end_and_its_reason,
                self.most_that_could_run_did, self.what_succeeded_has_its_checkpoint, self.retention_keeps_what_its_rules_say,
                self.what_is_held_or_made_by_hand_stays)

    def every_due_occurrence_has_one_record(self):
        for one in self.operations.values():
            recorded = [row["occurrence_at"] for row in self.of[one.id]]
            due = [micros(at) for at in one.due]
            if sorted(recorded) != due:
                lost = [str(moment(at)) for at in sorted(set(due) - set(recorded))]
                extra = [str(moment(at)) for at in sorted(set(recorded) - set(due))]
                raise Failed(f"{one}: lost {lost}, invented {extra}, {len(recorded)} records for {len(due)} times")
        if len(self.of) > len(self.operations):
            raise Failed("there are occurrences of what nobody scheduled")
        still = [row for row in self.triggers if row["next_at"] is not None or row["fault"]]
        if still:
            raise Failed(f"triggers that are over, and still fire: {still[:3]}")
        print(f"    {len(self.occurrences)} occurrences were due, and each is recorded")

    def no_occurrence_ran_twice(self):
        attempts, succeeded = collections.Counter(), collections.Counter()
        for row in self.started:
            if row["occurrence_id"]:
                attempts[row["occurrence_id"], row["occurrence_attempt"]] += 1
                succeeded[row["occurrence_id"]] += row["state"] == "succeeded"
        twice = [key for key, count in attempts.items() if count > 1] + [key for key, count in succeeded.items() if count > 1]
        if twice:
            raise Failed(f"these were started or ran twice: {twice[:5]}")
        for row in self.occurrences:
            if (row["state"] == "succeeded") != (succeeded[row["id"]] == 1):
                raise Failed(f"its operation says something else: {row}")
            if row["state"] == "skipped" and any((row["id"], attempt) in attempts for attempt in range(row["attempt"] + 1)):
                raise Failed(f"it is skipped, and was started: {row}")

    def each_has_its_end_and_its_reason(self):
        reasons = collections.Counter()
        for row in self.occurrences:
            if row["state"] not in FINAL or row["open_operation"] or not row["ended_at"]:
                raise Failed(f"it has not ended: {row}")
            if (row["state"] != "succeeded") != bool(row["reason"]):
                raise Failed(f"its reason does not fit its end: {row}")
            if row["reason"] == "paused" and row["scheduled_operation_id"] not in self.paused:
                raise Failed(f"nobody paused it: {row}")
            reasons[row["state"], row["reason"] or ""] += 1
        print("    " + ", ".join(f"{count} {' '.join(words).strip()}" for words, count in reasons.most_common()))
        for row in self.occurrences:
            if row["state"] == "failed":
                raise Failed(f"nothing here fails by itself: {row}")

    def most_that_could_run_did(self):
        """What was missed while the clock leapt cannot run; of the rest, most must."""
        could = [row for row in self.occurrences if row["reason"] not in ("window_missed", "paused", "nothing_to_do")]
        did = sum(row["state"] == "succeeded" for row in could)
        if did * 10 < len(could) * 8 or did * 5 < len(self.occurrences):
            raise Failed(f"only {did} of {len(could)} that could run did, of {len(self.occurrences)}")

    def what_succeeded_has_its_checkpoint(self):
        seen = collections.Counter()
        for row in self.occurrences:
            makes = row["state"] == "succeeded" and row["operation_type"] in ("protect", "retention_protect")
            if makes != bool(row["checkpoint_id"]):
                raise Failed(f"its checkpoint does not fit its end: {row}")
            if not makes:
                continue
            seen[row["checkpoint_id"]] += 1
            checkpoint = self.checkpoints[row["checkpoint_id"]]
            wanted = ("available",) if row["operation_type"] == "protect" else ("available", "deleted")
            told = json.loads(checkpoint["extra_info"])
            if checkpoint["state"] not in wanted or told.get("scheduled_operation_id") != row["scheduled_operation_id"]:
                raise Failed(f"{row} made {checkpoint}")
        if any(count > 1 for count in seen.values()):
            raise Failed("one checkpoint stands for two occurrences")
        made = [id for id, row in self.checkpoints.items() if "scheduled_operation_id" in row["extra_info"] and row["state"] == "available"]
        if set(made) - set(seen):
            raise Failed(f"checkpoints that no occurrence tells of: {sorted(set(made) - set(seen))[:5]}")

    def retention_keeps_what_its_rules_say(self):
        kept = deleted = 0
        for one in self.operations.values():
            if one.kind != "retention_protect":
                continue
            rows = [row for row in self.of[one.id] if row["checkpoint_id"]]
            all_made = [self.checkpoints[row["checkpoint_id"]] for row in rows]
            made = sorted((row for row in all_made if not row["held_at"]), key=lambda row: (row["created_at"], row["id"]))[::-1]
            there = {row["id"] for row in made if row["state"] == "available"}
            # It was applied for the last time somewhere between the end of the last run and now.
            last = max((row["ended_at"] for row in rows), default=0)
            least, most = (keeps(one.definition, made, at) for at in (self.now, moment(last)))
            kept, deleted = kept + len(there), deleted + len(made) - len(there)
            # A checkpoint that is held now was counted before it was: so many more may be gone.
            holds = len(all_made) - len(made)
            if not there <= most or len(least - there) > holds:
                raise Failed(f"{one.definition}: keeps {len(there)} of {len(made)}, and should keep {len(least)} to {len(most)}; {holds} held")
        if not kept or not deleted:
            raise Failed(f"retention kept {kept} and deleted {deleted}: this proves nothing")
        print(f"    retention kept {kept} and deleted {deleted} checkpoints")

    def what_is_held_or_made_by_hand_stays(self):
        for id in self.by_hand | self.held:
            if self.checkpoints[id]["state"] != "available" or (id in self.held and not self.checkpoints[id]["held_at"]):
                raise Failed(f"{self.checkpoints[id]} is held, or was made by hand")
        if not self.by_hand or not self.held:
            raise Failed(f"{len(self.by_hand)} by hand, {len(self.held)} held: this proves nothing")


def keeps(definition, made, now):
    """Returns which of the checkpoints, newest first, the rules keep at an instant."""
    kept = {row["id"] for row in made[:max(1, definition.get("keep_minimum", 0))]}
    if "max_backups" in definition or "retention_duration" in definition:
        within = made[:definition.get("max_backups", len(made))]
        days = definition.get("retention_duration")
        kept |= {row["id"] for row in within if days is None or age_days(row, now) <= days}
    for name, period in (("keep_daily", lambda at: at.date()), ("keep_weekly", lambda at: at.isocalendar()[:2])):
        newest = {}
        for row in made:
            newest.setdefault(period(moment(row["created_at"])), row["id"])
        kept |= set(list(newest.values())[:definition.get(name, 0)])
    return kept


def age_days(row, now):
    midnight = moment(row["created_at"]).replace(hour=0, minute=0, second=0, microsecond=0)
    return (now - midnight).days


def moment(at):
    return datetime.datetime.fromtimestamp(at / 1_000_000, UTC)
