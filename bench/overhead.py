#!/usr/bin/env python3
"""Measures what the service adds to the data engine: the same image protected by `karbor serve` and by `karbor bank`.

  bench/overhead.py --karbor PATH [--image FILE] [--work DIR] [--runs N]

Each run begins with an empty bank of its own, the two in turn. Timed is the whole client command: `karbor checkpoint
create --wait` beside `karbor bank backup`. CPU seconds are those of the service (and the client), and of the tool.
Without --image: the first image of bench/engine.py, which must have run before. Prints medians and their ratio.
"""
import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "testing"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine import measured  # noqa: E402
from service import Service, wait_for  # noqa: E402


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def warm(image):
    with open(image, "rb", buffering=0) as file:
        while file.read(8 << 20):
            pass
    os.sync()


def with_service(binary, image, work):
    """Returns (CPU seconds, wall seconds) of one protect with the service."""
    service = Service(binary, work / "state")
    service.start()
    try:
        service.inventory(f'[[disk]]\nname = "image"\nproject = "{service.project}"\npath = "{image}"\n')
        wait_for("the inventory to be read", lambda: service.ask("GET", "/protectables/Host::Disk/instances")["instances"])
        made = service.karbor("-o", "json", "plan", "create", "image", "Host::Disk=image", "--provider", "Host Provider")
        plan = json.loads(made.stdout)["id"]
        warm(image)
        environment = {**os.environ, "KARBOR_STATE_DIR": str(service.state)}
        before = cpu_seconds(service.process.pid)
        cpu, wall, _, _ = measured([binary, "checkpoint", "create", plan, "--wait"], env=environment)
        cpu += cpu_seconds(service.process.pid) - before
        return cpu, wall
    finally:
        service.stop()


def with_bank(binary, image, work):
    """Returns (CPU seconds, wall seconds) of the same with the data engine alone."""
    bank = [work / "bank", "--key-file", work / "key"]
    environment = {**os.environ, "KARBOR_CACHE_DIR": str(work / "cache")}
    measured([binary, "bank", "init", *bank], env=environment)
    warm(image)
    cpu, wall, _, _ = measured([binary, "bank", "backup", *bank, "image", image], env=environment)
    return cpu, wall


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--karbor", type=Path, required=True)
    parser.add_argument("--image", type=Path, default=Path("/var/tmp/karbor-bench/day0.img"))
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/karbor-bench"))
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    binary, results = os.path.abspath(arguments.karbor), {"service": [], "engine": []}
    for run in range(arguments.runs):
        ways = [("engine", with_bank), ("service", with_service)]
        # What was written before is still being dealt with by the kernel: nobody is always the second.
        for name, way in ways if run % 2 else reversed(ways):
            work = arguments.work / "service-bench"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            results[name].append(way(binary, arguments.image, work))
            print(f"run {run + 1}, {name}: {results[name][-1][0]:.2f} CPU s, {results[name][-1][1]:.2f} s", file=sys.stderr)
            shutil.rmtree(work)
            time.sleep(0.1)
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in results.items()}
    for name, (cpu, wall) in medians.items():
        print(f"{name:8} {cpu:6.2f} CPU s {wall:6.2f} s")
    cpu, wall = (of / by for of, by in zip(medians["service"], medians["engine"]))
    print(f"ratio    {cpu:6.2f}       {wall:6.2f}     target: at most 1.10")


if __name__ == "__main__":
    main()
