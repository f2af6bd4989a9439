#!/usr/bin/env python3
"""Measures Karbor on the test cloud: one volume against Cinder's own backup, and a large application without its bytes.

  bench/cloud.py --karbor PATH [--work DIR] [--runs N] [--only volume|application] [--servers N] [--provider NAME]

volume: a volume of 4 GiB holds the first image of bench/engine.py (about 2.6 GiB allocated), then its second day. It
is protected into the file system and into Swift, and backed up by Cinder (posix driver; the second day incremental), in
turn, each in the same run; then each is restored into a new volume, whose bytes are compared. Printed: seconds, stored
bytes, peak memory of Karbor, ours to Cinder's, medians of the runs; that into Swift is of the first run.

application: N servers with two volumes each are made (which takes longer than all that is measured) and protected by a
provider that moves no bytes. Printed: seconds until the graph stands, and requests that reached each service until then,
counted in the services' logs.

The test cloud must be up and quiet; the project demo is emptied.
"""
import argparse
import concurrent.futures
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

TESTING = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "testing")
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), TESTING, os.path.join(TESTING, "cloud")]
import application  # noqa: E402
import blocks  # noqa: E402
from apis import DIRECTORY, Cloud  # noqa: E402
from deployment import Karbor, Site  # noqa: E402
from engine import make_images, settle, size_of  # noqa: E402
from service import Failed, wait_for  # noqa: E402

VOLUME = "OS::Cinder::Volume"
# The services that log a line for each request.
LOGGING = ("nova-api", "cinder-api", "neutron-server", "glance-api", "manila-api")


class OfKarbor:
    def __init__(self, site, karbor, cloud, provider):
        self.name, self.site, self.karbor, self.cloud = f"karbor, {provider}", site, karbor, cloud
        self.provider = karbor.provider(provider)

    def begin(self, volume):
        self.plan = self.karbor.plan(self.provider, (VOLUME, volume, "image"), name="bench")
        self.kept = []

    def backup(self, _first):
        begun = time.monotonic()
        checkpoint = self.karbor.protect(self.provider, self.plan)
        self.karbor.succeed(checkpoint, 1800)
        wall = time.monotonic() - begun
        self.kept.append(checkpoint)
        return wall, self.karbor.checkpoint(self.provider, checkpoint)["size"]["new_bytes"]

    def restore(self, n):
        known = {one["id"] for one in self.cloud.list("volumev3", "/volumes/detail")}
        begun = time.monotonic()
        self.karbor.succeed(self.karbor.restore(self.provider, self.kept[n])["operation_id"], 1800)
        wall = time.monotonic() - begun
        return wall, next(one["id"] for one in self.cloud.list("volumev3", "/volumes/detail") if one["id"] not in known)

    def end(self):
        for checkpoint in self.kept:
            self.karbor.succeed(self.karbor.delete(self.provider, checkpoint))


class OfCinder:
    name = "cinder backup"

    def __init__(self, cloud):
        self.cloud, self.directory = cloud, DIRECTORY / "data" / "cinder" / "backups"

    def begin(self, volume):
        self.volume, self.kept = volume, []

    def backup(self, first):
        before, begun = size_of(self.directory), time.monotonic()
        made = self.cloud.post("volumev3", "/backups", {"backup": {"volume_id": self.volume, "name": "bench", "incremental": not first}})["id"]
        self.cloud.wait("volumev3", f"/backups/{made}", "available", 1800)
        wall = time.monotonic() - begun
        self.kept.append(made)
        return wall, size_of(self.directory) - before

    def restore(self, n):
        begun = time.monotonic()
        made = self.cloud.post("volumev3", f"/backups/{self.kept[n]}/restore", {"restore": {"name": "bench"}})["volume_id"]
        self.cloud.wait("volumev3", f"/backups/{self.kept[n]}", "available", 1800)
        self.cloud.wait("volumev3", f"/volumes/{made}", "available", 1800)
        return time.monotonic() - begun, made

    def end(self):
        for backup in reversed(self.kept):
            self.cloud.delete("volumev3", f"/backups/{backup}")
            self.cloud.wait_gone("volumev3", f"/backups/{backup}")


def fill(volume, image):
    """Puts an image into a volume in which there is nothing but what an earlier day left."""
    subprocess.run(["cp", "--sparse=always", image, blocks.file_of(volume)], check=True)


def one_run(ways, cloud, images):
    """Returns {way: [first backup, second backup, restore: (seconds, stored bytes)]}."""
    results = {}
    for way in ways:
        volume = cloud.post("volumev3", "/volumes", {"volume": {"name": "bench", "size": 4}})["id"]
        cloud.wait("volumev3", f"/volumes/{volume}", "available")
        rows = results[way.name] = []
        way.begin(volume)
        for first, image in ((True, images[0]), (False, images[1])):
            fill(volume, image)
            settle(blocks.file_of(volume))
            rows.append(way.backup(first))
        settle(images[1])
        wall, restored = way.restore(1)
        if blocks.digest(restored) != blocks.digest(volume):
            raise Failed(f"{way.name} restored other bytes")
        rows.append((wall, 0))
        for id in (restored, volume):
            cloud.delete("volumev3", f"/volumes/{id}")
            cloud.wait_gone("volumev3", f"/volumes/{id}")
        way.end()
        print("run", way.name, " ".join(f"{seconds:.1f} s {stored >> 20} MiB" for seconds, stored in rows), file=sys.stderr, flush=True)
    return results


def peak_mib(site):
    status = Path(f"/proc/{site.pid()}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10


def volume(site, karbor, cloud, arguments):
    arguments.work.mkdir(parents=True, exist_ok=True)
    images = make_images(arguments.work)
    ways = [OfKarbor(site, karbor, cloud, "Files"), OfCinder(cloud), OfKarbor(site, karbor, cloud, "Swift")]
    runs = []
    for run in range(arguments.runs):
        # What a sweep leaves in Swift until its listings can be trusted would be found again by the next first backup.
        here = ways if run == 0 else ways[:2]
        runs.append(one_run(here[run % len(here):] + here[:run % len(here)], cloud, images))
    labels = ("first backup", "second day", "restore, compared")
    medians = {way.name: [[statistics.median(run[way.name][row][column] for run in runs if way.name in run) for column in (0, 1)] for row in range(3)] for way in ways}
    print(f"{'':20}" + "".join(f"{way.name:>24}" for way in ways))
    for row, label in enumerate(labels):
        print(f"{label:20}" + "".join(f"{medians[way.name][row][0]:>11.1f} s {int(medians[way.name][row][1]) >> 20:>6} MiB " for way in ways))
    cinder = medians["cinder backup"]
    for way in ways:
        if way.name != "cinder backup":
            ours = medians[way.name]
            print(f"{way.name}: first {cinder[0][0] / ours[0][0]:.1f} x as fast, stored {ours[0][1] / cinder[0][1]:.2f}; "
                  f"second day {cinder[1][0] / ours[1][0]:.1f} x; restore {cinder[2][0] / ours[2][0]:.1f} x "
                  "(targets: 1 x, 0.5, 5 x, 2 x)")
    print(f"peak memory of karbor: {peak_mib(site)} MiB")


def requests():
    """Returns how many requests each service has logged so far."""
    found = {}
    for name in LOGGING:
        text = (DIRECTORY / "log" / f"{name}.log").read_text(errors="replace")
        found[name] = len(re.findall(r'"(?:GET|POST|PUT|DELETE|PATCH|HEAD) /', text))
    return found


def make_application(cloud, servers):
    image = application.image_with_bytes(cloud)
    network = cloud.post("network", "/networks", {"network": {"name": "shop-net"}})["id"]
    cloud.post("network", "/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.80.0.0/16"}})
    flavor = next(one["id"] for one in cloud.get("compute", "/flavors") if one["name"] == "m1.tiny")
    cloud.post("compute", "/servers", {"server": {
        "name": "many", "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}], "min_count": servers, "max_count": servers}})
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: cloud.post("volumev3", "/volumes", {"volume": {"name": f"many-{n}", "size": 1}}), range(2 * servers)))

    def ready(service, path, state, count):
        # To list hundreds is work for the cloud, which has enough of it.
        return lambda: time.sleep(3) or sum(one["status"].lower() == state for one in cloud.list(service, path)) == count
    wait_for("the servers", ready("compute", "/servers/detail", "active", servers), 3600)
    wait_for("the volumes", ready("volumev3", "/volumes/detail", "available", 2 * servers), 3600)
    pairs = [(server["id"], volume["id"]) for server, volume in zip(
        [one for one in cloud.list("compute", "/servers/detail") for _ in (0, 1)], cloud.list("volumev3", "/volumes/detail"))]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda pair: cloud.post("compute", f"/servers/{pair[0]}/os-volume_attachments", {"volumeAttachment": {"volumeId": pair[1]}}), pairs))
    wait_for("the attachments", ready("volumev3", "/volumes/detail", "in-use", 2 * servers), 3600)


def many(site, karbor, cloud, arguments):
    make_application(cloud, arguments.servers)
    provider = karbor.provider(arguments.provider)
    plan = karbor.project_plan(provider, "many")
    settled = requests()
    begun = time.monotonic()
    checkpoint = karbor.protect(provider, plan)

    def stands():
        operation = karbor.operation(checkpoint)
        return operation["progress"]["steps"] and sum(operation["progress"]["steps"].values()) or operation["state"] in ("failed", "succeeded")
    wait_for("the graph", stands, 600)
    wall = time.monotonic() - begun
    made = {name: count - settled[name] for name, count in requests().items() if count != settled[name]}
    state = karbor.wait(checkpoint, 3600)["state"]
    ended = time.monotonic() - begun
    resources = karbor.ask("GET", f"/operations/{checkpoint}/resources")
    print(f"{len(resources)} resources: graph after {wall:.1f} s (target: 10 s), requests until then: {made}")
    print(f"the operation {state} after {ended:.1f} s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--karbor", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/karbor-bench"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("volume", "application"))
    parser.add_argument("--servers", type=int, default=200)
    parser.add_argument("--provider", default="No-op")
    arguments = parser.parse_args()
    site, cloud = Site(arguments.karbor), Cloud("demo")
    karbor = Karbor(cloud)
    application.remove(cloud)
    site.stop()
    shutil.rmtree(site.state, ignore_errors=True)
    site.start()
    try:
        if arguments.only != "application":
            volume(site, karbor, cloud, arguments)
        if arguments.only != "volume":
            many(site, karbor, cloud, arguments)
    finally:
        site.stop()
        application.remove(cloud)


if __name__ == "__main__":
    main()
