#!/usr/bin/env python3
"""The running service under watch, under limits, under bad input, and when it is told to stop.

main.py KARBOR
"""
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from service import Failed, Service, run_cases, wait_for  # noqa: E402

CONFIG = """
[api]
max-body-bytes = 100000
body-seconds = 2
header-seconds = 2
write-seconds = 2
drain-seconds = 10
{more}
[worker]
poll-milliseconds = 100
"""
PLAN = {"name": "p", "provider_id": "b766f37c-d011-4026-8228-28730d734a3f", "parameters": {},
        "resources": [{"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "v"}]}


def expect(condition, what):
    if not condition:
        raise Failed(what)


class Raw:
    """A connection of bytes."""

    def __init__(self, service):
        url = urlsplit(service.connection()["url"])
        self.path, self.token = url.path, service.connection()["token"]
        self.socket = socket.create_connection((url.hostname, url.port), timeout=30)

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def head(self, method, path, *headers, length=None):
        lines = [f"{method} {self.path}{path} HTTP/1.1", "Host: karbor", f"X-Auth-Token: {self.token}", *headers]
        if length is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        self.send("\r\n".join(lines) + "\r\n\r\n")

    def answer(self):
        """Returns status and body of one answer; status 0 when the connection ended without one."""
        response = http.client.HTTPResponse(self.socket)
        try:
            response.begin()
            return response.status, response.read(), dict(response.getheaders())
        except (http.client.HTTPException, ConnectionError):
            return 0, b"", {}

    def ended(self):
        """Waits until the other side has closed."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionError:
            pass
        return True

    def close(self):
        self.socket.close()


def fault(answer, *statuses):
    status, body, _ = answer
    expect(status in statuses, f"status {status}, not {statuses}: {body[:200]}")
    told = json.loads(body)
    expect(len(told) == 1 and next(iter(told.values()))["code"] == status, f"no fault: {body[:200]}")
    expect(next(iter(told.values()))["message"], "a fault tells its reason")
    return next(iter(told.values()))["message"]


class Tests:
    def __init__(self, binary):
        self.binary, self.home = binary, Path(tempfile.mkdtemp(prefix="karbor-operations-"))
        self.service = Service(binary, self.home / "state", CONFIG.format(more=""))
        self.service.start()

    def raw(self):
        return Raw(self.service)

    def _run(self, name):
        """Runs one case, after which the service must still be well if it runs."""
        getattr(self, name)()
        if self.service.is_running():
            self.still_well()

    def still_well(self):
        status, body = self.service.call("GET", "/plans?limit=1")
        expect(status == 200, f"afterwards it answers {status}: {body}")
        log = (self.service.state / "karbor.log").read_text()
        expect("panicked" not in log, "something panicked")

    def get(self, path):
        base = self.service.connection()["url"].split("/v1/")[0]
        url = urlsplit(base)
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())

    # Watching.

    def counters_are_shown(self):
        made = self.service.ask("POST", "/plans", {"plan": PLAN})["plan"]["id"]
        self.service.call("GET", "/plans/nothing")
        path = f"/providers/{PLAN['provider_id']}/checkpoints"
        checkpoint = self.service.ask("POST", path, {"checkpoint": {"plan_id": made}})["checkpoint"]["id"]
        self.service.wait_operation(checkpoint)
        status, text, headers = self.get("/metrics")
        expect(status == 200 and headers["content-type"].startswith("application/openmetrics-text"), f"{status} {headers}")
        for wanted in (r'karbor_requests_total\{method="POST",route="/v1/\{project\}/plans",status="200"\} 1\b',
                       r'karbor_requests_total\{method="GET",route="/v1/\{project\}/plans/\{id\}",status="400"\} 1\b',
                       r'karbor_request_seconds_bucket\{le="0.01",method="POST",route="/v1/\{project\}/plans"\} ',
                       r'karbor_operations_ended_total\{kind="protect",state="(failed|succeeded)",reason="[a-z_-]+"\} 1\b',
                       r'karbor_lease_losses_total 0\b', r'karbor_operations_lag_seconds \d', r'karbor_stored_bytes_total \d',
                       r'# EOF'):
            expect(re.search(wanted, text), f"no {wanted} in\n{text}")
        expect(made not in text and self.service.project not in text, "ids are no labels")

    def health_is_told(self):
        status, text, _ = self.get("/healthcheck")
        expect((status, json.loads(text)) == (200, {"status": "ok"}), f"{status} {text}")

    def watchers_can_have_an_address_of_their_own(self):
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        config = CONFIG.format(more="") + f'[metrics]\nlisten = "127.0.0.1:{port}"\n'
        other = Service(self.binary, self.home / "watched", config)
        other.start()
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/metrics")
            expect(connection.getresponse().read().endswith(b"# EOF\n"), "they are shown there")
            here, self.service = self.service, other
            try:
                status, text, _ = self.get("/metrics")
                expect(status == 300, f"and not beside the API: {status} {text}")
            finally:
                self.service = here
        finally:
            other.stop()

    def a_worker_alone_steps_back_for_others(self):
        def niceness(*roles):
            other = Service(self.binary, self.home / f"roles-{len(roles)}", CONFIG.format(more=""))
            other.command = lambda words: [*map(str, words), *(word for role in roles for word in ("--role", role))]
            other.spawn()
            try:
                log = other.state / "karbor.log"
                wait_for("its threads to work", lambda: "The worker takes operations" in log.read_text() or not other.is_running(), 60)
                found = [task.read_text().rpartition(")")[2].split()[16] for task in Path(f"/proc/{other.process.pid}/task").glob("*/stat")]
                return {int(nice) for nice in found}
            finally:
                other.stop()
        here = os.nice(0)
        expect(niceness("worker") == {max(here, 5)}, "each of its threads")
        expect(niceness() == {here}, "but not one that also answers")

    # Limits.

    def a_project_makes_so_many_requests_and_no_more(self):
        config = CONFIG.format(more="project-rate = 5\nproject-burst = 10")
        limited = Service(self.binary, self.home / "limited", config)
        limited.start()
        try:
            answers = [limited.call("GET", "/plans") for _ in range(40)]
            refused = [body for status, body in answers if status == 429]
            expect(answers[0][0] == 200 and len(refused) > 10, f"{[status for status, _ in answers]}")
            expect(refused[0]["overLimit"]["code"] == 429, f"{refused[0]}")
            wait_for("the project's turn", lambda: limited.call("GET", "/plans")[0] == 200, 5)
        finally:
            limited.stop()

    def a_large_body_is_refused(self):
        raw = self.raw()
        raw.head("POST", "/plans", length=200000)
        fault(raw.answer(), 413)
        raw.close()
        raw = self.raw()
        raw.head("POST", "/plans", "Content-Type: application/json", "Transfer-Encoding: chunked")
        try:
            for _ in range(30):
                raw.send(b"1000\r\n" + b" " * 4096 + b"\r\n")
            raw.send(b"0\r\n\r\n")
        except OSError:
            pass
        answer = raw.answer()
        expect(answer[0] in (0, 413), f"a chunked one too: {answer}")
        raw.close()

    def a_slow_body_is_given_up(self):
        raw = self.raw()
        raw.head("POST", "/plans", length=100)
        raw.send(b'{"pl')
        begun = time.monotonic()
        fault(raw.answer(), 408)
        expect(time.monotonic() - begun < 10, "in time")
        raw.close()

    def slow_headers_and_idle_connections_are_closed(self):
        for beginning in (b"", b"GET /v1/ HTTP/1.1\r\nHost: ka"):
            raw = self.raw()
            raw.send(beginning)
            begun = time.monotonic()
            raw.ended()
            expect(time.monotonic() - begun < 15, "in time")
            raw.close()

    def a_client_that_reads_nothing_is_closed(self):
        for number in range(30):
            self.service.ask("POST", "/triggers", {"trigger_info": {"name": f"t{number}", "type": "time", "properties": {
                "format": "crontab", "pattern": "0 3 * * *" + " " * 3000}}})
        raw = self.raw()
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = f"GET {raw.path}/triggers HTTP/1.1\r\nHost: k\r\nX-Auth-Token: {raw.token}\r\n\r\n".encode()
        raw.socket.settimeout(1)
        closed = False
        deadline = time.monotonic() + 25
        while not closed and time.monotonic() < deadline:
            try:
                raw.socket.sendall(request * 50)
            except TimeoutError:
                pass
            except OSError:
                closed = True
        expect(closed, "the connection is closed")
        raw.close()

    def half_closed_connections_are_answered_or_closed(self):
        raw = self.raw()
        raw.head("GET", "/plans?limit=1")
        raw.socket.shutdown(socket.SHUT_WR)
        expect(raw.answer()[0] in (200, 0), "the request that came whole")
        raw.close()
        raw = self.raw()
        raw.head("POST", "/plans", length=1000)
        raw.send(b'{"plan"')
        raw.socket.shutdown(socket.SHUT_WR)
        expect(raw.answer()[0] in (0, 400, 408), "the request that did not")
        raw.ended()
        raw.close()

    # Bad input.

    def malformed_json_is_refused(self):
        bodies = [b"{", b"[", b"\xff\xfe", b'{"plan": }', b'{"plan": {}} x', b'"text"', b"5", b"null", b"[]", b"{}", b'{"plan": null}',
                  b'{"plan": []}', b'{"plan": 7}', b"[" * 50000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"plan": {"name": "\\ud800"}}',
                  b'{"plan": {"name": "a\\u0000b"}}', b'{"plan": 1e999}', b'{"plan": {"name": ' + b"9" * 5000 + b"}}", b"\x00" * 10,
                  b'{"plan": {"name": "a", "name": "b"}}', b'{"plan": {"colour": 1}}', b'{"plan": {}, "more": 1}']
        for path in ("/plans", "/restores", "/verifications", "/triggers", "/scheduled_operations",
                     f"/providers/{PLAN['provider_id']}/checkpoints", f"/providers/{PLAN['provider_id']}/checkpoints/action"):
            for body in bodies:
                raw = self.raw()
                raw.head("POST", path, length=len(body))
                raw.send(body)
                fault(raw.answer(), 400)
                raw.close()

    def other_content_types_are_refused(self):
        body = json.dumps({"plan": PLAN}).encode()
        for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data", "json", ";", ""):
            raw = self.raw()
            raw.head("POST", "/plans", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
            raw.send(body)
            fault(raw.answer(), 415)
            raw.close()

    def ids_of_every_wrong_shape_name_nothing(self):
        wrong = ["x", "0", "-1", "%00", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "' or 1=1--", "%ff", "%F0%9F%92%A5", "a" * 3000,
                 "{11111111-1111-4111-8111-000000000001}", "urn:uuid:11111111-1111-4111-8111-000000000001",
                 "11111111111141118111000000000001", "DEADBEEF-DEAD-4EEF-8EAD-BEEFDEADBEEF", "deadbeef-dead-4eef-8ead-beefdeadbeef"]
        places = ["/plans/{}", "/restores/{}", "/verifications/{}", "/triggers/{}", "/scheduled_operations/{}", "/operation_logs/{}",
                  "/providers/{}", "/providers/{}/checkpoints", "/providers/b766f37c-d011-4026-8228-28730d734a3f/checkpoints/{}",
                  "/os-services/{}", "/operations/{}"]
        for place in places:
            for id in wrong:
                for method in ("GET", "DELETE"):
                    raw = self.raw()
                    raw.head(method, place.format(id.replace(" ", "%20")), "OpenStack-API-Version: data-protect 1.1")
                    fault(raw.answer(), 400, 404, 405)
                    raw.close()

    def headers_are_not_injected(self):
        raw = self.raw()
        raw.head("GET", "/plans?limit=1&name=a%0d%0aX-Injected:%20yes", "X-Forwarded-Host: evil\r\n X-Injected: yes")
        status, _, headers = raw.answer()
        expect(status in (200, 400) and not any(name.lower() == "x-injected" for name in headers), f"{status} {headers}")
        raw.close()
        self.service.ask("POST", "/plans", {"plan": PLAN})
        for host in ("evil.example", "a b", "x" * 5000, "\xff\xfe", "h\"><script>"):
            raw = self.raw()
            raw.head("GET", "/plans?limit=1", f"X-Forwarded-Host: {host}", f"X-Forwarded-Proto: {host}")
            status, body, headers = raw.answer()
            expect(status in (200, 400), f"{status}")
            expect(b"<script>" not in body, "no script comes back")
            raw.close()
        for version in ("data-protect 1.999", "nonsense", "data-protect", "data-protect 9999999999999.1", "\xff", "compute 2.1"):
            raw = self.raw()
            raw.head("GET", "/plans", f"OpenStack-API-Version: {version}")
            expect(raw.answer()[0] in (200, 400, 406), version)
            raw.close()

    def bytes_that_are_no_http_end_the_connection(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\x00" * 1000, b"GET / HTTP/9.9\r\n\r\n", b"A" * 100000,
                     b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"GET /v1/%zz HTTP/1.1\r\nHost: k\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
            raw = self.raw()
            try:
                raw.send(data)
                raw.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            status, _, _ = raw.answer()
            expect(status < 500 or status in (501, 505), f"{data[:40]} is answered {status}")
            raw.close()

    def many_connections_at_once_are_served(self):
        failures = []

        def ask():
            try:
                for _ in range(5):
                    if self.service.call("GET", "/plans?limit=1")[0] != 200:
                        failures.append("status")
            except OSError as err:
                failures.append(repr(err))
        threads = [threading.Thread(target=ask) for _ in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        expect(not failures, f"{len(failures)} failed: {failures[:3]}")

    # The end.

    def a_request_under_way_is_answered_when_the_service_stops(self):
        idle, under_way = self.raw(), self.raw()
        body = json.dumps({"plan": PLAN}).encode()
        under_way.head("POST", "/plans", length=len(body))
        under_way.send(body[:20])
        # It is under way when its handler waits for the rest.
        wait_for("the request to begin", lambda: "karbor_requests_under_way 1" in self.get("/metrics")[1])
        self.service.process.send_signal(signal.SIGTERM)

        def refused():
            try:
                Raw(self.service).close()
                return False
            except OSError:
                return True
        wait_for("new connections to be refused", refused, 10)
        idle.ended()
        under_way.send(body[20:])
        status, answer, _ = under_way.answer()
        expect(status == 200 and json.loads(answer)["plan"]["id"], f"{status} {answer}")
        expect(self.service.process.wait(20) == 0, "it ends well")


def main():
    tests = Tests(sys.argv[1])
    passed = failed = 0
    names = [name for name in vars(Tests) if not name.startswith("_") and name not in ("raw", "still_well", "get")]
    if len(sys.argv) > 2:
        names = sys.argv[2:]
    try:
        passed, failed = run_cases((name, lambda name=name: tests._run(name)) for name in names)
    finally:
        tests.service.stop()
        if failed:
            print(tests.service.log_tail(20))
        shutil.rmtree(tests.home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
