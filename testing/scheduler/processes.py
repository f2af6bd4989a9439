#!/usr/bin/env python3
"""Three weeks of some hundred triggers in minutes: real PostgreSQL, real processes, and everything that can go wrong.

  processes.py KARBOR_WITH_FAILPOINTS [--minutes N] [--seed N]

The clock of all processes is moved by leaps, now and then backwards. Schedulers, workers and the API are killed with
SIGKILL at random moments, workers also at named places; PostgreSQL is stopped at once, and started again. Meanwhile
users hold checkpoints, make some by hand, pause and resume. What was due is worked out by `times.py`, without the
service; what became of it is read from the database.

All that is chosen comes from the seed, which is printed. Processes run as they run, so that a seed that failed once need
not fail again; it makes the same triggers, and the same harm at the same steps.
"""
import argparse
import collections
import datetime
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import verdicts  # noqa: E402
from clock import UTC  # noqa: E402
from house import HOST, House  # noqa: E402
from service import Failed, run_cases, wait_for  # noqa: E402
from times import draw  # noqa: E402

# Three weeks in which the clocks of New York and Rome are put forward.
START = datetime.datetime(2027, 3, 10, 12, tzinfo=UTC)
END = START + datetime.timedelta(days=21)
TRIGGERS, PLANS, DIRECTORIES, STEP_SECONDS = 240, 60, 10, 1.6
TYPES = ("protect", "retention_protect", "verify", "restore_test")
RETENTION = ({"max_backups": 2}, {"max_backups": 4}, {"retention_duration": 3}, {"max_backups": 5, "retention_duration": 6},
             {"keep_daily": 5}, {"keep_weekly": 2}, {"max_backups": 1, "keep_minimum": 3})


class Run:
    def __init__(self, house, seed, minutes):
        self.house, self.api, self.dice = house, house.api, random.Random(seed)
        self.steps = max(20, int(minutes * 60 / STEP_SECONDS))
        self.plans, self.operations = [], {}
        self.by_hand, self.held, self.paused = set(), set(), set()
        self.memory = []

    # -- what there is ------------------------------------------------------------------------------------------

    def make(self):
        """Makes plans, triggers and what is scheduled."""
        dice, data = self.dice, self.house.home / "data"
        data.mkdir()
        tables = []
        for number in range(DIRECTORIES):
            (data / f"web-{number}").mkdir()
            (data / f"web-{number}" / "page").write_text(f"page {number}\n" * 100)
            tables.append(f'[[directory]]\nname = "web-{number}"\nproject = "{self.api.project}"\npath = "{data}/web-{number}"\n')
        partial = self.house.home / "inventory.partial"
        partial.write_text("".join(tables))
        partial.rename(self.house.home / "inventory.toml")
        listed = wait_for("the inventory", lambda: self.api.ask("GET", "/protectables/Host::Directory/instances")["instances"])
        directories = [{key: one[key] for key in ("id", "type", "name")} for one in sorted(listed, key=lambda one: one["name"])]
        for number in range(PLANS):
            plan = {"name": f"plan {number}", "provider_id": HOST, "resources": [directories[number % DIRECTORIES]], "parameters": {}}
            self.plans.append(self.api.ask("POST", "/plans", {"plan": plan})["plan"]["id"])
        for number in range(TRIGGERS):
            times = draw(dice, START)
            properties = {**times.properties, "start_time": f"{START:%Y-%m-%d %H:%M:%S}", "end_time": f"{END:%Y-%m-%d %H:%M:%S}",
                          "window": dice.choice((900, 1800))}
            body = {"trigger_info": {"name": f"trigger {number}", "type": "time", "properties": properties}}
            trigger = self.api.ask("POST", "/triggers", body)["trigger_info"]["id"]
            for _ in range(dice.choice((1, 1, 1, 2))):
                self.schedule(trigger, times.due(START, END))

    def schedule(self, trigger, due):
        dice = self.dice
        kind = dice.choices(TYPES, (50, 40, 5, 5))[0]
        plan = dice.choice(self.plans)
        definition = {"plan_id": plan, "provider_id": HOST, **(dice.choice(RETENTION) if kind == "retention_protect" else {})}
        rules = {"catch_up": dice.choice((None, "run_once", "skip")), "jitter_seconds": dice.choice((None, 0, 0, 300)),
                 "priority": dice.choice((-5, 0, 0, 5)), "retries": 5}
        body = {"name": "scheduled", "operation_type": kind, "trigger_id": trigger, "operation_definition": definition, **rules}
        made = self.api.ask("POST", "/scheduled_operations", {"scheduled_operation": body})["scheduled_operation"]
        self.operations[made["id"]] = verdicts.Scheduled(made["id"], kind, definition, due)

    # -- what happens -------------------------------------------------------------------------------------------

    def live(self):
        """Goes through the weeks in steps; most of them end at an instant at which something is due."""
        house, dice = self.house, self.dice
        every = collections.Counter(at for one in self.operations.values() for at in one.due)
        outages = set(dice.sample(range(5, self.steps - 5), 3))
        for step in range(self.steps):
            until = START + (END - START) * (step + 1) / self.steps
            now = house.clock.now()
            due = [at for at in sorted(every) if now < at <= until]
            if due and dice.random() < 0.8:
                until = (max(due, key=every.get) if dice.random() < 0.6 else dice.choice(due)) + datetime.timedelta(seconds=dice.choice((0, 1, 5, 30)))
            if until > now:
                house.clock.set_to(until)
            if dice.random() < 0.08:
                house.clock.move(-dice.randrange(1, 900))
            self.harm(step in outages)
            self.users_act(step)
            house.rest(dice.uniform(0.2, 2) * STEP_SECONDS)
            if step > self.steps // 3:
                self.memory.append(house.witness.memory())

    def harm(self, is_outage):
        """Kills, or takes the database away, in the middle of things: the moments are random, so nothing is waited for."""
        house, dice = self.house, self.dice
        house.keep_alive(crash_at=dice.choice(self.crash_points) if dice.random() < 0.3 else None)
        if is_outage:
            time.sleep(dice.uniform(0, 0.5))
            house.database.break_off()
            time.sleep(dice.uniform(0, 3))
            house.database.start()
        elif dice.random() < 0.35:
            mortal = [name for name in house.processes if name != "witness"]
            time.sleep(dice.uniform(0, 0.5))
            for name in dice.sample(mortal, dice.choice((1, 1, 1, 2, len(mortal)))):
                house.kill(name)
            if dice.random() < 0.7:
                house.keep_alive()

    def users_act(self, step):
        """What users want meanwhile; what fails because the service is down was never promised to them."""
        dice = self.dice
        act = dice.choice((self.hold, self.protect_by_hand, self.pause, self.resume))
        if step % 3 == 0:
            try:
                act()
            except (OSError, ValueError, Failed):
                pass

    def hold(self):
        plan = self.dice.choice(self.plans)
        listed = self.api.ask("GET", f"/providers/{HOST}/checkpoints?plan_id={plan}&limit=20")["checkpoints"]
        available = [one["id"] for one in listed if one["status"] == "available"]
        if available:
            id = self.dice.choice(available)
            self.api.ask("PUT", f"/providers/{HOST}/checkpoints/{id}/hold", {"hold": {"reason": "a test"}})
            self.held.add(id)

    def protect_by_hand(self):
        made = self.api.ask("POST", f"/providers/{HOST}/checkpoints", {"checkpoint": {"plan_id": self.dice.choice(self.plans)}})["checkpoint"]
        self.by_hand.add(made["id"])

    def pause(self):
        id = self.dice.choice(sorted(self.operations))
        self.paused.add(id)
        self.api.ask("PUT", f"/scheduled_operations/{id}", {"scheduled_operation": {"enabled": False}})

    def resume(self):
        for id in sorted(self.paused):
            self.api.ask("PUT", f"/scheduled_operations/{id}", {"scheduled_operation": {"enabled": True}})

    # -- the whole ----------------------------------------------------------------------------------------------

    def run(self, binary):
        points = subprocess.run([binary, "crash-points"], check=True, text=True, capture_output=True).stdout.split()
        self.crash_points = [point for point in points if not point.startswith("copy.")]
        house = self.house
        house.clock.set_to(START - datetime.timedelta(hours=1))
        house.api.start()
        self.make()
        house.keep_alive()
        self.live()
        house.keep_alive()
        if house.clock.now() < END:
            house.clock.set_to(END)
        house.settle(120)
        self.memory.append(house.witness.memory())
        self.ended = house.stop()

    def cases(self):
        judge = verdicts.Judge(self.house.database, self.operations, self.house.clock.now())
        judge.by_hand, judge.held, judge.paused = self.by_hand, self.held, self.paused

        def all_end_when_they_are_asked_to():
            if any(self.ended.values()):
                raise Failed(f"they ended with {self.ended}")

        def the_memory_of_a_scheduler_stays():
            first, last = min(self.memory[:5]), self.memory[-1]
            print(f"    the witness had {first:.1f} MiB after a third of the steps, and {last:.1f} MiB at the end")
            if last > first + 16:
                raise Failed(f"it grew from {first:.1f} to {last:.1f} MiB")

        def nobody_panics():
            for name, text in self.house.logs():
                if "panicked at" in text:
                    raise Failed(f"{name}: {text[text.index('panicked at'):][:400]}")
        tests = (*judge.tests(), all_end_when_they_are_asked_to, the_memory_of_a_scheduler_stays, nobody_panics)
        return [(test.__name__, test) for test in tests]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("karbor")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--keep", action="store_true", help="leave the logs and the database")
    arguments = parser.parse_args()
    again = f"testing/scheduler/processes.py KARBOR --minutes {arguments.minutes:g} --seed {arguments.seed}"
    print(f"    the seed is {arguments.seed}; again: {again}", flush=True)
    home = Path(tempfile.mkdtemp(prefix="karbor-scheduler-"))
    home.chmod(0o755)
    passed, failed, house = 0, 1, House(os.path.abspath(arguments.karbor), home)
    try:
        run = Run(house, arguments.seed, arguments.minutes)
        run.run(house.api.binary)
        passed, failed = run_cases(run.cases())
        counts = collections.Counter(one.kind for one in run.operations.values())
        print(f"    {TRIGGERS} triggers, {len(run.operations)} scheduled operations {dict(counts)}, {run.steps} steps, "
              f"{house.deaths} processes died, {len(run.held)} holds")
    except (Failed, OSError, subprocess.SubprocessError) as err:
        print(f"FAILED {type(err).__name__}: {err}")
    finally:
        house.close()
        if failed:
            print(f"the seed was {arguments.seed}; again: {again}")
        if arguments.keep:
            print(f"the logs are in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
