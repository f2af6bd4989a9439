#!/usr/bin/env python3
"""Measures the API with wrk (Debian: wrk): requests a second, latencies at the top and at half of the rate, memory.

  bench/api.py [--karbor PATH] [--database sqlite,postgres,mariadb] [--runs N] [--seconds N] [--many N]

Server and load share the machine. 1,000 plans: lists of 100, one plan, creates (each durable before it is answered: the
databases sync at every commit). Then --many plans: the memory of the service, and a page of 100 deep in the list
against the first. Medians of several runs.
"""
import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "testing"))
from database import Server  # noqa: E402
from service import Service  # noqa: E402

CONFIG = """
[database]
url = "{url}"
[quota]
plans = -1
"""
PLAN = {"name": "bench", "description": "first", "provider_id": "b766f37c-d011-4026-8228-28730d734a3f", "parameters": {},
        "resources": [{"id": "11111111-1111-4111-8111-000000000001", "type": "OS::Cinder::Volume", "name": "vol-1"}]}


def milliseconds(text):
    number, unit = re.match(r"([\d.]+)(us|ms|s|m)$", text).groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


class Load:
    def __init__(self, service, options, home):
        self.service, self.options, self.home = service, options, home

    def run(self, path, body=None, connections=16, delay=0):
        """Runs wrk once; returns requests a second, p50, p99 and how many answers were wrong."""
        connection = self.service.connection()
        script = ""
        if body is not None:
            script += f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\nwrk.body = [[{json.dumps(body)}]]\n'
        if delay:
            # Spread, so that the connections do not march in step.
            script += f"function delay() return math.random({max(delay // 2, 1)}, {delay + delay // 2}) end\n"
        file = self.home / "wrk.lua"
        file.write_text(script)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{connections}", f"-d{self.options.seconds}s", "--timeout", "30s", "--latency", "-s", str(file),
             "-H", f"X-Auth-Token: {connection['token']}", connection["url"] + path], text=True, capture_output=True, check=True).stdout

        def found(pattern):
            match = re.search(pattern, done, re.MULTILINE)
            return match and match.group(1)
        return (float(found(r"Requests/sec:\s+([\d.]+)")), milliseconds(found(r"^\s+50%\s+(\S+)")), milliseconds(found(r"^\s+99%\s+(\S+)")),
                int(found(r"Non-2xx or 3xx responses: (\d+)") or 0))

    def measure(self, name, path, body=None):
        runs = [self.run(path, body) for _ in range(self.options.runs)]
        rate, p50, p99 = (statistics.median(run[index] for run in runs) for index in range(3))
        connections = 64
        # A connection's turn is its delay and its latency; half of the top rate.
        delay = max(1, round(connections * 1000 / (rate / 2)) - max(1, round(p50 / 2)))
        half = [self.run(path, body, connections, delay) for _ in range(self.options.runs)]
        wrong = sum(run[3] for run in runs + half)
        print(f"{name:28} {rate:9.0f} {p50:8.2f} {p99:8.2f}   {statistics.median(run[0] for run in half):9.0f} "
              f"{statistics.median(run[2] for run in half):8.2f} {wrong:6}", flush=True)

    def rss(self):
        text = Path(f"/proc/{self.service.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) // 1024


def seed(service, count):
    """Makes plans over a few connections."""
    import http.client
    connection = service.connection()
    url = urlsplit(connection["url"])
    body = json.dumps({"plan": PLAN})
    headers = {"X-Auth-Token": connection["token"], "Content-Type": "application/json"}

    def some(number):
        client = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        id = None
        for _ in range(number):
            client.request("POST", url.path + "/plans", body, headers)
            answer = client.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise SystemExit(f"a plan was refused: {text}")
            id = json.loads(text)["plan"]["id"]
        return id
    with ThreadPoolExecutor(16) as pool:
        shares = [count // 16 + (index < count % 16) for index in range(16)]
        return list(pool.map(some, shares))[0]


def deep(service, count):
    """Walks to the last page and returns its marker."""
    marker = None
    for _ in range(max(count // 1000 - 1, 0)):
        path = "/plans?limit=1000" + (f"&marker={marker}" if marker else "")
        marker = service.ask("GET", path)["plans"][-1]["id"]
    return marker


def bench(kind, options):
    home = Path(tempfile.mkdtemp(prefix="karbor-bench-", dir=options.work))
    server = None
    try:
        url = f"sqlite:{home}/karbor.db"
        if kind != "sqlite":
            server = Server(kind, home / "server")
            url = server.url
        service = Service(options.karbor, home / "state", CONFIG.format(url=url))
        service.start()
        load = Load(service, options, home)
        try:
            print(f"\n{kind}\n{'request':28} {'req/s':>9} {'p50 ms':>8} {'p99 ms':>8}   {'half rate':>9} {'p99 ms':>8} {'not 2xx':>6}")
            one = seed(service, 1000)
            load.measure("GET plans?limit=100", "/plans?limit=100")
            load.measure("GET one plan", f"/plans/{one}")
            load.measure("POST plans", "/plans", {"plan": PLAN})
            if options.many:
                seed(service, options.many)
                quota = service.ask("GET", f"/quotas/{service.project}/detail")["quota"]["plans"]["in_use"]
                marker = deep(service, quota)
                # In turn: the machine is not equally quick all the time.
                pairs = [[load.run(f"/plans?limit=100{more}")[0] for more in ("", f"&marker={marker}")]
                         for _ in range(options.runs)]
                first, last = (statistics.median(rates) for rates in zip(*pairs))
                print(f"{quota} plans: {load.rss()} MiB resident; the first page {first:.0f}/s, a page behind "
                      f"{quota // 1000 * 1000 - 1000} plans {last:.0f}/s", flush=True)
        finally:
            service.stop()
    finally:
        if server:
            server.stop()
        shutil.rmtree(home, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", str(Path.home() / ".cache/karbor-target"))
    parser.add_argument("--karbor", default=f"{target}/release/karbor")
    parser.add_argument("--database", default="sqlite,postgres,mariadb")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--work", help="where the databases lie")
    options = parser.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not installed (Debian: apt-get install wrk)")
    for kind in options.database.split(","):
        begun = time.monotonic()
        bench(kind, options)
        print(f"{time.monotonic() - begun:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
