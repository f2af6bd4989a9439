"""The Karbor that is deployed on the test cloud: its process, and its API as a user of the cloud."""

import json
import os
import signal
import subprocess
from pathlib import Path

from apis import DIRECTORY, Cloud, Refused
from service import Failed, wait_for

SCRIPT = Path(__file__).resolve().parent.parent / "devcloud" / "karbor"
HEADERS = {"Content-Type": "application/json", "OpenStack-API-Version": "data-protect 1.2"}
ENDED = ("succeeded", "failed", "cancelled")


class Site:
    """The process, started by the script that anybody starts it with."""

    def __init__(self, binary):
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_CRASH"))}
        self.environment["KARBOR_BINARY"] = os.path.abspath(binary)
        self.state, self.log = DIRECTORY / "karbor", DIRECTORY / "log" / "karbor.log"

    def script(self, *words, **environment):
        done = subprocess.run([SCRIPT, *words], env=self.environment | environment, text=True, capture_output=True)
        return done.returncode == 0, done.stdout + done.stderr

    def start(self, crash_at=None, **environment):
        if crash_at:
            environment["KARBOR_CRASH_AT"] = crash_at
        started, said = self.script("up", **environment)
        if not started and not crash_at:
            raise Failed(f"Karbor did not start: {said}")

    def stop(self):
        self.script("down")

    def pid(self):
        """Returns the id of the process while it runs."""
        try:
            pid, ticks = (DIRECTORY / "run" / "karbor.pid").read_text().split()
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, ValueError):
            return None
        # A process that ended and was not waited for is a zombie.
        return int(pid) if fields[19] == ticks and fields[0] != "Z" else None

    def kill(self):
        if pid := self.pid():
            os.kill(pid, signal.SIGKILL)
            wait_for("the process to be gone", lambda: self.pid() is None)

    def log_tail(self, lines=25):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Karbor:
    """The API as one user in one project."""

    def __init__(self, cloud: Cloud):
        self.cloud = cloud

    def ask(self, method, path, body=None):
        return self.cloud.ask(method, "data-protect", path, body, HEADERS)

    def refused(self, method, path, body=None):
        """Makes a request that must be refused, and returns the status and the text."""
        try:
            answer = self.ask(method, path, body)
        except Refused as err:
            return err.status, err.body
        raise Failed(f"{method} {path} was not refused: {answer}")

    def provider(self, name):
        found = {one["name"]: one["id"] for one in self.ask("GET", "/providers")}
        if name not in found:
            raise Failed(f"there is no provider {name}, but {sorted(found)}")
        return found[name]

    def project_plan(self, provider, name="shop", parameters=None):
        """Makes a plan of the whole project."""
        resource = self.ask("GET", "/protectables/OS::Keystone::Project/instances")[0]
        plan = {"name": name, "provider_id": provider, "parameters": parameters or {},
                "resources": [{key: resource[key] for key in ("id", "type", "name")}]}
        return self.ask("POST", "/plans", {"plan": plan})["id"]

    def plan(self, provider, *resources, name="part", parameters=None):
        plan = {"name": name, "provider_id": provider, "parameters": parameters or {},
                "resources": [dict(zip(("type", "id", "name"), one)) for one in resources]}
        return self.ask("POST", "/plans", {"plan": plan})["id"]

    def protect(self, provider, plan):
        return self.ask("POST", f"/providers/{provider}/checkpoints", {"checkpoint": {"plan_id": plan}})["id"]

    def restore(self, provider, checkpoint, parameters=None, **more):
        wish = {"provider_id": provider, "checkpoint_id": checkpoint, "parameters": parameters or {}, **more}
        return self.ask("POST", "/restores", {"restore": wish})

    def delete(self, provider, checkpoint):
        return self.ask("DELETE", f"/providers/{provider}/checkpoints/{checkpoint}")

    def checkpoint(self, provider, id):
        return self.ask("GET", f"/providers/{provider}/checkpoints/{id}")

    def operation(self, id):
        return self.ask("GET", f"/operations/{id}")

    def wait(self, id, seconds=600):
        """Waits for the end of an operation, whatever it is."""
        def ended():
            try:
                operation = self.operation(id)
            except OSError:
                return None
            return operation if operation["state"] in ENDED else None
        return wait_for(f"operation {id} to end", ended, seconds)

    def succeed(self, id, seconds=600):
        operation = self.wait(id, seconds)
        if operation["state"] != "succeeded":
            raise Failed(f"the {operation['kind']} {operation['state']}: {operation['reason']}\n{self.tell_resources(id)}")
        return operation

    def fail(self, id, seconds=600):
        operation = self.wait(id, seconds)
        if operation["state"] != "failed":
            raise Failed(f"the {operation['kind']} was to fail and {operation['state']}: {self.tell_resources(id)}")
        return operation

    def resume(self, id, **more):
        """Goes on with a restore, and waits for its end."""
        self.ask("POST", f"/operations/{id}/action", {"resume": more})
        return self.wait(id)

    def undo(self, id, **more):
        """Undoes an operation, and waits for its end."""
        self.ask("POST", f"/operations/{id}/action", {"undo": more})
        return self.wait(id)

    def tell_resources(self, id):
        try:
            resources = self.ask("GET", f"/operations/{id}/resources")
        except Failed as err:
            return str(err)
        return "\n".join(json.dumps(one) for one in resources)
