"""A Karbor service of one's own for a test: in a directory, on a free port, stopped by process id."""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path


class Failed(Exception):
    """A test failed; the text says how."""


def wait_for(what, condition, seconds=60):
    """Waits until condition() is true, and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)


def run_cases(cases):
    """Runs functions that bear names, prints how each went, and returns how many passed and failed."""
    passed = failed = 0
    for name, case in cases:
        try:
            case()
            passed += 1
            print(f"ok     {name}", flush=True)
        except (Failed, LookupError, OSError, StopIteration, ValueError) as err:
            failed += 1
            print(f"FAILED {name}\n    {type(err).__name__}: {err}", flush=True)
    return passed, failed


class Service:
    def __init__(self, binary, state, config="", environment=None):
        self.binary, self.state, self.process = str(binary), Path(state), None
        self.environment = environment or {}
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "karbor.toml").write_text(config)

    def start(self, crash_at=None):
        """Starts it, and waits until it answers."""
        self.spawn(crash_at)
        wait_for("the service to start", lambda: self.process.poll() is not None or self.healthy(), 180)
        if self.process.poll() is not None and not crash_at:
            raise Failed("the service did not start:\n" + self.log_tail())

    def spawn(self, crash_at=None):
        """Starts it, and does not wait."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        environment.update(self.environment)
        if crash_at:
            environment["KARBOR_CRASH_AT"] = crash_at
        with open(self.state / "karbor.log", "ab") as log:
            words = [self.binary, "serve", "--state-dir", self.state, "--config", self.state / "karbor.toml", "--listen", "127.0.0.1:0"]
            self.process = subprocess.Popen(
                self.command(words),
                stdout=log, stderr=log, env=environment, start_new_session=True)

    def command(self, words):
        """Returns what is run to start the service."""
        return words

    def connection(self):
        return json.loads((self.state / "client.json").read_text())

    @property
    def project(self):
        return self.connection()["project_id"]

    def healthy(self):
        try:
            # Before the service has written it, the file names the port of the last run, where nobody answers.
            base = self.connection()["url"].split("/v1/")[0]
            with urllib.request.urlopen(base + "/healthcheck", timeout=5) as answer:
                return answer.status == 200
        except (OSError, ValueError, KeyError):
            return False

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, number=signal.SIGTERM):
        if self.is_running():
            self.process.send_signal(number)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def log_tail(self, lines=15):
        return "\n".join((self.state / "karbor.log").read_text(errors="replace").splitlines()[-lines:])

    def call(self, method, path, body=None, token=None, version="data-protect 1.2", url=None):
        """Makes one request below the project; returns (status, JSON)."""
        connection = self.connection()
        request = urllib.request.Request((url or connection["url"]) + path, method=method)
        request.add_header("X-Auth-Token", connection["token"] if token is None else token)
        if version:
            request.add_header("OpenStack-API-Version", version)
        data = None
        if body is not None:
            request.add_header("Content-Type", "application/json")
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=60) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as err:
            text = err.read()
            return err.code, json.loads(text) if text else None

    def ask(self, method, path, body=None):
        """Makes a request that must succeed."""
        status, answer = self.call(method, path, body)
        if status >= 300:
            raise Failed(f"{method} {path} answered {status}: {answer}")
        return answer

    def operation(self, id):
        return self.ask("GET", f"/operations/{id}")["operation"]

    def wait_operation(self, id, seconds=60):
        """Waits until an operation has ended."""
        def ended():
            operation = self.operation(id)
            return operation if operation["state"] in ("succeeded", "failed", "cancelled") else None
        return wait_for(f"operation {id} to end", ended, seconds)

    def karbor(self, *words, check=True):
        """Runs the binary as a client of this service."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        environment["KARBOR_STATE_DIR"] = str(self.state)
        environment["KARBOR_CACHE_DIR"] = str(self.state / "client-cache")
        done = subprocess.run([self.binary, *map(str, words)], env=environment, text=True, capture_output=True)
        if check and done.returncode:
            raise Failed(f"karbor {' '.join(map(str, words))} failed: {done.stderr.strip()}")
        return done

    def bank(self, command, *words, check=True):
        """Runs one of the bank's tools on this service's bank, on the project's account."""
        common = [self.state / "bank", "--key-file", self.state / "master.key", "--account", self.project]
        return self.karbor("-o", "json", "bank", command, *common, *words, check=check)

    def inventory(self, text):
        partial = self.state / "inventory.partial"
        partial.write_text(text)
        partial.rename(self.state / "inventory.toml")
