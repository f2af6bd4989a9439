#!/usr/bin/env python3
"""What goes wrong in a cloud while something is protected: survived, or ended in a clear state with its reason.

  faults.py KARBOR [CASE...]

Services of the test cloud are stopped and started again, so it must be ours alone. No case waits without a limit.
"""
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import application  # noqa: E402
from apis import DIRECTORY, Cloud  # noqa: E402
from deployment import Karbor, Site  # noqa: E402
from describe import admin, holdings, left_over, no_trust_is_left  # noqa: E402
from main import expect  # noqa: E402
from service import Failed, run_cases, wait_for  # noqa: E402

SCRIPTS = Path(__file__).resolve().parent.parent / "devcloud"
VOLUME, IMAGE = "OS::Cinder::Volume", "OS::Glance::Image"
# What the test's Karbor gives one wait in the cloud, and what it may take beside.
LIMIT = 300


def down(*daemons):
    subprocess.run([SCRIPTS / "down", *daemons], check=True, capture_output=True)


def up(*services):
    done = subprocess.run([SCRIPTS / "up", *services], text=True, capture_output=True)
    expect(done.returncode == 0, f"{services} did not start: {done.stdout}{done.stderr}")


class Unavailable(http.server.BaseHTTPRequestHandler):
    """Answers 503 to everything."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked += 1
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = answer

    def log_message(self, *_):
        pass


class Standing:
    """Stands in a service's place and answers 503, until it is closed."""

    def __init__(self, port):
        http.server.ThreadingHTTPServer.allow_reuse_address = True
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Unavailable)
        self.server.asked = 0
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def asked(self):
        return self.server.asked

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Faults:
    def __init__(self, binary):
        self.binary, self.site, self.cloud = binary, Site(binary), Cloud("demo")
        self.karbor = Karbor(self.cloud)
        named = subprocess.run([binary, "crash-points"], text=True, capture_output=True).stdout.split()
        self.has_failpoints = "protect.graph_stored" in named

    def prepare(self):
        application.remove(self.cloud)
        self.image = application.image_with_bytes(self.cloud)
        self.volumes = [application.volume(self.cloud, name) for name in ("shop-data", "shop-db1")]
        for id in self.volumes:
            self.cloud.wait("volumev3", f"/volumes/{id}", "available")
            application.write_pattern(id, application.VOLUMES["shop-data"][3])
        self.site.start()
        self.provider = self.karbor.provider("Temporary volumes")
        self.plan = self.karbor.plan(self.provider, *((VOLUME, id, "a volume") for id in self.volumes))
        self.image_plan = self.karbor.plan(self.provider, (IMAGE, self.image, "an image"))
        self.held = self.holdings()

    def holdings(self):
        return holdings(self.cloud)

    def protect(self, plan=None):
        return self.karbor.protect(self.provider, plan or self.plan)

    def fails_with(self, operation, *words):
        """Waits for a failure whose reasons hold these words (patterns), and looks at what it left."""
        self.karbor.fail(operation, LIMIT)
        shown = self.karbor.checkpoint(self.provider, operation)
        expect(shown["status"] == "error", f"the checkpoint is {shown['status']}")
        reasons = json.dumps([self.karbor.operation(operation), self.karbor.ask("GET", f"/operations/{operation}/resources")])
        for word in words:
            expect(re.search(word, reasons, re.IGNORECASE), f"no reason tells of {word}: {reasons}")
        self.nothing_is_left()

    def nothing_is_left(self):
        wait_for("what is being removed to be gone", lambda: not left_over(self.held, self.holdings()), 60)

    def a_snapshot_is_asked_for(self):
        """Waits until an operation has asked Cinder for a snapshot."""
        known = self.held["snapshot"]
        wait_for("a snapshot", lambda: self.holdings()["snapshot"].keys() - known.keys(), 90)

    def cinder_volume_is_stopped_for_a_while(self):
        down("cinder-volume")
        operation = self.protect()
        self.a_snapshot_is_asked_for()
        time.sleep(5)
        up("cinder")
        self.karbor.succeed(operation, LIMIT)
        self.nothing_is_left()

    def keystone_is_away_for_a_minute(self):
        down("cinder-volume")
        operation = self.protect()
        self.a_snapshot_is_asked_for()
        down("keystone")
        up_again = time.monotonic() + 60
        # Nothing moves on without Cinder; with it, everything that asks for a token must wait.
        wait_for("the minute to pass", lambda: time.monotonic() > up_again, 90)
        up("cinder")
        self.karbor.succeed(operation, LIMIT)
        self.nothing_is_left()

    def glance_answers_503_for_a_while(self):
        down("glance-api")
        standing = Standing(9292)
        try:
            operation = self.protect(self.image_plan)
            wait_for("Glance to be asked twice", lambda: standing.asked > 1, 60)
        finally:
            standing.close()
            up("glance")
        self.karbor.succeed(operation, LIMIT)
        self.nothing_is_left()

    def glance_answers_503_for_ever(self):
        self.site.stop()
        self.site.start(KARBOR_PATIENCE="15", KARBOR_ATTEMPTS="2")
        down("glance-api")
        standing = Standing(9292)
        try:
            operation = self.protect(self.image_plan)
            ended = self.karbor.wait(operation, LIMIT)
        finally:
            standing.close()
            up("glance")
            self.site.stop()
            self.site.start()
        expect(ended["state"] == "failed", f"it {ended['state']}")
        self.fails_with(operation, "503|unavailable")

    def tokens_expire_on_the_way(self):
        file = DIRECTORY / "etc" / "keystone" / "keystone.conf"
        before = file.read_text()
        file.write_text(before.replace("[token]\n", "[token]\nexpiration = 20\n"))
        try:
            down("keystone", "cinder-volume")
            up("keystone")
            self.cloud.log_in()
            operation = self.protect()
            begun = time.monotonic()
            self.a_snapshot_is_asked_for()
            wait_for("the tokens to expire", lambda: time.monotonic() > begun + 30, 60)
            up("cinder")
            self.karbor.succeed(operation, LIMIT)
        finally:
            file.write_text(before)
            down("keystone")
            up()
        self.cloud.log_in()
        admin().log_in()
        self.nothing_is_left()

    def a_volume_is_deleted_between_listing_and_snapshot(self):
        gone = application.volume(self.cloud, "shop-data")
        self.cloud.wait("volumev3", f"/volumes/{gone}", "available")
        plan = self.karbor.plan(self.provider, (VOLUME, gone, "a volume"))
        if self.has_failpoints:
            self.site.stop()
            self.site.start("protect.graph_stored")
            operation = self.protect(plan)
            wait_for("the service to die", lambda: self.site.pid() is None, 60)
        self.cloud.delete("volumev3", f"/volumes/{gone}")
        self.cloud.wait_gone("volumev3", f"/volumes/{gone}")
        if self.has_failpoints:
            self.site.start()
        else:
            operation = self.protect(plan)
        self.fails_with(operation, gone)

    def the_quota_of_snapshots_is_reached(self):
        path = f"/os-quota-sets/{self.cloud.project}"
        admin().ask("PUT", "volumev3", path, {"quota_set": {"snapshots": 0}})
        try:
            self.fails_with(self.protect(), "quota|SnapshotLimitExceeded|maximum number of snapshots")
        finally:
            admin().delete("volumev3", path)
        self.karbor.succeed(self.protect(), LIMIT)

    def a_volume_is_in_error(self):
        volume = self.volumes[0]
        path = f"/volumes/{volume}/action"
        admin().call("POST", "volumev3", path, {"os-reset_status": {"status": "error"}})
        try:
            self.fails_with(self.protect(), "error", volume)
        finally:
            admin().call("POST", "volumev3", path, {"os-reset_status": {"status": "available"}})

    def cinder_volume_stays_away(self):
        provider = self.karbor.provider("Impatient")
        plan = self.karbor.plan(provider, *((VOLUME, id, "a volume") for id in self.volumes))
        self.site.stop()
        self.site.start(KARBOR_ATTEMPTS="2")
        down("cinder-volume")
        try:
            operation = self.karbor.protect(provider, plan)
            ended = self.karbor.wait(operation, LIMIT)
            expect(ended["state"] == "failed", f"it {ended['state']}")
        finally:
            up("cinder")
            self.site.stop()
            self.site.start()
        # Nothing could be removed while nobody answered; it is told, and can be done later.
        told = json.dumps(ended["result"])
        expect("left behind" in told, f"nothing is told of what was left: {told}")
        undone = self.karbor.undo(operation)
        expect(undone["state"] == "cancelled" and "undone" in undone["reason"], f"undoing it ended as {undone}")
        reasons = json.dumps([ended, self.karbor.ask("GET", f"/operations/{operation}/resources")])
        expect(re.search("in vain for (snapshot|volume)", reasons), f"no reason tells of it: {reasons}")
        self.nothing_is_left()

    def cancelling_leaves_nothing(self):
        down("cinder-volume")
        operation = self.protect()
        self.a_snapshot_is_asked_for()
        self.karbor.ask("POST", f"/operations/{operation}/action", {"cancel": {}})
        up("cinder")
        ended = self.karbor.wait(operation, LIMIT)
        expect(ended["state"] == "cancelled", f"it {ended['state']}")
        self.nothing_is_left()

    def no_trust_is_left(self):
        no_trust_is_left()

    def close(self):
        self.site.stop()
        application.remove(self.cloud)


CASES = (
    "cinder_volume_is_stopped_for_a_while", "keystone_is_away_for_a_minute", "glance_answers_503_for_a_while",
    "glance_answers_503_for_ever", "tokens_expire_on_the_way", "a_volume_is_deleted_between_listing_and_snapshot",
    "the_quota_of_snapshots_is_reached", "a_volume_is_in_error", "cancelling_leaves_nothing", "cinder_volume_stays_away",
    "no_trust_is_left",
)


def main():
    faults = Faults(sys.argv[1])
    passed = failed = 0
    try:
        faults.prepare()
        passed, failed = run_cases((name, getattr(faults, name)) for name in sys.argv[2:] or CASES)
    finally:
        if failed:
            print(faults.site.log_tail(40))
        faults.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
