#!/usr/bin/env python3
"""Measures the operation engine with many triggers: memory, CPU while nothing is due, start, and a second in which many are.

  bench/scheduler.py [--karbor PATH] [--database sqlite,postgres] [--triggers N] [--due N] [--runs N] [--workers N] ...

A plan, a trigger and a scheduled operation are made through the API, and multiplied in the database: each trigger has an
operation of its own, on a plan of its own, spread over --projects projects. Then, with `karbor serve --role scheduler`:

- start: from the launch to a /healthcheck that is ok, and until an occurrence that is overdue has started (--runs times);
- at rest, for --rest seconds: CPU of the scheduler, in percent of a core, and its memory;
- burst, --runs times: --due of the triggers are due in the same second, and --workers processes with --role worker run what
  is started. The lag is from the second in which they are due to when an occurrence is started; `claimed` is until a worker
  has begun. All must start, each exactly once. With --together one process has both roles, as most do on SQLite.

Everything shares the machine. Preview: cargo run --release -p karbor-recurrence --example preview
"""
import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testing"))
from database import Server  # noqa: E402
from service import Failed, Service, wait_for  # noqa: E402

PROVIDER = "b766f37c-d011-4026-8228-28730d734a3f"
CONFIG = """
[database]
url = "{url}"
[metrics]
listen = "127.0.0.1:0"
[quota]
plans = -1
checkpoints = -1
[scheduler]
jitter-seconds = 0
[[bank]]
name = "files"
url = "{home}/bank"
[[provider]]
id = "{provider}"
name = "No-Op Provider"
bank = "files"
plugins = ["noop"]
[declared]
file = "{home}/things.json"
"""
RESOURCE = {"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "vol-1"}
THINGS = {"types": {RESOURCE["type"]: {"parents": [], "instances": [{"id": RESOURCE["id"], "name": RESOURCE["name"]}]}}}
PATTERN = "7 11 * * *"
TICK = os.sysconf("SC_CLK_TCK")


class Process:
    """A `karbor serve` of some role."""

    def __init__(self, options, home, role, number=0):
        self.log = home / f"{role}-{number}.log"
        self.log.write_text("")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        words = [options.karbor, "serve", "--state-dir", home / "state", "--config", home / "state/karbor.toml", *(word for one in role.split("+") for word in ("--role", one))]
        self.began = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(list(map(str, words)), stdout=log, stderr=log, env=environment, start_new_session=True)
        self.base = wait_for("the process to listen", self.listening)
        wait_for("the process to be healthy", self.healthy)
        self.started = time.monotonic() - self.began

    def listening(self):
        if self.process.poll() is not None:
            raise SystemExit(f"a process ended:\n{self.log.read_text()}")
        found = re.search(r"Watchers are answered on (http://\S+)", self.log.read_text())
        return found and found.group(1)

    def healthy(self):
        try:
            with urllib.request.urlopen(self.base + "/healthcheck", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self):
        """Returns what is resident, and its peak, in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return [int(re.search(rf"{name}:\s+(\d+)", text).group(1)) // 1024 for name in ("VmRSS", "VmHWM")]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Sqlite:
    """Statements on the file that the service uses."""

    def __init__(self, path):
        self.path = path

    def open(self):
        connection = sqlite3.connect(self.path, timeout=60)
        connection.create_function("id_of", 2, id_of, deterministic=True)
        return connection

    def run(self, *statements):
        connection = self.open()
        # What is filled in is nobody's but ours if the machine fails meanwhile.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -500000")
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    def rows(self, statement):
        connection = self.open()
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def columns(self, table):
        return [row[1] for row in self.rows(f"PRAGMA table_info({table})")]

    def numbers(self, count):
        return f"(WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) SELECT i FROM n) AS numbers"

    def settle(self):
        self.run("PRAGMA wal_checkpoint(TRUNCATE)")


class Postgres:
    """Statements by psql."""

    def __init__(self, home):
        # Not Debian's wrapper, which takes longer to start than most statements take.
        psql = sorted(Path("/usr/lib/postgresql").glob("*/bin/psql"))[-1]
        self.words = [psql, "-h", str(home), "-U", "karbor", "-d", "postgres", "-qtA", "-F", "\t", "-v", "ON_ERROR_STOP=1"]

    def psql(self, text):
        done = subprocess.run([*self.words, "-f", "-"], input=text, text=True, capture_output=True)
        if done.returncode:
            raise SystemExit(f"psql: {done.stderr}")
        return done.stdout

    def run(self, *statements):
        self.psql("CREATE OR REPLACE FUNCTION id_of(kind text, i bigint) RETURNS text IMMUTABLE LANGUAGE sql AS "
                  "$$ SELECT md5(kind || i)::uuid::text $$;\n" + "".join(statement + ";\n" for statement in statements))

    def rows(self, statement):
        return [line.split("\t") for line in self.psql(statement + ";").splitlines()]

    def columns(self, table):
        return [row[0] for row in self.rows(f"SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'")]

    def numbers(self, count):
        return f"(SELECT i FROM generate_series(CAST(0 AS BIGINT), {count - 1}) AS i) AS numbers"

    def settle(self):
        self.psql("VACUUM ANALYZE plans; VACUUM ANALYZE triggers; VACUUM ANALYZE scheduled_operations; CHECKPOINT;")


def id_of(kind, number):
    text = hashlib.md5(f"{kind}{number}".encode()).hexdigest()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def make_one(options, home):
    """Makes one plan, trigger and scheduled operation through the API; returns their ids."""
    (home / "things.json").write_text(json.dumps(THINGS))
    service = Service(options.karbor, home / "state", CONFIG.format(url=options.url, home=home, provider=PROVIDER))
    service.command = lambda words: [*map(str, words), "--role", "api"]
    service.start()
    try:
        plan = {"name": "bench", "provider_id": PROVIDER, "parameters": {}, "resources": [RESOURCE]}
        plan = service.ask("POST", "/plans", {"plan": plan})["plan"]["id"]
        properties = {"format": "crontab", "pattern": PATTERN, "window": 900}
        trigger = {"trigger_info": {"name": "bench", "type": "time", "properties": properties}}
        trigger = service.ask("POST", "/triggers", trigger)["trigger_info"]["id"]
        operation = {"name": "bench", "operation_type": "protect", "trigger_id": trigger,
                     "operation_definition": {"plan_id": plan, "provider_id": PROVIDER}}
        operation = service.ask("POST", "/scheduled_operations", {"scheduled_operation": operation})["scheduled_operation"]["id"]
        return plan, trigger, operation
    finally:
        service.stop()


def fill(database, options, one):
    """Makes many of the one, all of them due in two hours to twenty-two, and takes the one away."""
    plan, trigger, operation = one
    minute = int(time.time()) // 60
    at = f"({minute} + 120 + (i * 7919) % 1200)"
    pattern = f"CAST({at} % 60 AS TEXT) || ' ' || CAST({at} / 60 % 24 AS TEXT) || ' * * *'"
    project = f"replace(id_of('project', i % {options.projects}), '-', '')"
    # Who was made after a trigger is due has no part in it.
    made_at = "created_at - 86400000000 + i"

    def many(table, id, changed):
        columns = database.columns(table)
        values = ", ".join(changed.get(column, column) for column in columns)
        return (f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table}, {database.numbers(options.triggers)} "
                f"WHERE id = '{id}'")
    database.run(
        many("plans", plan, {"id": "id_of('plan', i)", "project_id": project, "created_at": made_at}),
        many("triggers", trigger, {"id": "id_of('trigger', i)", "project_id": project, "created_at": made_at,
                                   "properties": f"replace(properties, '{PATTERN}', {pattern})", "next_at": f"{at} * 60000000"}),
        many("scheduled_operations", operation, {
            "id": "id_of('operation', i)", "project_id": project, "created_at": made_at, "trigger_id": "id_of('trigger', i)",
            "operation_definition": f"replace(operation_definition, '{plan}', id_of('plan', i))"}),
        f"DELETE FROM scheduled_operations WHERE id = '{operation}'", f"DELETE FROM triggers WHERE id = '{trigger}'",
        f"DELETE FROM plans WHERE id = '{plan}'")
    database.settle()


def make_due(database, at, first, count):
    """Makes triggers due at a second."""
    hour, minute, second = time.gmtime(at)[3:6]
    # Only what a pattern says is replaced: it is the only text with stars.
    ids = ", ".join(f"'{id_of('trigger', number)}'" for number in range(first, first + count))
    text = database.rows(f"SELECT properties FROM triggers WHERE id = '{id_of('trigger', first)}'")[0][0]
    properties = re.sub(r"\d+ \d+ \* \* \*", f"{minute} {hour} * * * {second}", text)
    database.run(f"UPDATE triggers SET next_at = {at * 1000000}, properties = '{properties}', revision = revision + 1 WHERE id IN ({ids})")


def started(database, at):
    return int(database.rows(f"SELECT COUNT(*) FROM occurrences WHERE occurrence_at = {at * 1000000} AND started_at IS NOT NULL")[0][0])


def measure_start(database, options, home, number):
    """Returns the seconds until a new scheduler is healthy, and until what was overdue has started."""
    at = int(time.time()) - 20 * (number + 1)
    make_due(database, at, options.triggers - 1 - number, 1)
    process = Process(options, home, "scheduler")
    try:
        wait_for("what is overdue to start", lambda: started(database, at) == 1)
        begun = int(database.rows(f"SELECT started_at FROM occurrences WHERE occurrence_at = {at * 1000000}")[0][0]) / 1e6
        return process.started, begun - (time.time() - time.monotonic() + process.began)
    finally:
        process.stop()


def measure_rest(options, scheduler):
    """Returns the CPU of a scheduler that has nothing to do, in percent of a core, and its memory."""
    time.sleep(5)
    cpu, began = scheduler.cpu(), time.monotonic()
    time.sleep(options.rest)
    used = 100 * (scheduler.cpu() - cpu) / (time.monotonic() - began)
    return used, *scheduler.memory()


def measure_burst(database, options, run, processes):
    """Lets many be due at once; prints how late they started."""
    first = run * options.due
    at = int(time.time()) + options.lead
    make_due(database, at, first, options.due)
    if time.time() > at - 1:
        raise SystemExit("the triggers were not changed in time: take a larger --lead")
    before = {name: process.cpu() for name, process in processes.items()}
    time.sleep(max(0, at - time.time()))
    wait_for("all to start", lambda: time.sleep(0.5) or started(database, at) >= options.due, options.patience)
    spent = {name: process.cpu() - before[name] for name, process in processes.items()}
    try:
        wait_for("workers to have begun all", lambda: time.sleep(1) or claimed(database, at) >= options.due, options.claims)
    except Failed as err:
        print(f"burst {run + 1}: {err}", flush=True)
    lags = sorted((int(row[0]) - at * 1000000) / 1e6 for row in database.rows(
        f"SELECT started_at FROM occurrences WHERE occurrence_at = {at * 1000000}"))
    claims = sorted((int(row[0]) - at * 1000000) / 1e6 for row in database.rows(
        f"SELECT o.started_at FROM operations o JOIN occurrences c ON o.occurrence_id = c.id WHERE c.occurrence_at = {at * 1000000} AND o.occurrence_attempt = 1 AND o.started_at IS NOT NULL"))
    operations = int(database.rows(
        "SELECT COUNT(*) FROM operations o JOIN occurrences c ON o.occurrence_id = c.id "
        f"WHERE c.occurrence_at = {at * 1000000} AND o.occurrence_attempt = 1")[0][0])
    failed = database.rows("SELECT reason FROM operations WHERE state = 'failed' LIMIT 1")
    if failed:
        raise SystemExit(f"what was started fails: {failed[0][0]}")
    if not len(lags) == operations == options.due:
        raise SystemExit(f"{options.due} were due, {len(lags)} were started, as {operations} operations")
    claims = claims or [float("nan")]

    def at_rank(values, share):
        return values[min(len(values) - 1, int(share * len(values)))]
    figures = [at_rank(lags, 0.5), at_rank(lags, 0.99), lags[-1], at_rank(claims, 0.5), claims[-1]]
    print(f"burst {run + 1}: {len(lags)} started; p50 {figures[0]:.2f} s, p99 {figures[1]:.2f} s, max {figures[2]:.2f} s; "
          f"claimed p50 {figures[3]:.1f} s, max {figures[4]:.1f} s; CPU until all had started: "
          + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in spent.items()), flush=True)
    return figures


def claimed(database, at):
    return int(database.rows(
        "SELECT COUNT(*) FROM operations o JOIN occurrences c ON o.occurrence_id = c.id "
        f"WHERE c.occurrence_at = {at * 1000000} AND o.occurrence_attempt = 1 AND o.started_at IS NOT NULL")[0][0])


def bench(kind, options):
    home = Path(tempfile.mkdtemp(prefix="karbor-bench-", dir=options.work))
    server, processes = None, {}
    try:
        if kind == "sqlite":
            options.url, database = f"sqlite:{home}/karbor.db", Sqlite(home / "karbor.db")
        else:
            server = Server(kind, home / "server")
            options.url, database = server.url, Postgres(home / "server")
        began = time.monotonic()
        fill(database, options, make_one(options, home))
        print(f"\n{kind}: {options.triggers} triggers with operations and plans, filled in {time.monotonic() - began:.0f} s", flush=True)
        starts = [measure_start(database, options, home, number) for number in range(options.runs)]
        healthy, overdue = (statistics.median(column) for column in zip(*starts))
        print(f"start: healthy after {healthy:.2f} s, what was overdue started after {overdue:.2f} s", flush=True)
        processes["scheduler"] = Process(options, home, "scheduler+worker" if options.together else "scheduler")
        cpu, resident, peak = measure_rest(options, processes["scheduler"])
        print(f"at rest, {options.rest} s: {cpu:.2f} % of a core, {resident} MiB resident, {peak} MiB at its peak", flush=True)
        for number in range(0 if options.together else options.workers):
            processes[f"worker {number + 1}"] = Process(options, home, "worker", number)
        bursts = [measure_burst(database, options, run, processes) for run in range(options.runs)]
        p50, p99, top, claims, last = (statistics.median(column) for column in zip(*bursts))
        resident, peak = processes["scheduler"].memory()
        print(f"{options.due} due in one second: p50 {p50:.2f} s, p99 {p99:.2f} s, max {top:.2f} s; claimed p50 {claims:.1f} s, "
              f"max {last:.1f} s; scheduler {resident} MiB resident, {peak} MiB at its peak", flush=True)
    finally:
        for process in processes.values():
            process.stop()
        if server:
            server.stop()
        if options.keep:
            print(f"kept in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", str(Path.home() / ".cache/karbor-target"))
    parser.add_argument("--karbor", default=f"{target}/release/karbor")
    parser.add_argument("--database", default="sqlite,postgres")
    parser.add_argument("--triggers", type=int, default=1_000_000)
    parser.add_argument("--due", type=int, default=10_000)
    parser.add_argument("--projects", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rest", type=int, default=65, help="seconds; more than a minute, because some work is done once a minute")
    parser.add_argument("--lead", type=int, default=15, help="seconds from when triggers are changed until they are due")
    parser.add_argument("--patience", type=int, default=600, help="seconds to wait for all to start")
    parser.add_argument("--claims", type=int, default=600, help="seconds to wait until workers have begun all")
    parser.add_argument("--together", action="store_true", help="run what is started in the scheduler's own process")
    parser.add_argument("--keep", action="store_true", help="keep the databases and logs")
    parser.add_argument("--work", help="where the databases lie")
    options = parser.parse_args()
    if options.triggers < options.due * options.runs + options.runs:
        parser.error("there must be triggers enough for all runs")
    for kind in options.database.split(","):
        bench(kind, options)


if __name__ == "__main__":
    main()
