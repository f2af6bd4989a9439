#!/usr/bin/env python3
"""Kills the service while it protects and restores the sample application of a cloud, and starts it again.

  kill.py KARBOR [--seconds N] [--provider NAME] [POINT...]

Checked each time: the operation ends by itself and well; afterwards the application is what it was, and the cloud holds
no snapshot, temporary volume, image, attachment, port or trust of ours. Without points all are tried; with --seconds
they are tried in an order that takes something of each kind first, until that much time has passed.

A point is a named place of a binary with the feature `failpoints` (`protect.flushed`, `restore.hook_done*3`: the third
time), or, with any binary, `protect@3`: kill -9 as soon as three steps are done.
"""
import argparse
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import application  # noqa: E402
from apis import Cloud  # noqa: E402
from deployment import ENDED, Karbor, Site  # noqa: E402
from describe import describe, holdings, left_over, no_trust_is_left  # noqa: E402
from main import expect, expect_same  # noqa: E402
from service import Failed, wait_for  # noqa: E402

# Passed only by operations that fail, or that write nothing.
NOT_PASSED = ("protect.abandoned",)
# Passed once for each step.
REPEATED = ("step_started", "hook_done", "step_recorded")
# What a checkpoint keeps outside the bank, and what a restore makes: they may be there afterwards.
KEPT = ("share snapshot",)
MADE = KEPT + ("server", "volume", "image", "share", "port", "network", "router", "attachment", "security group", "floating address")


class Matrix:
    def __init__(self, binary, provider):
        self.site, self.cloud, self.name = Site(binary), Cloud("demo"), provider
        self.karbor = Karbor(self.cloud)
        self.named = subprocess.run([binary, "crash-points"], text=True, capture_output=True).stdout.split()

    def prepare(self):
        application.remove(self.cloud)
        self.held = self.holdings()
        application.build(self.cloud)
        self.before, self.built = describe(self.cloud), self.holdings()
        self.site.start()
        self.provider = self.karbor.provider(self.name)
        self.plan = self.karbor.project_plan(self.provider, "killed")
        self.checkpoint = self.karbor.protect(self.provider, self.plan)
        self.karbor.succeed(self.checkpoint)
        self.steps = {"protect": self.steps_of(self.checkpoint)}
        application.lose(self.cloud)
        restored = self.karbor.restore(self.provider, self.checkpoint)["operation_id"]
        self.karbor.succeed(restored)
        self.steps["restore"] = self.steps_of(restored)
        expect_same(self.before, describe(self.cloud))
        self.built = self.holdings()

    def holdings(self):
        return holdings(self.cloud)

    def steps_of(self, operation):
        return sum(len(one["steps"]) for one in self.karbor.ask("GET", f"/operations/{operation}/resources"))

    def points(self):
        """Returns all points, those first that differ most from one another."""
        kinds = ("protect", "restore")
        if not self.named:
            counts = [(kind, n) for kind in kinds for n in range(self.steps[kind])]
            return [f"{kind}@{n}" for kind, n in sorted(counts, key=lambda one: (spread(one[1], self.steps[one[0]]), one[0]))]
        found = [(0, point) for point in self.named if point.startswith(("protect.", "restore.")) and point not in NOT_PASSED]
        for kind in kinds:
            for place in REPEATED:
                found += [(1 + spread(n, self.steps[kind]), f"{kind}.{place}*{n}") for n in range(2, self.steps[kind] + 1)]
        # The first ones of each kind of operation are those in whose middle most exists outside.
        first = ["protect.hook_done*3", "restore.hook_done*4", "protect.flushed", "restore.step_recorded", "protect.committed", "restore.hook_done*9"]
        later = [point for _, point in sorted(found) if point not in first]
        return [point for point in first if point in dict.fromkeys(point for _, point in found)] + later

    def run(self, point):
        kind = point.replace("@", ".").split(".")[0]
        if kind == "restore":
            application.lose(self.cloud)
        self.site.stop()
        self.site.start(None if "@" in point else point)
        operation = self.begin(kind)
        self.die(point, operation)
        self.site.start()
        if operation is None:
            operation = self.begin_again(kind)
        self.karbor.succeed(operation, 300)
        expect_same(self.before, describe(self.cloud))
        left = left_over(self.built if kind == "protect" else self.held, self.holdings(), KEPT if kind == "protect" else MADE)
        expect(not left, "; ".join(left))
        expect(self.site.pid(), "the service died once more")
        if kind == "protect":
            self.karbor.succeed(self.karbor.delete(self.provider, operation))
        else:
            self.built = self.holdings()

    def request(self, kind):
        if kind == "protect":
            return self.karbor.protect(self.provider, self.plan)
        return self.karbor.restore(self.provider, self.checkpoint)["operation_id"]

    def begin(self, kind):
        """Asks for the operation; the service may die before it answers, and then nothing is known."""
        self.known = {one["id"] for one in self.karbor.ask("GET", f"/operations?kind={kind}")}
        try:
            return self.request(kind)
        except OSError:
            return None

    def begin_again(self, kind):
        """Finds the operation whose answer was lost."""
        found = [one["id"] for one in self.karbor.ask("GET", f"/operations?kind={kind}") if one["id"] not in self.known]
        return found[0] if found else self.request(kind)

    def die(self, point, operation):
        if "@" not in point:
            wait_for(f"the service to die at {point}", lambda: self.site.pid() is None, 180)
            return
        wanted = int(point.partition("@")[2])

        def reached():
            shown = self.karbor.operation(operation)
            return shown["state"] in ENDED or (shown["progress"]["steps"] or {}).get("done", 0) >= wanted
        wait_for(f"{wanted} steps to be done", reached, 180)
        self.site.kill()

    def close(self):
        self.site.stop()
        application.remove(self.cloud)


def spread(n, of):
    """Orders numbers so that the first few of them lie far apart: by their bits, the lowest first."""
    return int(f"{n:0{of.bit_length()}b}"[::-1], 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("karbor")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    # What makes the most in the cloud leaves the most behind.
    parser.add_argument("--provider", default="Temporary volumes")
    parser.add_argument("points", nargs="*")
    arguments = parser.parse_intermixed_args()
    begun, passed, failed = time.monotonic(), 0, 0
    matrix = Matrix(arguments.karbor, arguments.provider)
    try:
        matrix.prepare()
        for point in arguments.points or matrix.points():
            since = time.monotonic()
            if since - begun > arguments.seconds:
                break
            try:
                matrix.run(point)
                passed += 1
                print(f"ok     {point} ({time.monotonic() - since:.1f} s)", flush=True)
            except (Failed, OSError, LookupError, ValueError) as err:
                failed += 1
                print(f"FAILED {point}\n    {type(err).__name__}: {err}\n{matrix.site.log_tail()}", flush=True)
                # What is left must not be counted against the next.
                matrix.site.stop()
                matrix.prepare()
        try:
            no_trust_is_left()
            passed += 1
        except Failed as err:
            failed += 1
            print(f"FAILED {err}")
    finally:
        matrix.close()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed < 2)


if __name__ == "__main__":
    main()
