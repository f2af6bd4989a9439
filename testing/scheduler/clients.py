#!/usr/bin/env python3
"""A week of scheduled backups as users of the old shell have them, on the host plugins, with the clock moved.

  clients.py OLD_CLIENT KARBOR_WITH_FAILPOINTS

Triggers of both formats and scheduled operations of both old types are made, shown and deleted by python-karborclient;
its lists and logs must tell the truth, and what it restores must be the bytes of that day.
"""
import datetime
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "client")]
from clock import UTC, Clock  # noqa: E402
from service import Failed, Service, run_cases, wait_for  # noqa: E402
from shell import Client, expect  # noqa: E402

CONFIG = """
[worker]
poll-milliseconds = 50
flush-milliseconds = 50
sweep-delay-seconds = 0
[scheduler]
poll-milliseconds = 100
retention-retry-seconds = 5
"""
NOON = datetime.datetime(2027, 3, 10, 12, tzinfo=UTC)
DAYS = range(1, 8)
CALENDAR = r"BEGIN:VEVENT\nRRULE:FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0\nEND:VEVENT"


class Week:
    def __init__(self, program, binary, home):
        self.home = home
        self.clock = Clock(home / "clock")
        self.clock.set_to(NOON)
        self.service = Service(binary, home / "state", CONFIG, {"KARBOR_CLOCK_FILE": str(self.clock.file)})
        self.client = Client(program, self.service)
        self.page = home / "web" / "index.html"
        self.page.parent.mkdir()
        self.scheduled, self.made = {}, {}

    def start(self):
        self.service.start()
        self.service.inventory(f'[[directory]]\nname = "web"\nproject = "{self.service.project}"\npath = "{self.page.parent}"\n')
        wait_for("the inventory", lambda: self.service.ask("GET", "/protectables/Host::Directory/instances")["instances"])

    def status(self, checkpoint):
        return self.client.fields("checkpoint-show", self.provider, checkpoint)["status"]

    def runs(self, name):
        return self.service.ask("GET", f"/scheduled_operations/{self.scheduled[name]}/runs")["runs"]

    # -- the cases, in their order ------------------------------------------------------------------------------

    def a_plan_is_protected_by_hand(self):
        client = self.client
        self.provider = next(row["Id"] for row in client.records("provider-list") if row["Name"] == "Host Provider")
        resource = client.table("protectable-list-instances", "Host::Directory")[1][0]
        self.plan = client.fields("plan-create", "nightly", self.provider, f"{resource}=Host::Directory=web")["id"]
        self.page.write_text("day 0\n")
        self.by_hand = client.fields("checkpoint-create", self.provider, self.plan)["id"]
        wait_for("the checkpoint", lambda: self.status(self.by_hand) == "available")

    def triggers_of_both_formats_are_made(self):
        self.triggers = {}
        for form, pattern in (("crontab", "30 2 * * *"), ("calendar", CALENDAR)):
            properties = f"format={form},pattern={pattern},start_time={NOON:%Y-%m-%d %H:%M:%S},window=900"
            made = self.client.fields("trigger-create", form, "time", properties)
            self.triggers[form] = made["id"]
            shown = self.client.run("trigger-show", made["id"])
            expect(form in shown and "2027-03-10" in shown, f"it is shown: {shown}")

    def operations_of_both_types_are_scheduled(self):
        common = f"provider_id={self.provider},plan_id={self.plan}"
        for name, kind, trigger, more in (("all", "protect", "calendar", ""),
                                          ("three", "retention_protect", "crontab", ",max_backups=3"),
                                          ("two-days", "retention_protect", "calendar", ",retention_duration=2")):
            made = self.client.fields("scheduledoperation-create", name, kind, self.triggers[trigger], common + more)
            self.scheduled[name], self.made[name] = made["id"], {}
        rows = {row["Name"]: row for row in self.client.records("scheduledoperation-list")}
        expect(set(rows) == set(self.scheduled), f"they are listed: {rows}")
        expect({name: row["Id"] for name, row in rows.items()} == self.scheduled, f"with their ids: {rows}")

    def each_night_makes_its_checkpoints(self):
        for day in DAYS:
            self.page.write_text(f"day {day}\n")
            at = NOON.replace(hour=2, minute=30) + datetime.timedelta(days=day)
            # Starts are spread over thirty seconds.
            self.clock.set_to(at + datetime.timedelta(seconds=40))
            wait_for(f"the occurrences of day {day}", lambda: self.is_over(day), 60)
            for name in self.scheduled:
                newest = self.runs(name)[0]
                expect(newest["status"] == "succeeded" and len(self.runs(name)) == day, f"{name}, day {day}: {newest}")
                self.made[name][day] = newest["checkpoint_id"]
                expect(self.status(newest["checkpoint_id"]) == "available", f"{name}, day {day}")
            if day == 2:
                self.service.karbor("checkpoint", "hold", self.made["three"][2], "--reason", "the auditors want it")

    def is_over(self, day):
        """Whether all that the night began has ended, retention and its deletions too."""
        runs = [self.runs(name) for name in self.scheduled]
        ended = all(len(run) == day and run[0]["status"] in ("succeeded", "failed", "skipped") for run in runs)
        if not ended:
            return False
        expired = [self.made["three"][one] for one in [1, 3, 4, 5, 6, 7] if one < day][:-2] if day > 2 else []
        expired += [self.made["two-days"][one] for one in range(1, day - 2)]
        operations = self.service.ask("GET", "/operations?kind=delete&limit=100")["operations"]
        return all(any(one["checkpoint_id"] == id and one["state"] == "succeeded" for one in operations) for id in expired)

    def retention_deleted_the_right_ones(self):
        kept = {"all": set(DAYS), "three": {2, 5, 6, 7}, "two-days": {5, 6, 7}}
        listed = {row["Id"]: row for row in self.client.records("checkpoint-list", self.provider, "--plan_id", self.plan)}
        for name, checkpoints in self.made.items():
            for day, id in checkpoints.items():
                wanted = "available" if day in kept[name] else "deleted"
                expect(self.status(id) == wanted, f"{name}, day {day}: it is {self.status(id)}, not {wanted}")
                if wanted == "available":
                    row = listed[id]
                    at = f"2027-03-{10 + day}"
                    expect(row["Status"] == "available" and at in row["Created at"], f"{name}, day {day}: {row}")
                else:
                    expect(listed.get(id, {}).get("Status", "deleted") == "deleted", f"{name}, day {day}: {listed.get(id)}")
        expect(self.status(self.by_hand) == "available", "the one made by hand stays")

    def what_is_restored_is_of_its_day(self):
        for id, day in ((self.by_hand, 0), (self.made["all"][1], 1), (self.made["three"][2], 2), (self.made["two-days"][6], 6)):
            shutil.rmtree(self.page.parent)
            made = self.client.fields("restore-create", self.provider, id, "--parameters-json", '{"Host::Directory": {"in_place": true}}')

            def ended():
                status = self.client.fields("restore-show", made["id"])["status"]
                expect(status in ("in_progress", "success"), f"the restore is {status}")
                return status == "success"
            wait_for("the restore", ended)
            expect(self.page.read_text() == f"day {day}\n", f"day {day}: {self.page.read_text()!r}")

    def the_logs_tell_of_every_run(self):
        rows = self.client.records("operationlog-list")
        for name, checkpoints in self.made.items():
            for day, id in checkpoints.items():
                of = [row for row in rows if row["Checkpoint id"] == id and row["Scheduled Operation Id"] == self.scheduled[name]]
                expect(len(of) == 1, f"{name}, day {day}: {of}")
                shown = self.client.fields("operationlog-show", of[0]["Id"])
                expect(shown["operation_type"] == "protect" and shown["plan_id"] == self.plan, f"{shown}")
                expect(shown["started_at"].startswith(f"2027-03-{10 + day}T02:30") and shown["ended_at"] not in ("-", "None"), f"{shown}")
        by_hand = [row for row in rows if row["Checkpoint id"] == self.by_hand and row["Operation Type"] == "protect"]
        expect([row["Scheduled Operation Id"] for row in by_hand] == ["-"], f"by hand: {by_hand}")

    def what_was_missed_stands_in_the_logs(self):
        """Nobody looked for two nights: the last one is run now, and the one before is told of."""
        self.clock.set_to(NOON + datetime.timedelta(days=9, seconds=1))
        nights = len(DAYS) + 2
        wait_for("the missed nights to be recorded", lambda: all(len(self.runs(name)) == nights for name in self.scheduled), 60)
        # What is caught up is spread over thirty seconds as well.
        self.clock.move(40)
        wait_for("the missed nights", lambda: all(len(self.runs(name)) == nights and self.runs(name)[0]["status"] == "succeeded"
                                                  for name in self.scheduled), 60)
        rows = [row for row in self.client.records("operationlog-list") if row["Status"] == "skipped"]
        expect({row["Scheduled Operation Id"] for row in rows} == set(self.scheduled.values()) and len(rows) == 3, f"{rows}")
        for row in rows:
            shown = self.client.fields("operationlog-show", row["Id"])
            expect((shown["operation_type"], shown["error_info"]) == ("protect", "window_missed"), f"{shown}")
            expect(shown["started_at"].startswith("2027-03-18T02:30") and shown["checkpoint_id"] in ("-", "None"), f"{shown}")

    def what_is_deleted_runs_no_more(self):
        for id in self.scheduled.values():
            self.client.run("scheduledoperation-delete", id)
        expect(not self.client.records("scheduledoperation-list"), "none is listed")
        before = self.service.ask("GET", "/operations?kind=protect&limit=100")["operations"]
        self.clock.set_to(NOON + datetime.timedelta(days=11))
        # The triggers move on without anybody to do something for.
        wait_for("the triggers to move on", lambda: all(
            self.service.ask("GET", f"/triggers/{id}")["trigger_info"]["next_at"] > "2027-03-21T12" for id in self.triggers.values()))
        after = self.service.ask("GET", "/operations?kind=protect&limit=100")["operations"]
        expect(len(before) == len(after) == 1 + 3 * (len(DAYS) + 1), f"{len(before)} and {len(after)} operations")
        for id in self.triggers.values():
            self.client.run("trigger-delete", id)


def main():
    home = Path(tempfile.mkdtemp(prefix="karbor-clients-"))
    week = Week(sys.argv[1], os.path.abspath(sys.argv[2]), home)
    passed, failed = 0, 1
    try:
        week.start()
        cases = [(name.replace("_", " "), getattr(week, name)) for name, case in vars(Week).items()
                 if callable(case) and name.startswith(("a_", "triggers_", "operations_", "each_", "retention_", "what_", "the_"))]
        passed, failed = run_cases(cases)
    except Failed as err:
        print(f"FAILED {err}")
    finally:
        week.service.stop()
        if failed:
            print(week.service.log_tail(30))
        shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
