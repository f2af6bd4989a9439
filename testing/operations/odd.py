#!/usr/bin/env python3
"""Sends what nobody should send to a service on each of the three databases: never a 5xx, always a fault with its reason.

  testing/operations/odd.py KARBOR [DATABASE ...]

Queries (sort keys, markers, filters, pages) with odd values on every list, ids in every place of every address, members
of every body replaced by odd values, and bodies that are no JSON. The service must be well afterwards.
"""
import http.client
import json
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from database import Server  # noqa: E402
from service import Failed, Service, run_cases  # noqa: E402

NOOP = "b766f37c-d011-4026-8228-28730d734a3f"
DEAD = "deadbeef-dead-4eef-8ead-beefdeadbeef"
CONFIG = f"""
[database]
url = "%s"
[[bank]]
name = "files"
url = "%s"
[[provider]]
id = "{NOOP}"
name = "No-Op Provider"
bank = "files"
plugins = ["noop"]
"""
TEXTS = ["", " ", "\0", "a\0b", "\ud800", "\x7f\x1b[0m", "\u202e", "💥" * 100, "é" * 255, "x" * 256, "x" * 70000, "'; DROP TABLE plans; --",
         '"', "%", "%%s", "_", "\\", "{}", "[1]", "{'a': 'b'}", "None", "True", "NaN", "Infinity", "-0", "0x10", "1e309", "1_000",
         "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 400, "٣", "2020-01-01", "9999-12-31",
         "-9999-01-01", "2020-02-30", "0000-00-00", "../../etc/passwd", "a\r\nX-Injected: yes", "<script>", DEAD, "\ufeff"]
VALUES = [None, True, False, 0, -1, 2**31, 2**63 - 1, 2**63, -2**63, 2**64, 10**30, 0.5, 1e308, [], [[]], {}, {"": None}, [None] * 100,
          {"a": {"b": {"c": [1, {"d": "\0"}]}}}, *TEXTS[:14], "1" * 400, {"x" * 300: "y"}, {"__proto__": 1}, {"\0": 1}]
LISTS = ["plans", "restores", "verifications", "triggers", "scheduled_operations", "operation_logs", "operations", "providers",
         f"providers/{NOOP}/checkpoints", "protectables", "protectables/OS::Cinder::Volume/instances", "os-services",
         "bank_accounts", "bank_accounts/files"]
NAMES = ["limit", "offset", "marker", "sort", "sort_key", "sort_dir", "name", "description", "status", "state", "kind", "type",
         "properties", "plan_id", "checkpoint_id", "provider_id", "project_id", "all_tenants", "start_date", "end_date", "parameters",
         "trigger_id", "operation_type", "operation_definition", "enabled", "created_at", "updated_at", "deleted", "id", "host",
         "binary", "restore_id", "started_at", "resources_status"]
PLACES = ["plans/{}", "restores/{}", "verifications/{}", "triggers/{}", "scheduled_operations/{}", "operation_logs/{}", "providers/{}",
          "providers/{}/checkpoints", f"providers/{NOOP}/checkpoints/{{}}", "os-services/{}", "operations/{}", "operations/{}/resources",
          "quotas/{}", "quotas/{}/detail", "quota_classes/{}", "protectables/{}", "protectables/{}/instances",
          "protectables/OS::Cinder::Volume/instances/{}", "bank_accounts/{}", "bank_accounts/files?project_id={}"]
RESOURCE = {"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "v", "extra_info": {"a": 1}}
PATTERN = "BEGIN:VEVENT\nRRULE:FREQ=DAILY\nEND:VEVENT"
BODIES = [
    ("POST", "plans", {"plan": {"name": "p", "description": "d", "provider_id": NOOP, "resources": [RESOURCE],
                                "parameters": {"OS::Cinder::Volume": {"a": "b"}}}}),
    ("PUT", "plans/<plan>", {"plan": {"name": "p", "description": "d", "status": "suspended", "resources": [RESOURCE]}}),
    ("POST", f"providers/{NOOP}/checkpoints", {"checkpoint": {"plan_id": "<plan>", "extra-info": {"a": "b"}}}),
    ("POST", f"providers/{NOOP}/checkpoints/action", {"copy": {"plan_id": "<plan>", "parameters": {}, "target_provider_id": NOOP}}),
    ("PUT", f"providers/{NOOP}/checkpoints/{DEAD}", {"os-resetState": {"state": "error"}}),
    ("POST", "restores", {"restore": {"provider_id": NOOP, "checkpoint_id": DEAD, "parameters": {}, "restore_target": "t",
                                      "restore_auth": {"a": "b"}, "dry_run": True}}),
    ("POST", "verifications", {"verification": {"provider_id": NOOP, "checkpoint_id": DEAD, "parameters": {}, "mode": "sample",
                                                "sample_percent": 1}}),
    ("POST", "triggers", {"trigger_info": {"name": "t", "type": "time", "properties": {
        "format": "calendar", "pattern": PATTERN, "start_time": "2030-01-01 00:00:00", "end_time": "2031-01-01 00:00:00",
        "window": 900}}}),
    ("PUT", "triggers/<trigger>", {"trigger_info": {"name": "t", "type": "time", "properties": {"pattern": PATTERN, "window": 900}}}),
    ("POST", "scheduled_operations", {"scheduled_operation": {
        "name": "s", "description": "d", "operation_type": "retention_protect", "trigger_id": "<trigger>",
        "operation_definition": {"plan_id": "<plan>", "provider_id": NOOP, "max_backups": 1, "retention_duration": 1, "x": "y"}}}),
    ("PUT", "os-services/1", {"status": "enabled", "disabled_reason": None}),
    ("PUT", "quotas/<project>", {"quota": {"plans": -1, "checkpoints": -1}}),
    ("PUT", "quota_classes/c", {"quota_class": {"plans": 5, "checkpoints": 5}}),
    ("PUT", "bank_accounts/files", {"bank_account": {"quota_bytes": None}}),
    ("POST", f"operations/{DEAD}/action", {"cancel": {}}),
]
RAW = [b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b"{", b'{"plan":{"name":"a","name":"b"}}', b'{"plan": {"name": 1e999}}', b"[" * 100000,
       b'{"a":' * 200 + b"1" + b"}" * 200, b'"\\ud800"', b"nul", b"\x00", b"{}{}", b'{"plan": ' + b"9" * 5000 + b"}", b'{"plan":{}}\x00',
       b"'x'", b"{'plan': 1}", b'{"plan": NaN}']


class Odd:
    def __init__(self, service):
        self.service = service
        self.url = urlsplit(service.connection()["url"])
        self.token = service.connection()["token"]
        self.connection = None
        plan = service.ask("POST", "/plans", BODIES[0][2])["plan"]["id"]
        trigger = service.ask("POST", "/triggers", BODIES[7][2])["trigger_info"]["id"]
        self.ids = {"<plan>": plan, "<trigger>": trigger, "<project>": service.project}

    def filled(self, value):
        text = json.dumps(value)
        for name, id in self.ids.items():
            text = text.replace(name, id)
        return text

    def send(self, method, path, body=None):
        headers = {"X-Auth-Token": self.token, "OpenStack-API-Version": "data-protect latest"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        path = f"{self.url.path}/{path}"
        for last in (False, True):
            if self.connection is None:
                self.connection = http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=60)
            try:
                self.connection.request(method, path, body, headers)
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except (OSError, http.client.HTTPException):
                # A request that is too long ends its connection, and the next one finds that out.
                self.connection = None
                if last and len(path) < 60000:
                    raise
        else:
            return
        where = f"{method} {path[:200]} {(body or b'')[:300]!r} answers {answer.status}: {text[:300]!r}"
        if answer.status >= 500:
            raise Failed(where)
        if answer.status >= 400 and text:
            fault = next(iter(json.loads(text).values()))
            if fault["code"] != answer.status or not fault["message"]:
                raise Failed(where)
        if answer.headers.get("x-injected"):
            raise Failed(where)

    def queries(self):
        for path in LISTS:
            for name in NAMES:
                for text in TEXTS:
                    if len(text) > 60000:
                        continue
                    self.send("GET", f"{path}?{name}={quote(text.encode('utf-8', 'surrogatepass'))}")
            for query in ["limit", "=", "&&&", "limit=1&limit=x", "%ff=%ff", "%", "sort=id:asc,id:desc,id", "sort=" + "id," * 500 + "id",
                          "a=b&" * 3000, "marker=" + self.ids["<plan>"], "project_id[]=x", "limit=%31", "status=a&status=b"]:
                self.send("GET", f"{path}?{query}")
            for key in ["id", "name", "status", "created_at", "updated_at", "project_id", "deleted", "properties", "parameters", "rowid",
                        "1", "id;", "id--", "(select 1)", "plans.id", "*"]:
                for direction in ["asc", "desc"]:
                    self.send("GET", f"{path}?sort={quote(key)}:{direction}&limit=1&marker={self.ids['<plan>']}")

    def addresses(self):
        for place in PLACES:
            for text in TEXTS:
                path = place.format(quote(text.encode("utf-8", "surrogatepass"), safe=""))
                for method in ("GET", "PUT", "DELETE", "POST"):
                    if method == "DELETE" and place.startswith("quotas") and text == DEAD:
                        continue
                    self.send(method, path, b"{}" if method in ("PUT", "POST") else None)

    def bodies(self):
        for method, path, body in BODIES:
            path = self.filled(path)[1:-1]
            self.send(method, path, self.filled(body).encode())
            for raw in RAW:
                self.send(method, path, raw)
            for value in VALUES:
                for changed in bent(body, value):
                    self.send(method, path, self.filled(changed).encode())
                if isinstance(value, str):
                    for changed in renamed(body, value):
                        self.send(method, path, self.filled(changed).encode())

    def well(self):
        self.service.ask("GET", "/plans?limit=1")
        self.service.ask("GET", f"/plans/{self.ids['<plan>']}")
        log = (self.service.state / "karbor.log").read_text(errors="replace")
        if "ERROR" in log or "panicked" in log:
            raise Failed("the log tells of faults:\n" + "\n".join(line for line in log.splitlines() if "ERROR" in line)[:2000])


def bent(value, odd):
    """Returns the value with each of its parts in turn replaced."""
    yield odd
    if isinstance(value, dict):
        for name, inner in value.items():
            for changed in bent(inner, odd):
                yield {**value, name: changed}
        yield {**value, "more": odd}
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for changed in bent(inner, odd):
                yield value[:index] + [changed] + value[index + 1:]


def renamed(value, name):
    """Returns the value with one more member of that name at each level."""
    if isinstance(value, dict):
        yield {**value, name: "x"}
        for known, inner in value.items():
            for changed in renamed(inner, name):
                yield {**value, known: changed}


def main():
    binary, kinds = sys.argv[1], sys.argv[2:] or ["sqlite", "postgres", "mariadb"]
    passed = failed = 0
    for kind in kinds:
        home = Path(tempfile.mkdtemp(prefix="karbor-odd-"))
        server = None
        try:
            url = f"sqlite:{home}/karbor.db"
            if kind != "sqlite":
                server = Server(kind, home / "server")
                url = server.url
            service = Service(binary, home / "state", CONFIG % (url, home / "bank"))
            service.start()
            try:
                odd = Odd(service)
                cases = [(f"{kind}: {case.__name__}", case) for case in (odd.queries, odd.addresses, odd.bodies, odd.well)]
                one, other = run_cases(cases)
                passed, failed = passed + one, failed + other
            finally:
                service.stop()
        finally:
            if server:
                server.stop()
            shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
