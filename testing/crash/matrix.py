#!/usr/bin/env python3
"""Kills the service at every named place of protect, restore, verify, delete and sweep, and starts it again.

Checked each time: the operation ends by itself, with the right end; what is `available` restores to the same bytes;
nothing is left beside the originals; after everything is deleted and swept, the bank holds no pack.
"""
import concurrent.futures
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from service import Failed, Service, wait_for  # noqa: E402

CONFIG = """
[worker]
lease-seconds = 2
poll-milliseconds = 100
sweep-delay-seconds = 0
drain-seconds = 2
"""

# Places that this application never passes: its plugins keep nothing outside the bank, so nothing of it is deleted by
# steps, and one sweep frees all. That they are not passed is checked; the worker's own tests die at them.
NOT_PASSED = ("delete.step_started", "delete.hook_done", "delete.step_recorded", "sweep.sweep_queued")


def make_data(root):
    web = root / "web"
    (web / "deep" / "er").mkdir(parents=True)
    for n in range(50):
        (web / f"file-{n}").write_bytes(os.urandom(1000 + n * 997))
    os.symlink("file-1", web / "link")
    os.link(web / "file-2", web / "deep" / "hard")
    with open(root / "disk.img", "wb") as disk:
        disk.truncate(64 << 20)
        for offset in (0, 5 << 20, 40 << 20):
            disk.seek(offset)
            disk.write(os.urandom(1 << 20))
    with sqlite3.connect(root / "events.db") as db:
        db.execute("CREATE TABLE event (n INTEGER PRIMARY KEY, body TEXT)")
        db.executemany("INSERT INTO event (body) VALUES (?)", [(str(n) * 20,) for n in range(2000)])


def digest(path):
    """Describes a tree, a file or a database by its content."""
    if path.is_dir():
        return sorted((str(p.relative_to(path)), os.readlink(p) if p.is_symlink() else p.is_file() and digest(p)) for p in path.rglob("*"))
    if path.suffix == ".db":
        with sqlite3.connect(path) as db:
            return db.execute("SELECT count(*), sum(n), max(body) FROM event").fetchone()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def inventory(project, root):
    return f"""
[[application]]
name = "shop"
project = "{project}"
members = ["web", "disk", "events"]
[[directory]]
name = "web"
project = "{project}"
path = "{root}/web"
[[disk]]
name = "disk"
project = "{project}"
path = "{root}/disk.img"
[[sqlite]]
name = "events"
project = "{project}"
path = "{root}/events.db"
"""


class Case:
    def __init__(self, binary, point):
        self.kind, self.place = point.split("*")[0].split(".")
        self.point = point
        self.home = Path(tempfile.mkdtemp(prefix="karbor-crash-"))
        self.data = self.home / "data"
        self.data.mkdir()
        self.service = Service(binary, self.home / "state", CONFIG)

    def run(self):
        make_data(self.data)
        self.wanted = {name: digest(self.data / name) for name in ("web", "disk.img", "events.db")}
        service = self.service
        service.start()
        service.inventory(inventory(service.project, self.data))
        self.provider = next(p["id"] for p in service.ask("GET", "/providers")["providers"] if p["name"] == "Host Provider")
        listed = wait_for("the inventory to be read", lambda: service.ask("GET", "/protectables/Host::Application/instances")["instances"])
        resource = {key: listed[0][key] for key in ("id", "type", "name")}
        plan = {"name": "shop", "provider_id": self.provider, "resources": [resource], "parameters": {}}
        self.plan = service.ask("POST", "/plans", {"plan": plan})["plan"]["id"]
        checkpoint = None if self.kind == "protect" else self.protect()
        service.stop()
        fails = self.place == "abandoned"
        if fails:
            (self.data / "disk.img").rename(self.home / "disk.away")
        service.start(crash_at=self.point)
        operation = self.begin(checkpoint)
        if self.point not in NOT_PASSED:
            wait_for(f"the service to die at {self.point}", lambda: not service.is_running(), 60)
            service.start()
        if operation is None:
            operation = self.begin_again(checkpoint)
        ended = service.wait_operation(operation) if self.kind != "sweep" else None
        if fails:
            (self.home / "disk.away").rename(self.data / "disk.img")
        self.check(ended, operation, checkpoint, fails)
        self.check_bank_is_empty()
        if not service.is_running():
            raise Failed("the service died once more")
        service.stop()

    def protect(self):
        body = {"checkpoint": {"plan_id": self.plan}}
        id = self.service.ask("POST", f"/providers/{self.provider}/checkpoints", body)["checkpoint"]["id"]
        ended = self.service.wait_operation(id)
        if ended["state"] != "succeeded":
            raise Failed(f"protecting before the crash: {ended['reason']}")
        return id

    def request(self, checkpoint):
        """Asks for the operation under test; returns its id."""
        service, provider = self.service, self.provider
        if self.kind == "protect":
            body = {"checkpoint": {"plan_id": self.plan}}
            return service.ask("POST", f"/providers/{provider}/checkpoints", body)["checkpoint"]["id"]
        if self.kind in ("restore", "verify"):
            member = "restore" if self.kind == "restore" else "verification"
            body = {member: {"provider_id": provider, "checkpoint_id": checkpoint, "parameters": self.parameters()}}
            return service.ask("POST", f"/{member}s", body)[member]["id"]
        return service.ask("DELETE", f"/providers/{provider}/checkpoints/{checkpoint}")["operation_id"]

    def parameters(self):
        if self.kind != "restore":
            return {}
        shutil.rmtree(self.data / "web", ignore_errors=True)
        (self.data / "disk.img").unlink(missing_ok=True)
        for path in self.data.glob("events.db*"):
            path.unlink()
        return {f"Host::{kind}": {"in_place": True} for kind in ("Directory", "Disk", "SQLite")}

    def begin(self, checkpoint):
        """Asks for the operation; the service may die before it answers, and then nothing is known."""
        try:
            return self.request(checkpoint)
        except OSError:
            return None

    def begin_again(self, checkpoint):
        """Finds the operation whose answer was lost."""
        kind = {"sweep": "delete"}.get(self.kind, self.kind)
        found = self.service.ask("GET", f"/operations?kind={kind}")["operations"]
        found = [operation for operation in found if operation["id"] != checkpoint]
        return found[0]["id"] if found else self.request(checkpoint)

    def check(self, ended, operation, checkpoint, fails):
        service, provider = self.service, self.provider
        if ended and ended["state"] != ("failed" if fails else "succeeded"):
            raise Failed(f"the operation is {ended['state']}: {ended['reason']}\n{service.log_tail()}")
        if fails:
            shown = service.ask("GET", f"/providers/{provider}/checkpoints/{operation}")["checkpoint"]
            if shown["status"] != "error":
                raise Failed(f"a failed checkpoint is {shown['status']}")
            return
        if self.kind in ("delete", "sweep"):
            def gone():
                return service.ask("GET", f"/providers/{provider}/checkpoints/{checkpoint}")["checkpoint"]["status"] == "deleted"
            wait_for("the checkpoint to be deleted", gone)
            return
        if self.kind == "protect":
            shown = service.ask("GET", f"/providers/{provider}/checkpoints/{operation}")["checkpoint"]
            if shown["status"] != "available":
                raise Failed(f"the checkpoint is {shown['status']}")
            self.kind = "restore"
            restored = service.wait_operation(self.request(operation))
            if restored["state"] != "succeeded":
                raise Failed(f"restoring what was protected: {restored['reason']}")
        for name, wanted in self.wanted.items():
            if digest(self.data / name) != wanted:
                raise Failed(f"{name} differs after {self.point}")
        left = sorted(path.name for path in self.data.iterdir() if path.name not in self.wanted)
        left = [name for name in left if not name.startswith("events.db-")]
        if left:
            raise Failed(f"left beside the originals: {left}")

    def check_bank_is_empty(self):
        service, provider = self.service, self.provider
        for checkpoint in service.ask("GET", f"/providers/{provider}/checkpoints")["checkpoints"]:
            id = service.ask("DELETE", f"/providers/{provider}/checkpoints/{checkpoint['id']}")["operation_id"]
            service.wait_operation(id)

        def empty():
            service.bank("sweep")
            packs = list((service.state / "bank").glob("accounts/*/packs/*/*"))
            return not packs
        try:
            wait_for("the bank to be empty", empty, 30)
        except Failed as failed:
            again = service.bank("sweep", check=False).stdout
            raise Failed(f"the bank was not emptied: {failed}; sweeping again says {again}") from None

    def close(self):
        self.service.stop()
        shutil.rmtree(self.home, ignore_errors=True)


def run(binary, point):
    case = Case(binary, point)
    begun = time.monotonic()
    try:
        case.run()
        return point, None, time.monotonic() - begun
    except (Failed, OSError, KeyError, IndexError) as err:
        return point, f"{type(err).__name__}: {err}", time.monotonic() - begun
    finally:
        case.close()


def main():
    binary, points = sys.argv[1], sys.argv[2:]
    if not points:
        points = subprocess.run([binary, "crash-points"], check=True, text=True, capture_output=True).stdout.split()
        # Copies want a second bank: the tests of the worker kill them at each of their places.
        points = [point for point in points if not point.startswith("copy.")]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for point, problem, seconds in pool.map(lambda point: run(binary, point), points):
            failed += problem is not None
            print(f"{'FAILED' if problem else 'ok':6} {point} ({seconds:.1f} s)" + (f"\n    {problem}" if problem else ""), flush=True)
    print(f"{len(points) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
