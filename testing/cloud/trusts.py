#!/usr/bin/env python3
"""Rights that outlive a request, on a real Keystone: made, used, taken back, and found again after the process died.

  trusts.py KARBOR     the test cloud must be up (testing/devcloud/up); all that is made there is removed again

A user of an own project asks; the service is another user. The service is killed while it owes trusts, and restores
elsewhere leave no password in its database or log.
"""

import datetime
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]
from apis import KEYSTONE, PASSWORD, Cloud  # noqa: E402
from service import Failed, run_cases, wait_for  # noqa: E402

SERVICE, USER = "trusts-karbor", "trusts-user"
PROVIDER = "6b617262-6f72-4000-8000-0000000001ff"
ELSEWHERE = "open sesame, elsewhere"


def expect(condition, text):
    if not condition:
        raise Failed(text)


class Site:
    """A service on a free port, whose halves can run apart."""

    def __init__(self, binary, state):
        self.binary, self.state, self.process = binary, state, None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (state / "password").write_text(PASSWORD)
        (state / "karbor.toml").write_text(f"""
listen = "127.0.0.1:{self.port}"
[identity]
kind = "keystone"
[identity.keystone]
auth-url = "{KEYSTONE}"
username = "{SERVICE}"
password = "{PASSWORD}"
[openstack]
auth-url = "{KEYSTONE}"
username = "{SERVICE}"
password-file = "{state}/password"
[worker]
poll-milliseconds = 100
[[bank]]
name = "files"
url = "{state}/bank"
[[provider]]
id = "{PROVIDER}"
name = "Nothing"
bank = "files"
plugins = ["noop"]
""")

    def start(self, *roles):
        words = [self.binary, "serve", "--state-dir", self.state, "--config", self.state / "karbor.toml"]
        words += [word for role in roles for word in ("--role", role)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        with open(self.state / "karbor.log", "ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env=environment, start_new_session=True)
        if not roles or "api" in roles:
            wait_for("the service to answer", self.answers, 120)

    def answers(self):
        expect(self.process.poll() is None, "the service ended: " + (self.state / "karbor.log").read_text()[-2000:])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthcheck", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def end(self, number=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(60)

    def sql(self, text, *values):
        with sqlite3.connect(self.state / "karbor.db", timeout=30) as database:
            return database.execute(text, values).fetchall()


class Trusts:
    def __init__(self, binary, state):
        self.admin, self.site, self.state = Cloud("admin"), Site(binary, state), state
        self.clear()
        self.made = []
        default = {"domain_id": "default", "password": PASSWORD}
        service = next(found for found in self.admin.list("identity", "/projects?name=service", "projects"))
        project = self.keep("projects", "project", {"name": USER, "domain_id": "default"})
        roles = {role["name"]: role["id"] for role in self.admin.list("identity", "/roles", "roles")}
        for name, where, role in ((SERVICE, service["id"], "service"), (USER, project["id"], "member")):
            user = self.keep("users", "user", {"name": name, **default})
            self.admin.call("PUT", "identity", f"/projects/{where}/users/{user['id']}/roles/{roles[role]}")
        self.user, self.service = Cloud(USER, USER), Cloud(SERVICE, "service")
        self.volume = self.user.post("volumev3", "/volumes", {"volume": {"size": 1, "name": "trusts"}})["id"]

    def keep(self, kind, member, body):
        made = self.admin.post("identity", f"/{kind}", {member: body})
        self.made.append(f"/{kind}/{made['id']}")
        return made

    def clear(self):
        """Removes what an earlier run left."""
        for name in (SERVICE, USER):
            for kind in ("users", "projects"):
                for found in self.admin.list("identity", f"/{kind}?name={name}", kind):
                    self.admin.delete("identity", f"/{kind}/{found['id']}")

    def close(self):
        self.site.end()
        self.user.delete("volumev3", f"/volumes/{self.volume}")
        wait_for("the volume to be gone", lambda: not self.user.exists("volumev3", f"/volumes/{self.volume}"), 120)
        for path in reversed(self.made):
            self.admin.delete("identity", path)

    def karbor(self, method, path, body=None):
        url = f"http://127.0.0.1:{self.site.port}/v1/{self.user.project}{path}"
        headers = {"X-Auth-Token": self.user.token, "Content-Type": "application/json", "OpenStack-API-Version": "data-protect 1.2"}
        request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
            return json.loads(text) if text else None

    def trusts(self):
        return self.service.list("identity", f"/OS-TRUST/trusts?trustee_user_id={self.service.user_id}", "trusts")

    def make_trigger(self):
        """Makes a trigger that fires once a year."""
        pattern = {"type": "time", "name": "t", "properties": {"format": "crontab", "pattern": "0 0 1 1 *"}}
        return self.karbor("POST", "/triggers", {"trigger_info": pattern})["trigger_info"]["id"]

    def schedule(self, trigger, name):
        """Schedules a protect of the plan."""
        definition = {"provider_id": PROVIDER, "plan_id": self.plan}
        scheduled = {"name": name, "operation_type": "protect", "trigger_id": trigger, "operation_definition": definition}
        return self.karbor("POST", "/scheduled_operations", {"scheduled_operation": scheduled})["scheduled_operation"]["id"]

    def ended(self, id):
        def look():
            operation = self.karbor("GET", f"/operations/{id}")["operation"]
            return operation if operation["state"] in ("succeeded", "failed", "cancelled") else None
        operation = wait_for(f"operation {id} to end", look, 120)
        expect(operation["state"] == "succeeded", f"the operation: {operation}")

    def things_are_listed_by_the_callers_right(self):
        self.site.start("api")
        found = self.karbor("GET", "/protectables/OS::Cinder::Volume/instances")["instances"]
        expect([thing["id"] for thing in found] == [self.volume], f"the user's volumes: {found}")
        expect(not self.trusts(), "nothing is entrusted for a look")

    def an_operation_is_entrusted_and_the_trust_taken_back(self):
        thing = {"id": self.volume, "type": "OS::Cinder::Volume", "name": "trusts"}
        plan = {"name": "trusts", "provider_id": PROVIDER, "resources": [thing], "parameters": {}}
        self.plan = self.karbor("POST", "/plans", {"plan": plan})["plan"]["id"]
        made = self.karbor("POST", f"/providers/{PROVIDER}/checkpoints", {"checkpoint": {"plan_id": self.plan}})
        self.checkpoint = made["checkpoint"]["id"]
        [trust] = self.trusts()
        facts = trust["trustor_user_id"], trust["project_id"], trust["impersonation"]
        expect(facts == (self.user.user_id, self.user.project, True), f"the trust: {trust}")
        # The process that took it dies; another one does the work and gives it back.
        self.site.end(signal.SIGKILL)
        self.site.start()
        self.ended(self.checkpoint)
        wait_for("the trust to be taken back", lambda: not self.trusts())

    def a_trust_whose_id_was_lost_is_found(self):
        self.site.end(signal.SIGKILL)
        now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
        ends = [now + datetime.timedelta(days=days) for days in (500, 501)]
        body = {"trustor_user_id": self.user.user_id, "trustee_user_id": self.service.user_id, "impersonation": True,
                "project_id": self.user.project, "roles": [{"name": "member"}]}
        lost, foreign = (self.user.post("identity", "/OS-TRUST/trusts", {"trust": body | {
            "expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.000000Z")}})["id"] for end in ends)
        micros = int(ends[0].timestamp()) * 1_000_000
        self.site.sql("INSERT INTO delegations (owner_id, owner_kind, project_id, user_id, expires_at, created_at) "
                      "VALUES (?, 'operation', ?, ?, ?, 0)", str(uuid.uuid4()), self.user.project, self.user.user_id, micros)
        self.site.start()
        wait_for("the lost trust to be taken back", lambda: [trust["id"] for trust in self.trusts()] == [foreign])
        wait_for("its note to be removed", lambda: not self.site.sql("SELECT * FROM delegations"))
        self.user.delete("identity", f"/OS-TRUST/trusts/{foreign}")
        expect(lost not in [trust["id"] for trust in self.trusts()], "the lost trust")

    def a_scheduled_operation_keeps_its_trust_until_it_is_deleted(self):
        trigger = self.make_trigger()
        made = self.schedule(trigger, "s")
        expect(len(self.trusts()) == 1, f"one trust for it: {self.trusts()}")
        self.karbor("DELETE", f"/scheduled_operations/{made}")
        wait_for("its trust to be taken back", lambda: not self.trusts())
        self.karbor("DELETE", f"/triggers/{trigger}")

    def a_password_for_elsewhere_is_sealed_and_wiped(self):
        self.site.end()
        self.site.start("api")
        auth = {"type": "password", "username": "somebody", "password": ELSEWHERE, "project_name": "p"}
        restore = {"provider_id": PROVIDER, "checkpoint_id": self.checkpoint, "parameters": {},
                   "restore_target": KEYSTONE, "restore_auth": auth}
        made = self.karbor("POST", "/restores", {"restore": restore})["restore"]
        expect("restore_auth" not in made, f"it is not shown: {made}")
        [(sealed,)] = self.site.sql("SELECT sealed FROM delegations")
        expect(sealed, "it is noted")
        self.site.end()
        self.site.start()
        self.ended(made["id"])
        wait_for("all notes to be removed", lambda: not self.site.sql("SELECT * FROM delegations"))
        wait_for("the trust to be taken back", lambda: not self.trusts())
        for file in self.state.rglob("*"):
            if file.is_file():
                expect(ELSEWHERE.encode() not in file.read_bytes(), f"the password stands in {file}")

    def a_trust_that_the_user_takes_back_fails_its_operation(self):
        self.site.end()
        self.site.start("api")
        made = self.karbor("POST", f"/providers/{PROVIDER}/checkpoints", {"checkpoint": {"plan_id": self.plan}})
        [trust] = self.trusts()
        self.user.delete("identity", f"/OS-TRUST/trusts/{trust['id']}")
        self.site.end()
        self.site.start()
        id = made["checkpoint"]["id"]
        operation = wait_for("the operation to end", lambda: next(
            (found for found in [self.karbor("GET", f"/operations/{id}")["operation"]] if found["state"] == "failed"), None), 120)
        print(f"       the reason: {operation.get('reason')}", flush=True)
        wait_for("its note to be removed", lambda: not self.site.sql("SELECT * FROM delegations"))

    def a_revoked_trust_fails_the_runs_of_its_operation_and_no_others(self):
        trigger = self.make_trigger()
        made = []
        for name in ("kept", "revoked"):
            before = {trust["id"] for trust in self.trusts()}
            id = self.schedule(trigger, name)
            made.append((id, next(trust["id"] for trust in self.trusts() if trust["id"] not in before)))
        self.user.delete("identity", f"/OS-TRUST/trusts/{made[1][1]}")
        for id, _ in made:
            self.karbor("POST", f"/scheduled_operations/{id}/runs", {"run": {}})

        def fate(id):
            [run] = self.karbor("GET", f"/scheduled_operations/{id}/runs")["runs"]
            return (run["status"], run.get("reason")) if run["status"] in ("succeeded", "failed", "skipped") else None
        fates = [wait_for("a run to end", lambda id=id: fate(id), 120) for id, _ in made]
        expect(fates == [("succeeded", None), ("failed", "trust_revoked")], f"what became of them: {fates}")
        for id, _ in made:
            self.karbor("DELETE", f"/scheduled_operations/{id}")
        wait_for("both trusts to be taken back", lambda: not self.trusts())
        self.karbor("DELETE", f"/triggers/{trigger}")


def main():
    with tempfile.TemporaryDirectory(prefix="karbor-trusts-") as directory:
        trusts = Trusts(os.path.abspath(sys.argv[1]), Path(directory))
        try:
            names = [name for name, value in vars(Trusts).items() if callable(value) and name.startswith(("a_", "an_", "things_"))]
            passed, failed = run_cases([(name.replace("_", " "), getattr(trusts, name)) for name in names])
            if failed:
                print((trusts.state / "karbor.log").read_text()[-3000:])
        finally:
            trusts.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
