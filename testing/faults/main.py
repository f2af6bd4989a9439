#!/usr/bin/env python3
"""What goes wrong, end to end: each fault is told clearly, the rest goes on, and nothing is `available` that is not whole.

main.py KARBOR
"""
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "quickstart"))
from postgres import Postgres  # noqa: E402
from service import Failed, Service, run_cases, wait_for  # noqa: E402

CONFIG = "[worker]\npoll-milliseconds = 100\nsweep-delay-seconds = 0\n"
NOBODY = "99999999-9999-4999-8999-999999999999"


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Confined(Service):
    """A service that may not read what its user may not read, also when that user is root, and whose bank is small."""

    def __init__(self, binary, state, config="", bank_bytes=None):
        super().__init__(binary, state, config)
        self.bank_bytes = bank_bytes

    def command(self, words):
        words = [str(word) for word in words]
        if os.geteuid() == 0:
            words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--"] + words
        if self.bank_bytes is None:
            return words
        bank = self.state / "bank"
        bank.mkdir(exist_ok=True)
        script = f'mount -t tmpfs -o size={self.bank_bytes},mode=755 none "$1" && shift && exec "$@"'
        names = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        return ["unshare", *names, "--mount", "--propagation=private", "sh", "-c", script, "sh", bank] + words


class Faults:
    def __init__(self, binary, home):
        self.home, self.data = home, home / "data"
        self.data.mkdir()
        self.service = Confined(binary, home / "state", CONFIG)
        self.postgres = Postgres(home / "postgresql")

    def start(self):
        self.make("web", {"index.html": b"hello", "sub/page.html": b"page"})
        self.make("closed", {"open.txt": b"readable", "secret/key": b"not readable"})
        self.make("busy", {f"kept-{n}": os.urandom(20_000) for n in range(200)})
        (self.data / "disk.img").write_bytes(os.urandom(8 << 20))
        with sqlite3.connect(self.data / "events.db") as db:
            db.execute("CREATE TABLE event (n INTEGER PRIMARY KEY)")
        self.postgres.start()
        self.postgres.sql("postgres", "ALTER ROLE karbor PASSWORD 'right'; CREATE DATABASE shop;")
        (self.postgres.data / "pg_hba.conf").write_text("local all all scram-sha-256\n")
        os.environ["PGPASSWORD"] = "right"
        self.postgres.sql("postgres", "SELECT pg_reload_conf();")
        (self.home / "password").write_text("wrong\n")
        self.service.start()
        self.other = self.service.karbor("-o", "json", "identity", "add-project", "other")
        self.other = json.loads(self.other.stdout)["id"]
        made = self.service.karbor("-o", "json", "identity", "add-token", "--project", "other", "--user", "eve", "--role", "member")
        self.other_token = json.loads(made.stdout)["token"]
        self.other_url = self.service.connection()["url"].replace(self.service.project, self.other)
        self.write_inventory()
        self.provider = next(p["id"] for p in self.ask("GET", "/providers")["providers"] if p["name"] == "Host Provider")
        self.resources = {}
        for kind in ("Directory", "Disk", "SQLite", "PostgreSQL"):
            path = f"/protectables/Host::{kind}/instances"
            listed = wait_for(f"the instances of {kind}", lambda p=path: self.ask("GET", p)["instances"])
            for instance in listed:
                self.resources[instance["name"]] = {key: instance[key] for key in ("id", "type", "name")}

    def make(self, name, files):
        for path, content in files.items():
            path = self.data / name / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def write_inventory(self, without=()):
        parts = []
        for kind, name, file in (("directory", "web", "web"), ("directory", "closed", "closed"),
                                 ("directory", "busy", "busy"), ("disk", "disk", "disk.img"),
                                 ("sqlite", "events", "events.db")):
            if name not in without:
                parts.append(f'[[{kind}]]\nname = "{name}"\nproject = "{self.service.project}"\npath = "{self.data}/{file}"\n')
        parts.append(f'[[postgresql]]\nname = "orders"\nproject = "{self.service.project}"\nhost = "{self.postgres.sockets}"\n'
                     f'port = {self.postgres.port}\nuser = "karbor"\ndatabase = "shop"\npassword-file = "{self.home}/password"\n')
        parts.append(f'[[directory]]\nname = "theirs"\nproject = "{self.other}"\npath = "{self.home}/theirs"\n')
        self.service.inventory("".join(parts))

    # -- what a client does -------------------------------------------------------------------------------------

    def ask(self, *words):
        return self.service.ask(*words)

    def call(self, method, path, body=None, **more):
        return self.service.call(method, path, body, **more)

    def plan(self, *names, parameters=None):
        body = {"plan": {"name": "-".join(names), "provider_id": self.provider, "parameters": parameters or {},
                         "resources": [self.resources[name] for name in names]}}
        return self.ask("POST", "/plans", body)["plan"]["id"]

    def protect(self, plan):
        """Protects, and returns the operation as it ended and the checkpoint."""
        path = f"/providers/{self.provider}/checkpoints"
        id = self.ask("POST", path, {"checkpoint": {"plan_id": plan}})["checkpoint"]["id"]
        ended = self.service.wait_operation(id)
        return ended, self.ask("GET", f"{path}/{id}")["checkpoint"]

    def restore(self, checkpoint, parameters):
        body = {"restore": {"provider_id": self.provider, "checkpoint_id": checkpoint["id"], "parameters": parameters}}
        return self.service.wait_operation(self.ask("POST", "/restores", body)["restore"]["id"])

    def ask_as(self, whom, method, path, body=None):
        status, answer = self.call(method, path, body, **whom)
        expect(status < 300, f"{method} {path} answered {status}: {answer}")
        return answer

    def failed_checkpoint(self, whom, path):
        shown = self.ask_as(whom, "GET", path)["checkpoint"]
        expect(shown["status"] != "available", "another project's instance was protected")
        return shown if shown["status"] == "error" else None

    def refused(self, status, text, method, path, body=None, **more):
        """Makes a request that must be answered with this status and a fault that says this."""
        got, answer = self.call(method, path, body, **more)
        fault = next(iter(answer.values())) if isinstance(answer, dict) else None
        message = fault["message"] if isinstance(fault, dict) and "message" in fault else str(answer)
        expect(got == status and text in message, f"{method} {path} answered {got} {message!r}, not {status} with {text!r}")
        return message

    def failed_with(self, ended, *texts):
        expect(ended["state"] == "failed", f"it {ended['state']}")
        for text in texts:
            expect(text in ended["reason"], f"the reason is {ended['reason']!r}, without {text!r}")

    # -- the cases ----------------------------------------------------------------------------------------------

    def a_file_that_changes_or_disappears_while_it_is_read(self):
        plan, stop = self.plan("busy"), threading.Event()
        growing = self.data / "busy" / "growing"

        def churn():
            n = 0
            while not stop.is_set():
                n += 1
                passing = self.data / "busy" / f"passing-{n % 50}"
                passing.write_bytes(os.urandom(50_000))
                with open(growing, "ab") as file:
                    file.write(os.urandom(200_000))
                    if file.tell() > 20_000_000:
                        file.truncate(0)
                (self.data / "busy" / f"passing-{(n + 25) % 50}").unlink(missing_ok=True)
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            ended, checkpoint = self.protect(plan)
        finally:
            stop.set()
            thread.join()
        expect(ended["state"] == "succeeded" and checkpoint["status"] == "available", f"it {ended['state']}: {ended['reason']}")
        restored = self.restore(checkpoint, {"Host::Directory": {"path": f"{self.data}/busy.restored"}})
        expect(restored["state"] == "succeeded", f"the restore {restored['state']}: {restored['reason']}")
        for kept in (self.data / "busy").glob("kept-*"):
            expect((self.data / "busy.restored" / kept.name).read_bytes() == kept.read_bytes(), f"{kept.name} differs")

    def a_disk_that_changes_while_it_is_read(self):
        plan, stop = self.plan("disk"), threading.Event()

        def write():
            with open(self.data / "disk.img", "r+b", buffering=0) as disk:
                while not stop.is_set():
                    disk.seek(4 << 20)
                    disk.write(os.urandom(512))
        thread = threading.Thread(target=write)
        thread.start()
        try:
            ended, checkpoint = self.protect(plan)
        finally:
            stop.set()
            thread.join()
        self.failed_with(ended, "disk.img", "changed")
        expect(checkpoint["status"] == "error", f"the checkpoint is {checkpoint['status']}")

    def an_unreadable_directory(self):
        secret = self.data / "closed" / "secret"
        secret.chmod(0)
        try:
            ended, checkpoint = self.protect(self.plan("closed", "web"))
            self.failed_with(ended, "closed/secret", "skip_unreadable")
            expect(checkpoint["status"] == "error", f"the checkpoint is {checkpoint['status']}")
            plan = self.plan("closed", parameters={"Host::Directory": {"skip_unreadable": True}})
            ended, checkpoint = self.protect(plan)
            expect(checkpoint["status"] == "available", f"with skip_unreadable it {ended['state']}: {ended['reason']}")
            shown = str(self.ask("GET", f"/operations/{checkpoint['id']}"))
            expect("secret" in shown, "what was left out is named in the operation")
        finally:
            secret.chmod(0o700)

    def a_wrong_password(self):
        ended, checkpoint = self.protect(self.plan("orders"))
        self.failed_with(ended, "password", "inventory")
        expect(checkpoint["status"] == "error", f"the checkpoint is {checkpoint['status']}")
        (self.home / "password").write_text("right\n")
        ended, checkpoint = self.protect(self.plan("orders"))
        expect(checkpoint["status"] == "available", f"with the right one it {ended['state']}: {ended['reason']}")

    def a_plan_with_a_resource_that_is_missing(self):
        body = {"plan": {"name": "x", "provider_id": self.provider, "parameters": {},
                         "resources": [{"id": NOBODY, "type": "Host::Directory", "name": "gone"}]}}
        # As ever, a plan may name what is not there (yet); protecting it says so.
        ended, checkpoint = self.protect(self.ask("POST", "/plans", body)["plan"]["id"])
        self.failed_with(ended, NOBODY, "inventory")
        expect(checkpoint["status"] == "error", f"the checkpoint is {checkpoint['status']}")
        body["plan"]["resources"][0]["type"] = "Host::Nothing"
        self.refused(400, "Host::Nothing", "POST", "/plans", body)
        plan = self.plan("events")
        self.write_inventory(without=["events"])
        path = f"/protectables/Host::SQLite/instances/{self.resources['events']['id']}"
        wait_for("the inventory to be read", lambda: self.call("GET", path)[0] == 404)
        status, answer = self.call("POST", f"/providers/{self.provider}/checkpoints", {"checkpoint": {"plan_id": plan}})
        if status < 300:
            ended = self.service.wait_operation(answer["checkpoint"]["id"])
            self.failed_with(ended, self.resources["events"]["id"], "inventory")
        else:
            expect(status == 404 and self.resources["events"]["id"] in str(answer), f"{status} {answer}")
        self.write_inventory()
        wait_for("the inventory to be read", lambda: self.call("GET", path)[0] == 200)

    def a_body_of_the_wrong_type(self):
        good = {"name": "x", "provider_id": self.provider, "resources": [self.resources["web"]], "parameters": {}}
        for member, wrong in (("name", 5), ("resources", "all"), ("parameters", []), ("provider_id", {"a": 1})):
            self.refused(400, member, "POST", "/plans", {"plan": {**good, member: wrong}})
        self.refused(400, "plan", "POST", "/plans", {"plan": []})
        self.refused(400, "JSON", "POST", "/plans", b'{"plan": ')
        self.refused(400, "JSON", "POST", "/plans", b"\xff\xfe")
        self.refused(400, "plan_id", "POST", f"/providers/{self.provider}/checkpoints", {"checkpoint": {"plan_id": 7}})

    def a_provider_that_is_unknown(self):
        self.refused(404, NOBODY, "GET", f"/providers/{NOBODY}")
        body = {"plan": {"name": "x", "provider_id": NOBODY, "resources": [self.resources["web"]], "parameters": {}}}
        self.refused(400, NOBODY, "POST", "/plans", body)
        self.refused(400, NOBODY, "POST", f"/providers/{NOBODY}/checkpoints", {"checkpoint": {"plan_id": self.plan("web")}})

    def a_second_delete(self):
        _, checkpoint = self.protect(self.plan("web"))
        path = f"/providers/{self.provider}/checkpoints/{checkpoint['id']}"
        operation = self.ask("DELETE", path)["operation_id"]
        self.service.wait_operation(operation)
        status, answer = self.call("DELETE", path)
        expect(status in (404, 409) and "deleted" in str(answer), f"the second delete answered {status} {answer}")
        plan = self.plan("web")
        self.ask("DELETE", f"/plans/{plan}")
        self.refused(404, plan, "DELETE", f"/plans/{plan}")

    def a_restore_over_what_is_there(self):
        _, checkpoint = self.protect(self.plan("web", "events"))
        (self.data / "web" / "index.html").write_bytes(b"newer")
        ended = self.restore(checkpoint, {"Host::Directory": {"in_place": True}, "Host::SQLite": {"in_place": True}})
        self.failed_with(ended, "overwrite")
        expect((self.data / "web" / "index.html").read_bytes() == b"newer", "what was there is left as it was")
        names = sorted(path.name for path in self.data.iterdir() if "karbor" in path.name)
        expect(not names, f"left behind: {names}")
        ended = self.restore(checkpoint, {"Host::Directory": {"in_place": True, "overwrite": True},
                                          "Host::SQLite": {"in_place": True, "overwrite": True}})
        expect(ended["state"] == "succeeded", f"with overwrite it {ended['state']}: {ended['reason']}")
        expect((self.data / "web" / "index.html").read_bytes() == b"hello", "with overwrite it is as it was protected")

    def a_second_project(self):
        plan = self.plan("web")
        _, checkpoint = self.protect(plan)
        restored = self.restore(checkpoint, {"Host::Directory": {"path": f"{self.data}/web.seen"}})
        theirs = {"token": self.other_token, "url": self.other_url}
        id, web = checkpoint["id"], self.resources["web"]
        there = f"/providers/{self.provider}/checkpoints"
        # What is not theirs is told exactly like what does not exist.
        for method, path, unknown, body in (
                ("GET", f"/plans/{plan}", f"/plans/{NOBODY}", None),
                ("PUT", f"/plans/{plan}", f"/plans/{NOBODY}", {"plan": {"name": "mine"}}),
                ("DELETE", f"/plans/{plan}", f"/plans/{NOBODY}", None),
                ("GET", f"/operations/{id}", f"/operations/{NOBODY}", None),
                ("GET", f"/protectables/Host::Directory/instances/{web['id']}", f"/protectables/Host::Directory/instances/{NOBODY}", None)):
            own, missing = self.call(method, path, body, **theirs), self.call(method, unknown, body, **theirs)
            ids = (plan, id, web["id"], restored["id"])
            hidden = str(own)
            for known in ids:
                hidden = hidden.replace(known, NOBODY)
            expect(own[0] == 404 and hidden == str(missing), f"{method} {path} answered {own}, and for nothing {missing}")
        # To old clients a checkpoint of another project is refused as one; from 1.2 on nothing tells that there is one.
        old = {**theirs, "version": None}
        for method in ("GET", "DELETE"):
            message = self.refused(403, "another project", method, f"{there}/{id}", **old)
            expect(self.service.project not in message, message)
            self.refused(404, f"checkpoint {id} does not exist", method, f"{there}/{id}", **theirs)
        for path in ("/plans", "/restores", "/operations", "/operation_logs", "/verifications", f"{there}?all_projects=true", there,
                     "/protectables/Host::Directory/instances", "/plans?all_tenants=1"):
            status, answer = self.call("GET", path, **theirs)
            text = str(answer)
            expect(status in (200, 403), f"{path} answered {status}")
            for known in (plan, id, web["id"], str(self.data), self.service.project):
                expect(known not in text, f"{path} tells another project of {known}")
        body = {"plan": {"name": "x", "provider_id": self.provider, "resources": [web], "parameters": {}}}
        ended = self.ask_as(theirs, "POST", "/plans", body)["plan"]["id"]
        ended = self.ask_as(theirs, "POST", there, {"checkpoint": {"plan_id": ended}})["checkpoint"]["id"]
        ended = wait_for("it to fail", lambda: self.failed_checkpoint(theirs, f"{there}/{ended}"))
        expect("hello" not in str(ended) and str(self.data) not in str(ended), f"it tells {ended}")
        body = {"restore": {"provider_id": self.provider, "checkpoint_id": id, "parameters": {}}}
        self.refused(403, "another project", "POST", "/restores", body, **old)
        self.refused(404, f"checkpoint {id} does not exist", "POST", "/restores", body, **theirs)
        body = {"checkpoint": {"plan_id": plan}}
        self.refused(404, plan, "POST", there, body, **theirs)
        # Their token is for their project alone.
        status, _ = self.call("GET", "/plans", token=self.other_token)
        expect(status in (400, 401, 403, 404), f"the first project's address answered their token with {status}")
        account = self.service.state / "bank" / "accounts" / self.other
        stored = [path for path in (account / "packs").rglob("*") if path.is_file()]
        expect(not stored, f"stored for the other project: {stored}")

    def a_bank_that_is_full(self):
        plan_data = self.data / "big.img"
        plan_data.write_bytes(os.urandom(64 << 20))
        small = Confined(self.service.binary, self.home / "small", CONFIG, bank_bytes=32 << 20)
        small.start()
        try:
            small.inventory(f'[[disk]]\nname = "big"\nproject = "{small.project}"\npath = "{plan_data}"\n'
                            f'[[directory]]\nname = "web"\nproject = "{small.project}"\npath = "{self.data}/web"\n')
            provider = next(p["id"] for p in small.ask("GET", "/providers")["providers"] if p["name"] == "Host Provider")

            def protect(kind):
                instances = wait_for("the inventory", lambda: small.ask("GET", f"/protectables/Host::{kind}/instances")["instances"])
                resource = {key: instances[0][key] for key in ("id", "type", "name")}
                body = {"plan": {"name": kind, "provider_id": provider, "resources": [resource], "parameters": {}}}
                plan = small.ask("POST", "/plans", body)["plan"]["id"]
                path = f"/providers/{provider}/checkpoints"
                id = small.ask("POST", path, {"checkpoint": {"plan_id": plan}})["checkpoint"]["id"]
                ended = small.wait_operation(id, 120)
                return ended, small.ask("GET", f"{path}/{id}")["checkpoint"]
            ended, checkpoint = protect("Disk")
            self.failed_with(ended, "full")
            expect(checkpoint["status"] == "error", f"the checkpoint is {checkpoint['status']}")
            # What the failed one had stored is swept away, and there is room again.
            def room():
                ended, checkpoint = protect("Directory")
                return checkpoint["status"] == "available"
            wait_for("room in the bank again", room, 60)
        finally:
            small.stop()

    def a_service_that_is_listed(self):
        base = self.ask("GET", "/os-services")["services"]
        workers = [service for service in base if service["state"] == "up"]
        expect(workers, f"services: {base}")

    def run(self):
        self.start()
        cases = (self.a_file_that_changes_or_disappears_while_it_is_read, self.a_disk_that_changes_while_it_is_read,
                 self.an_unreadable_directory, self.a_wrong_password, self.a_plan_with_a_resource_that_is_missing,
                 self.a_body_of_the_wrong_type, self.a_provider_that_is_unknown, self.a_second_delete,
                 self.a_restore_over_what_is_there, self.a_second_project, self.a_bank_that_is_full,
                 self.a_service_that_is_listed)
        return run_cases((case.__name__.replace("_", " "), case) for case in cases)

    def close(self):
        self.service.stop()
        self.postgres.stop()


def main():
    home = Path(tempfile.mkdtemp(prefix="karbor-faults-"))
    home.chmod(0o755)
    faults = Faults(os.path.abspath(sys.argv[1]), home)
    try:
        passed, failed = faults.run()
    finally:
        faults.close()
        shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
