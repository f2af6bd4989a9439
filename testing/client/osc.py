#!/usr/bin/env python3
"""Runs the `openstack data protection` commands of python-karborclient against `karbor serve` with Keystone.

osc.py OPENSTACK KARBOR
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from standin import Keystone  # noqa: E402
from service import Failed, Service, run_cases, wait_for  # noqa: E402

NOOP = "b766f37c-d011-4026-8228-28730d734a3f"
VOLUME = "11111111-1111-4111-8111-000000000001"
CONFIG = """
[identity]
kind = "keystone"
[identity.keystone]
auth-url = "{keystone}"
username = "karbor"
password = "secret"
[declared]
file = "{things}"
[worker]
poll-milliseconds = 50
"""


def expect(condition, what):
    if not condition:
        raise Failed(what)


class KeystoneService(Service):
    """A service whose callers are Keystone's, so that it leaves no connection behind."""

    def start(self):
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        with open(self.state / "karbor.log", "ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--state-dir", self.state, "--config", self.state / "karbor.toml", "--listen", "127.0.0.1:0"],
                stdout=log, stderr=log, env=environment, start_new_session=True)

        def address():
            if self.process.poll() is not None:
                raise Failed("the service did not start:\n" + self.log_tail(30))
            return re.search(r"Listening on (http://127\.0\.0\.1:\d+)", (self.state / "karbor.log").read_text())
        self.base = wait_for("the service to listen", address, 120).group(1)

    def connection(self):
        return {"url": f"{self.base}/v1/{self.wanted}", "token": f"admin:{self.wanted}", "project_id": self.wanted}


class Openstack:
    def __init__(self, program, keystone, project):
        self.program = program
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        self.environment |= {
            "OS_AUTH_URL": keystone + "/v3", "OS_USERNAME": "admin", "OS_PASSWORD": "x", "OS_PROJECT_ID": project,
            "OS_USER_DOMAIN_NAME": "Default", "OS_IDENTITY_API_VERSION": "3", "PYTHONWARNINGS": "ignore"}

    def run(self, *words, check=True):
        command = [self.program, "data", "protection", *map(str, words)]
        done = subprocess.run(command, text=True, capture_output=True, env=self.environment)
        if check and done.returncode:
            raise Failed(f"{' '.join(map(str, words))}: {done.stderr.strip()[-500:]}")
        return done

    def json(self, *words):
        return json.loads(self.run(*words, "-f", "json").stdout)

    def rows(self, *words):
        """Returns the rows of a list."""
        return self.json(*words)

    def id(self, *words):
        shown = self.json(*words)
        return shown["id"]


def main():
    program, binary = sys.argv[1:3]
    home = Path(tempfile.mkdtemp(prefix="karbor-osc-"))
    keystone = Keystone()
    things = Path(__file__).resolve().parent.parent / "golden" / "things.json"
    service = KeystoneService(binary, home / "state", CONFIG.format(keystone=keystone.url, things=things))
    project = service.wanted = uuid.uuid4().hex
    client = Openstack(program, keystone.url, project)
    state = {}

    def provider():
        rows = client.rows("provider", "list")
        expect(any(row["Id"] == NOOP and row["Name"] == "No-Op Provider" for row in rows), f"{rows}")
        expect(client.json("provider", "show", NOOP)["name"] == "No-Op Provider", "it is shown")

    def protectable():
        expect({"Protectable type": "OS::Cinder::Volume"} in client.rows("protectable", "list"), "the type is listed")
        expect(client.json("protectable", "show", "OS::Nova::Server")["name"] == "OS::Nova::Server", "it is shown")
        rows = client.rows("protectable", "instance", "list", "OS::Cinder::Volume")
        expect(any(row["Id"] == VOLUME for row in rows), f"{rows}")
        shown = client.json("protectable", "instance", "show", "OS::Cinder::Volume", VOLUME)
        expect(shown["name"] == "vol-1", f"{shown}")

    def plan():
        made = client.json("plan", "create", "nightly", NOOP, f"{VOLUME}=OS::Cinder::Volume=vol-1")
        state["plan"] = made["id"]
        expect(made["status"] == "suspended", f"{made}")
        expect(any(row["Id"] == state["plan"] for row in client.rows("plan", "list")), "it is listed")
        client.run("plan", "update", state["plan"], "--name", "weekly")
        expect(client.json("plan", "show", state["plan"])["name"] == "weekly", "it is renamed")
        expect(client.rows("plan", "list", "--name", "weekly", "--sort", "name:asc"), "it is found by its name")

    def checkpoint():
        made = client.json("checkpoint", "create", NOOP, state["plan"])
        state["checkpoint"] = made["id"]

        def available():
            status = client.json("checkpoint", "show", NOOP, state["checkpoint"])["status"]
            expect(status in ("protecting", "available"), f"status {status}")
            return status == "available"
        wait_for("the checkpoint", available)
        rows = client.rows("checkpoint", "list", NOOP)
        expect(any(row["Id"] == state["checkpoint"] for row in rows), f"{rows}")
        client.run("checkpoint", "reset", "state", NOOP, state["checkpoint"], "--available")

    def run_of(kind, *more):
        made = client.id(kind, "create", NOOP, state["checkpoint"], *more)

        def success():
            shown = client.json(kind, "show", made)
            expect(shown["status"] in ("in_progress", "success"), f"{shown}")
            return shown["status"] == "success"
        wait_for(f"the {kind}", success)
        expect(any(row["Id"] == made for row in client.rows(kind, "list")), "it is listed")

    def restore():
        run_of("restore")

    def verification():
        run_of("verification")

    def operationlog():
        rows = client.rows("operationlog", "list")
        expect(len(rows) == 3, f"{len(rows)} rows")
        shown = client.json("operationlog", "show", rows[0]["Id"])
        expect(shown["checkpoint_id"] == state["checkpoint"], f"{shown}")

    def trigger():
        # `trigger create` of this client never sends anything: it cannot read its own argument. The shell of the same
        # package makes one, and these commands find it.
        failed = client.run("trigger", "create", "daily", "time", "format=crontab,pattern=0 3 * * *,window=900", check=False)
        if failed.returncode:
            body = {"trigger_info": {"name": "daily", "type": "time",
                                     "properties": {"format": "crontab", "pattern": "0 3 * * *", "window": 900}}}
            state["trigger"] = service.ask("POST", "/triggers", body)["trigger_info"]["id"]
        else:
            state["trigger"] = client.rows("trigger", "list")[0]["Id"]
        expect(any(row["Id"] == state["trigger"] for row in client.rows("trigger", "list")), "it is listed")
        expect(client.json("trigger", "show", state["trigger"])["name"] == "daily", "it is shown")
        client.run("trigger", "update", state["trigger"], "--name", "nightly", "--properties", "window=1000", check=False)

    def scheduledoperation():
        definition = f"provider_id={NOOP},plan_id={state['plan']}"
        made = client.id("scheduledoperation", "create", "backup", "protect", state["trigger"], definition)
        expect(any(row["Id"] == made for row in client.rows("scheduledoperation", "list")), "it is listed")
        expect(client.json("scheduledoperation", "show", made)["name"] == "backup", "it is shown")
        client.run("scheduledoperation", "delete", made)
        client.run("trigger", "delete", state["trigger"])
        expect(not client.rows("trigger", "list"), "the trigger is gone")

    def services():
        rows = client.rows("service", "list")
        engine = next(row["Id"] for row in rows if row["Binary"] == "karbor-operationengine")
        client.run("service", "disable", engine, "--reason", "moving")
        row = next(row for row in client.rows("service", "list") if row["Id"] == engine)
        expect((row["Status"], row["Disabled Reason"]) == ("disabled", "moving"), f"{row}")
        # The worker hears of it with its next sign of life; what is asked for after that waits.
        wait_for("the worker to rest", lambda: "starts nothing" in service.log_tail(1000), 30)
        wish = {"checkpoint": {"plan_id": state["plan"]}}
        made = service.ask("POST", f"/providers/{NOOP}/checkpoints", wish)["checkpoint"]["id"]

        def status():
            return service.ask("GET", f"/providers/{NOOP}/checkpoints/{made}")["checkpoint"]["status"]
        expect(status() == "protecting", "nobody takes it")
        client.run("service", "enable", engine)
        wait_for("the worker to wake", lambda: status() == "available", 30)

    def quotas():
        shown = client.json("quotas", "show", "--tenant", project)
        expect(shown["plans"] == 50, f"{shown}")
        client.run("quotas", "update", project, "--plans", "60")
        expect(client.json("quotas", "show", "--tenant", project)["plans"] == 60, "the new quota")
        client.run("quotas", "default", "--tenant", project)
        client.run("quotaclass", "update", "default", "--plans", "70")
        expect(client.json("quotaclass", "show", "default")["plans"] == 70, "the class")

    def deletion():
        client.run("checkpoint", "delete", NOOP, state["checkpoint"])
        wait_for("the checkpoint to be deleted",
                 lambda: client.json("checkpoint", "show", NOOP, state["checkpoint"])["status"] == "deleted")
        client.run("plan", "delete", state["plan"])
        expect(not client.rows("plan", "list"), "the plan is gone")

    passed = failed = 0
    try:
        service.start()
        keystone.names(service.base)
        tests = (provider, protectable, plan, checkpoint, restore, verification, operationlog, trigger, scheduledoperation,
                 services, quotas, deletion)
        passed, failed = run_cases((test.__name__, test) for test in tests)
    finally:
        service.stop()
        keystone.stop()
        if failed:
            print(service.log_tail(15))
        shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
