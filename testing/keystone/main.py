#!/usr/bin/env python3
"""Asks a Karbor with tokens of a real Keystone.

main.py KARBOR OLD_CLIENT OPENSTACK

Projects, users, roles and the catalog's entry are made in the running Keystone and removed again. Karbor reaches it by
way of a relay, which counts what is asked, and which can be taken away.
"""
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from service import Failed, Service, run_cases, wait_for  # noqa: E402

KEYSTONE = ("127.0.0.1", 5000)
PASSWORD = "devcloud"
NOOP = "b766f37c-d011-4026-8228-28730d734a3f"
CACHE_SECONDS = 2
CONFIG = """
[identity]
kind = "keystone"
[identity.keystone]
auth-url = "http://127.0.0.1:{relay}/v3"
public-auth-url = "http://127.0.0.1:5000/v3"
username = "karbor"
password = "devcloud"
project-name = "service"
cache-seconds = {cache}
timeout-seconds = 5
[worker]
poll-milliseconds = 100
[[bank]]
name = "files"
url = "{home}/bank"
[[provider]]
id = "{noop}"
name = "No-Op Provider"
bank = "files"
plugins = ["noop"]
"""


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Relay:
    """Passes connections on to Keystone, while it is there."""

    def __init__(self):
        self.listener, self.asked, self.open = None, [], set()
        self.port = 0
        self.start()

    def start(self):
        self.listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection(KEYSTONE)
            self.open |= {client, server}
            threading.Thread(target=self.pass_on, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(server, client, False), daemon=True).start()

    def pass_on(self, source, target, is_request):
        try:
            while data := source.recv(65536):
                if is_request:
                    self.asked += [line for line in data.split(b"\r\n") if line.startswith((b"GET ", b"POST "))]
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.open:
            one.close()
        self.open.clear()


class Cloud:
    """The real Keystone, as its administrator, and what was made in it."""

    def __init__(self):
        self.token = self.login("admin", project="admin")
        self.made, self.switched_off = [], []
        self.mark = uuid.uuid4().hex[:8]
        self.roles = {role["name"]: role["id"] for role in self.ask("GET", "/roles")["roles"]}
        self.project, self.other = self.make("projects", "project", name=f"karbor-{self.mark}")["id"], \
            self.make("projects", "project", name=f"karbor-other-{self.mark}")["id"]
        self.users = {}
        for name, project, role in (("boss", self.project, "admin"), ("member", self.project, "member"), ("reader", self.project, "reader"),
                                    ("leaver", self.project, "member"), ("stranger", self.other, "member")):
            user = self.make("users", "user", name=f"{name}-{self.mark}", password=PASSWORD)["id"]
            self.users[name] = user
            self.ask("PUT", f"/projects/{project}/users/{user}/roles/{self.roles[role]}")
        self.ask("PUT", f"/domains/default/users/{self.users['member']}/roles/{self.roles['member']}")

    def call(self, method, path, body=None, token=None):
        client = http.client.HTTPConnection(*KEYSTONE, timeout=60)
        headers = {"Content-Type": "application/json"}
        if token or self.__dict__.get("token"):
            headers["X-Auth-Token"] = token or self.token
        client.request(method, "/v3" + path, None if body is None else json.dumps(body), headers)
        answer = client.getresponse()
        text = answer.read()
        client.close()
        return answer, json.loads(text) if text else None

    def ask(self, method, path, body=None, token=None):
        answer, found = self.call(method, path, body, token)
        if answer.status >= 300:
            raise Failed(f"{method} {path} at Keystone answered {answer.status}: {found}")
        return found

    def make(self, collection, kind, **members):
        made = self.ask("POST", f"/{collection}", {kind: members})[kind]
        self.made.append(f"/{collection}/{made['id']}")
        return made

    def login(self, user, scope=None, project=None, identity=None):
        """Returns a token."""
        if scope is None and project:
            scope = {"project": {"name": project, "domain": {"id": "default"}}}
        identity = identity or {"methods": ["password"], "password": {"user": {
            "name": user, "password": PASSWORD, "domain": {"id": "default"}}}}
        auth = {"auth": {"identity": identity, **({"scope": scope} if scope else {})}}
        answer, found = self.call("POST", "/auth/tokens", auth)
        if answer.status != 201:
            raise Failed(f"logging in as {user} answered {answer.status}: {found}")
        return answer.headers["X-Subject-Token"]

    def of(self, name, scope=None):
        """Returns a token of one of the users, for the project where they have a role."""
        project = self.other if name == "stranger" else self.project
        return self.login(f"{name}-{self.mark}", scope or {"project": {"id": project}})

    def remove(self):
        for service in self.switched_off:
            self.call("PATCH", f"/services/{service}", {"service": {"enabled": True}})
        for path in reversed(self.made):
            self.call("DELETE", path)


class Tests:
    def __init__(self, binary, old_client, openstack):
        self.old_client, self.openstack = old_client, openstack
        self.home = Path(tempfile.mkdtemp(prefix="karbor-keystone-"))
        self.cloud, self.relay = Cloud(), Relay()
        config = CONFIG.format(relay=self.relay.port, cache=CACHE_SECONDS, home=self.home, noop=NOOP)
        self.service = At(binary, self.home / "state", config)
        self.service.start()
        self.tokens = {name: self.cloud.of(name) for name in self.cloud.users}

    def ask(self, token, method="GET", path="/plans", body=None, project=None, headers=()):
        """Returns status, headers, and the body or the fault's message."""
        client = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=60)
        sent = {"Content-Type": "application/json", **dict(headers)}
        if token is not None:
            sent["X-Auth-Token"] = token
        client.request(method, f"/v1/{project or self.cloud.project}{path}", None if body is None else json.dumps(body), sent)
        answer = client.getresponse()
        text = answer.read()
        client.close()
        found = json.loads(text) if text else None
        if answer.status >= 400:
            fault = next(iter(found.values()))
            expect(fault["code"] == answer.status and fault["message"], f"{answer.status} {found}")
            return answer.status, answer.headers, fault["message"]
        return answer.status, answer.headers, found

    def refused(self, token, status, word, **more):
        found, headers, message = self.ask(token, **more)
        expect(found == status and word in message, f"{status} with `{word}` was expected, not {found}: {message}")
        if status == 401:
            expect("http://127.0.0.1:5000/v3" in headers["WWW-Authenticate"], f"no challenge: {headers['WWW-Authenticate']}")

    def roles_decide(self):
        plan = {"plan": {"name": "p", "provider_id": NOOP, "parameters": {}, "resources": [
            {"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "v"}]}}
        status, _, made = self.ask(self.tokens["member"], "POST", body=plan)
        expect(status == 200, f"{status} {made}")
        self.plan = made["plan"]["id"]
        for name, status in (("boss", 200), ("member", 403), ("reader", 403)):
            expect(self.ask(self.tokens[name], path="/os-services")[0] == status, f"services as {name}")
            expect(self.ask(self.tokens[name], path=f"/plans/{self.plan}")[0] == 200, f"the plan as {name}")

    def other_projects_are_closed(self):
        self.refused(self.tokens["stranger"], 400, "project")
        self.refused(self.tokens["stranger"], 404, "does not exist", path=f"/plans/{self.plan}", project=self.cloud.other)
        expect(self.ask(self.tokens["stranger"], project=self.cloud.other)[2] == {"plans": []}, "its own list is empty")

    def what_is_no_token_for_a_project_is_refused(self):
        self.refused(None, 401, "X-Auth-Token")
        self.refused("", 401, "empty")
        self.refused("gAAAAAB-no-such-token", 401, "not valid")
        self.refused(self.cloud.login(f"member-{self.cloud.mark}"), 401, "for no project")
        domain = self.cloud.login(f"member-{self.cloud.mark}", {"domain": {"id": "default"}})
        self.refused(domain, 401, "for a domain")
        self.refused(self.cloud.login("admin", {"system": {"all": True}}), 401, "for the system")

    def an_application_credential_is_a_caller(self):
        user = self.cloud.users["member"]
        made = self.cloud.ask("POST", f"/users/{user}/application_credentials", {"application_credential": {
            "name": "nightly", "roles": [{"name": "member"}]}}, token=self.tokens["member"])["application_credential"]
        token = self.cloud.login("it", identity={"methods": ["application_credential"], "application_credential": {
            "id": made["id"], "secret": made["secret"]}})
        expect(self.ask(token, path=f"/plans/{self.plan}")[0] == 200, "it sees its project's plan")
        expect(self.ask(token, path="/os-services")[0] == 403, "it is no administrator")

    def keystone_is_asked_once_per_token_and_time(self):
        token = self.cloud.of("member")
        before = len(self.asked())
        for _ in range(20):
            expect(self.ask(token)[0] == 200, "it is let in")
        expect(len(self.asked()) == before + 1, f"{len(self.asked()) - before} questions for 20 requests")
        wait_for("the answer to be forgotten", lambda: self.ask(token)[0] == 200 and len(self.asked()) > before + 1, 30)

    def asked(self):
        return [line for line in self.relay.asked if b"/auth/tokens" in line and line.startswith(b"GET ")]

    def a_revoked_token_is_refused_within_the_bound(self):
        token = self.cloud.of("member")
        expect(self.ask(token)[0] == 200, "it is let in")
        client = http.client.HTTPConnection(*KEYSTONE, timeout=60)
        client.request("DELETE", "/v3/auth/tokens", headers={"X-Auth-Token": self.cloud.token, "X-Subject-Token": token})
        expect(client.getresponse().status == 204, "it is revoked")
        began = time.monotonic()
        wait_for("the revocation to be heeded", lambda: self.ask(token)[0] == 401, 60)
        # Without the bound of what is kept it would be let in to the end of its life, an hour.
        print(f"       heeded after {time.monotonic() - began:.1f} s, kept for {CACHE_SECONDS}")
        self.refused(token, 401, "not valid")

    def a_disabled_user_is_refused(self):
        token = self.cloud.of("leaver")
        expect(self.ask(token)[0] == 200, "they are let in")
        self.cloud.ask("PATCH", f"/users/{self.cloud.users['leaver']}", {"user": {"enabled": False}})
        wait_for("it to be heeded", lambda: self.ask(token)[0] == 401, 60)

    def an_expired_token_is_refused_unless_a_service_stands_beside(self):
        """Keystone's tokens live for an hour; one that a service's application credential ends sooner lives as long as that."""
        user = self.cloud.users["member"]
        end = time.time() + 8
        made = self.cloud.ask("POST", f"/users/{user}/application_credentials", {"application_credential": {
            "name": "short", "expires_at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end))}},
            token=self.tokens["member"])["application_credential"]
        token = self.cloud.login("it", identity={"methods": ["application_credential"], "application_credential": {
            "id": made["id"], "secret": made["secret"]}})
        document = self.cloud.call("GET", "/auth/tokens", token=token)
        del document
        beside = {"X-Service-Token": self.cloud.login("karbor", project="service")}
        expect(self.ask(token)[0] == 200, "it is let in while it lives")
        wait_for("the token to expire", lambda: self.ask(token)[0] == 401, 60)
        status, _, message = self.ask(token, headers=beside)
        expect(status == 200, f"with a service's token beside it is let in: {status} {message}")
        self.refused(token, 401, "X-Service-Token", headers={"X-Service-Token": self.tokens["member"]})
        self.refused(token, 401, "X-Service-Token", headers={"X-Service-Token": "nonsense"})
        self.refused("nonsense", 401, "not valid", headers=beside)

    def an_absent_keystone_is_told_apart_and_its_return_noticed(self):
        known, fresh = self.cloud.of("member"), self.cloud.of("reader")
        expect(self.ask(known)[0] == 200, "it is let in")
        self.relay.stop()
        expect(self.ask(known)[0] == 200, "who was asked about a moment ago is still known")
        status, headers, message = self.ask(fresh)
        expect(status == 503 and "identity" in message, f"{status} {message}")
        expect(headers["Retry-After"] is None, "the old clients fail over that header")
        status, headers, _ = self.ask(fresh, headers={"OpenStack-API-Version": "data-protect 1.1"})
        expect(status == 503 and headers["Retry-After"] == "5", f"{status} {headers['Retry-After']}")
        expect(urllib.request.urlopen(f"http://127.0.0.1:{self.service.port}/healthcheck").status == 200, "it is well itself")
        self.relay.start()
        wait_for("Keystone to be found again", lambda: self.ask(fresh)[0] == 200, 30)

    def the_old_clients_find_it_in_the_catalog(self):
        # The OpenStack client takes the first entry that it finds, of whichever region.
        for other in self.cloud.ask("GET", "/services?type=data-protect")["services"]:
            if other["enabled"]:
                self.cloud.ask("PATCH", f"/services/{other['id']}", {"service": {"enabled": False}})
                self.cloud.switched_off.append(other["id"])
        service = self.cloud.make("services", "service", name=f"karbor-{self.cloud.mark}", type="data-protect")["id"]
        url = f"http://127.0.0.1:{self.service.port}/v1/%(project_id)s"
        region = f"karbor-{self.cloud.mark}"
        self.cloud.make("regions", "region", id=region)
        for interface in ("public", "internal", "admin"):
            self.cloud.make("endpoints", "endpoint", service_id=service, interface=interface, region_id=region, url=url)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        environment.update(
            OS_AUTH_URL="http://127.0.0.1:5000/v3", OS_IDENTITY_API_VERSION="3", OS_USERNAME=f"member-{self.cloud.mark}",
            OS_PASSWORD=PASSWORD, OS_PROJECT_NAME=f"karbor-{self.cloud.mark}", OS_USER_DOMAIN_NAME="Default",
            OS_PROJECT_DOMAIN_NAME="Default", OS_USER_DOMAIN_ID="default", OS_PROJECT_DOMAIN_ID="default", OS_REGION_NAME=region)
        for words in ([self.old_client, "plan-list"], [self.old_client, "plan-show", self.plan],
                      [self.openstack, "data", "protection", "plan", "list"],
                      [self.openstack, "data", "protection", "plan", "show", self.plan]):
            done = subprocess.run(words, env=environment, text=True, capture_output=True)
            expect(done.returncode == 0 and self.plan in done.stdout, f"{' '.join(words)}: {done.stdout}{done.stderr}")
        environment["OS_PASSWORD"] = "wrong"
        done = subprocess.run([self.old_client, "plan-list"], env=environment, text=True, capture_output=True)
        expect(done.returncode != 0, "a wrong password is refused")


class At(Service):
    """A service whose callers are Keystone's, so that it leaves no connection behind: its log tells its port."""

    def connection(self):
        text = (self.state / "karbor.log").read_text(errors="replace").rpartition("Listening on http://127.0.0.1:")
        if not text[1]:
            raise KeyError("it does not listen yet")
        text = text[2]
        return {"url": f"http://127.0.0.1:{int(text.split()[0])}/v1/x"}

    @property
    def port(self):
        return int(self.connection()["url"].split(":")[2].split("/")[0])


def main():
    tests = Tests(*sys.argv[1:4])
    passed = failed = 0
    names = [name for name in vars(Tests) if not name.startswith("_") and name not in ("ask", "asked", "refused")]
    try:
        passed, failed = run_cases((name, getattr(tests, name)) for name in names)
    finally:
        tests.service.stop()
        tests.cloud.remove()
        if failed:
            print(tests.service.log_tail(20))
        shutil.rmtree(tests.home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
