#!/usr/bin/env python3
"""Bank accounts of two projects: each where an administrator says, opened as they say, wrapped by the key that they name.

main.py KARBOR S3-SERVER

S3-SERVER is the example `s3_server` of the crate karbor-bank.
"""
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from service import Failed, Service, run_cases, wait_for  # noqa: E402
from standin import Keystone  # noqa: E402

FIRST, SECOND = "b766f37c-d011-4026-8228-28730d734a3f", "cf56bd3e-97a7-4078-b6d5-f36246333fd9"
PARAMETERS = {"OS::Cinder::Volume": {"backup_name": "b", "container": "c"}}
SECRET = "this-is-the-secret-of-somebody"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
CONFIG = """
[identity]
kind = "keystone"
[identity.keystone]
auth-url = "{keystone}"
username = "karbor"
password = "secret"
[declared]
file = "{things}"
[keys.named]
finance = "{home}/finance.key"
[worker]
poll-milliseconds = 50
sweep-delay-seconds = 0
[[bank]]
name = "files"
url = "{home}/bank"
[[bank]]
name = "other"
url = "{home}/other"
[[provider]]
id = "{first}"
name = "First"
bank = "files"
plugins = ["declared"]
copy-to = "{second}"
[[provider]]
id = "{second}"
name = "Second"
bank = "other"
plugins = ["declared"]
"""


def expect(condition, what):
    if not condition:
        raise Failed(what)


class At(Service):
    """A service whose callers are Keystone's, so that it leaves no connection behind: its log tells its port."""

    def connection(self):
        text = (self.state / "karbor.log").read_text(errors="replace").rpartition("Listening on http://127.0.0.1:")
        if not text[1]:
            raise KeyError("it does not listen yet")
        text = text[2]
        return {"url": f"http://127.0.0.1:{int(text.split()[0])}/v1/x"}


class S3:
    """An S3 server that lets in `id` with the secret `secret`; it ends with its standard input."""

    def __init__(self, binary):
        self.process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url, self.directory = (self.process.stdout.readline().strip() for _ in range(2))
        self.bucket = Path(self.directory) / "bank"

    def place(self, prefix):
        where, _, settings = self.url.partition("?")
        return f"{where}/{prefix}?{settings}"

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


class Tests:
    def __init__(self, binary, s3_server):
        self.s3 = S3(s3_server)
        self.home = Path(tempfile.mkdtemp(prefix="karbor-accounts-"))
        key = self.home / "finance.key"
        key.touch(0o600)
        key.write_text(secrets.token_hex(32))
        self.keystone = Keystone()
        things = HERE.parent / "golden" / "things.json"
        config = CONFIG.format(keystone=self.keystone.url, things=things, home=self.home, first=FIRST, second=SECOND)
        self.service = At(binary, self.home / "state", config)
        self.service.start()
        self.own, self.other = uuid.uuid4().hex, uuid.uuid4().hex

    def ask(self, method, path, body=None, who="admin", project=None):
        """Returns status and answer; of a fault its message."""
        project = project or self.own
        base = re.match(r"http://[^/]+", self.service.connection()["url"]).group(0)
        request = urllib.request.Request(f"{base}/v1/{project}{path}", method=method)
        request.add_header("X-Auth-Token", f"{who}:{project}")
        request.add_header("OpenStack-API-Version", "data-protect 1.2")
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as err:
            return err.code, next(iter(json.loads(err.read()).values()))["message"]

    def set(self, bank="files", status=200, who="admin", project=None, **change):
        of = f"?project_id={project}" if project else ""
        found, answer = self.ask("PUT", f"/bank_accounts/{bank}{of}", {"bank_account": change}, who)
        expect(found == status, f"{change} was answered {found}: {answer}")
        expect(SECRET not in json.dumps(answer), "a secret comes back")
        return answer["bank_account"] if status == 200 else answer

    def protect(self, project):
        plan = {"plan": {"name": "p", "provider_id": FIRST, "parameters": PARAMETERS, "resources": [
            {"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "v"}]}}
        status, made = self.ask("POST", "/plans", plan, project=project)
        expect(status == 200, f"{status} {made}")
        self.plan = made["plan"]["id"]
        path = f"/providers/{FIRST}/checkpoints"
        status, made = self.ask("POST", path, {"checkpoint": {"plan_id": self.plan}}, project=project)
        expect(status == 200, f"{status} {made}")
        id = made["checkpoint"]["id"]
        self.available(f"{path}/{id}", project)
        return id

    def restores(self, provider, checkpoint, project=None):
        restore = {"restore": {"provider_id": provider, "checkpoint_id": checkpoint, "parameters": {}}}
        status, made = self.ask("POST", "/restores", restore, project=project)
        expect(status == 200, f"{status} {made}")
        path = f"/restores/{made['restore']['id']}"

        def ended():
            found = self.ask("GET", path, project=project)[1]["restore"]
            expect(found["status"] != "fail", f"it failed: {found}")
            return found["status"] == "success"
        wait_for("the restore", ended, 60)

    def available(self, path, project=None):
        def state():
            status, shown = self.ask("GET", path, project=project)
            expect(status == 200, f"{status} {shown}")
            found = shown["checkpoint"]
            expect(found["status"] != "error", f"it failed: {found['reason']}")
            return found["status"] == "available"
        wait_for("the checkpoint", state, 60)

    def defaults_are_the_banks_own(self):
        shown = self.ask("GET", "/bank_accounts/files")[1]["bank_account"]
        expect((shown["place"], shown["has_credentials"], shown["key_source"], shown["quota_bytes"]) == (None, False, "master-key", None), shown)

    def only_an_administrator_changes_them(self):
        self.set(status=403, who="member", place="tenants/x")

    def what_cannot_be_is_refused(self):
        for change, word in (({"place": "../x"}, "below a bank"), ({"place": "/etc"}, "below the directory"), ({"place": "ftp://x"}, "kind of bank"),
                             ({"place": "accounts/x"}, "below a bank"), ({"place": 5}, "place"), ({"key_source": "nobody"}, "finance"),
                             ({"credentials": {"a": "b"}}, "environment"), ({"credentials": {"A": 5}}, "environment"), ({"credentials": {}}, "null"),
                             ({"place": "memory:"}, "memory"), ({"more": 1}, "not known"), ({"quota_bytes": -1}, "bytes")):
            message = self.set(status=400, **change)
            expect(word in message, f"{change}: {message}")
        expect(self.ask("PUT", "/bank_accounts/nowhere", {"bank_account": {"place": None}})[0] == 404, "there is no such bank")

    def each_project_is_where_it_was_put(self):
        expect(self.set(place="tenants/own")["place"] == "tenants/own", "it is shown")
        self.first = self.protect(self.own)
        self.protect(self.other)
        expect((self.home / "bank/tenants/own/accounts" / self.own).is_dir(), "its own place")
        expect(not (self.home / "bank/accounts" / self.own).exists(), "and nowhere else")
        expect((self.home / "bank/accounts" / self.other).is_dir(), "the other's is the bank's own")
        usage = self.ask("GET", "/bank_accounts/files")[1]["bank_account"]["usage"]
        expect(usage["checkpoints"] == 1, f"its usage is asked for there: {usage}")

    def an_account_that_holds_something_is_not_moved(self):
        for place in (None, "tenants/elsewhere", str(self.home / "other/x")):
            message = self.set(status=409, place=place)
            expect("deleted" in message or "in use" in message, message)
        self.set(place="tenants/own")
        self.set(project=self.other, place="tenants/other", status=409)

    def a_key_is_wrapped_by_the_master_key_that_is_named(self):
        expect(self.set(key_source="finance")["key_source"] == "finance", "it is shown")
        place = self.home / "bank/tenants/own"

        def listed(key):
            return self.service.karbor("-o", "json", "bank", "list", place, "--key-file", key, "--account", self.own, check=False)
        done = listed(self.home / "finance.key")
        expect(done.returncode == 0 and self.first in done.stdout, f"{done.stdout}{done.stderr}")
        expect(listed(self.service.state / "master.key").returncode != 0, "the first master key does not open it any more")
        self.protect(self.own)
        self.set(key_source=None)
        expect(listed(self.service.state / "master.key").returncode == 0, "and back")
        self.set(key_source="finance")

    def credentials_are_kept_sealed_and_never_shown(self):
        shown = self.set(credentials={"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": SECRET})
        expect(shown["has_credentials"] and "credentials" not in shown, shown)
        expect(SECRET not in json.dumps(self.ask("GET", "/bank_accounts?all_tenants=1")[1]), "lists do not tell")
        for file in self.service.state.rglob("karbor.*"):
            expect(SECRET.encode() not in file.read_bytes(), f"{file} holds the secret")
        self.protect(self.own)

    def all_of_it_holds_after_a_restart(self):
        self.service.stop()
        self.service.start()
        status, shown = self.ask("GET", "/bank_accounts/files")
        shown = shown["bank_account"]
        expect((status, shown["place"], shown["key_source"], shown["has_credentials"]) == (200, "tenants/own", "finance", True), shown)
        self.protect(self.own)
        self.set(credentials=None)

    def copies_go_where_the_other_banks_account_is(self):
        self.set("other", place=str(self.home / "bank/copies"))
        status, answer = self.ask("POST", f"/providers/{FIRST}/checkpoints/action", {"copy": {"plan_id": self.plan}})
        expect(status == 200 and len(answer["copy"]["checkpoint_id"]) == 1, f"{status} {answer}")
        copy = answer["copy"]["checkpoint_id"][0]["checkpoint_copy_id"]
        self.available(f"/providers/{SECOND}/checkpoints/{copy}")
        expect((self.home / "bank/copies/accounts" / self.own).is_dir(), "the copy is in the place of its own")
        expect(not (self.home / "other/accounts").exists(), "and not in the bank's")
        self.restores(SECOND, copy)

    def an_empty_account_is_moved(self):
        path = f"/providers/{FIRST}/checkpoints"
        for one in self.ask("GET", path)[1]["checkpoints"]:
            expect(self.ask("DELETE", f"{path}/{one['id']}")[0] == 200, "it is deleted")
        wait_for("all to be gone", lambda: self.ask("GET", path)[1]["checkpoints"] == [], 60)

        def moved():
            status, answer = self.ask("PUT", "/bank_accounts/files", {"bank_account": {"place": "tenants/new"}})
            expect(status in (200, 409), f"{status} {answer}")
            return status == 200
        wait_for("the account to be swept and moved", moved, 60)
        self.protect(self.own)
        expect((self.home / "bank/tenants/new/accounts" / self.own).is_dir(), "it is in the new place")

    def an_account_of_its_own_in_s3_is_let_in_by_credentials_of_its_own(self):
        project, place = uuid.uuid4().hex, self.s3.place("tenants/third")
        wrong = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": SECRET}
        message = self.set(project=project, place=place, credentials=wrong, status=400)
        expect("signature" in message.lower() or "denied" in message.lower() or "403" in message, message)
        message = self.set(project=project, place=place.replace("s3://bank/", "s3://nowhere/"), credentials=CREDENTIALS, status=400)
        expect("NoSuchBucket" in message, message)
        shown = self.set(project=project, place=place, credentials=CREDENTIALS, key_source="finance")
        expect((shown["place"], shown["has_credentials"]) == (place, True), shown)
        first = self.protect(project)
        objects = [file for file in (self.s3.bucket / "tenants/third/accounts" / project).rglob("*") if file.is_file()]
        expect(len(objects) > 3, f"what is protected lies there: {objects}")
        expect(not (self.home / "bank/accounts" / project).exists(), "and nowhere else")
        usage = self.ask("GET", "/bank_accounts/files", project=project)[1]["bank_account"]["usage"]
        expect(usage["checkpoints"] == 1 and usage["total_bytes"] > 0, f"its usage is asked for there: {usage}")
        self.service.stop()
        self.service.start()
        self.protect(project)
        self.restores(FIRST, first, project)
        # Anybody who has the keys finds it without this service.
        words = ["-o", "json", "bank", "list", place, "--key-file", self.home / "finance.key", "--account", project]
        found = subprocess.run([self.service.binary, *map(str, words)], text=True, capture_output=True, env={"PATH": os.environ["PATH"], **CREDENTIALS})
        expect(found.returncode == 0 and first in found.stdout, f"{found.stdout}{found.stderr}")
        path = f"/providers/{FIRST}/checkpoints"
        for one in self.ask("GET", path, project=project)[1]["checkpoints"]:
            expect(self.ask("DELETE", f"{path}/{one['id']}", project=project)[0] == 200, "it is deleted")
        wait_for("all to be gone", lambda: self.ask("GET", path, project=project)[1]["checkpoints"] == [], 60)


def main():
    tests = Tests(sys.argv[1], sys.argv[2])
    names = [name for name in vars(Tests) if not name.startswith("_") and name not in ("ask", "set", "protect", "available", "restores")]
    passed = failed = 0
    try:
        passed, failed = run_cases((name, getattr(tests, name)) for name in names)
    finally:
        tests.service.stop()
        tests.keystone.stop()
        tests.s3.stop()
        if failed:
            print(tests.service.log_tail(20))
        shutil.rmtree(tests.home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
