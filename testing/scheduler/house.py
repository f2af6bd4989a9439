"""A Karbor of many processes on one PostgreSQL, whose clock a test moves, and which dies piece by piece."""

import re
import signal
import time
from pathlib import Path

from clock import Clock
from database import Server
from service import Failed, Service

HOST = "cf56bd3e-97a7-4078-b6d5-f36246333fd9"
CONFIG = """
[database]
url = "{database}"
[keys]
master-key-file = "{home}/master.key"
[host]
inventory = "{home}/inventory.toml"
[[bank]]
name = "default"
url = "{home}/bank"
[[provider]]
id = "{host}"
name = "Host Provider"
bank = "default"
plugins = ["host"]
[quota]
plans = -1
checkpoints = -1
[worker]
concurrency = 8
project-concurrency = 8
lease-seconds = 10
poll-milliseconds = 100
progress-milliseconds = 200
flush-milliseconds = 50
retry-milliseconds = 100
operation-attempts = 1000
sweep-delay-seconds = 600
drain-seconds = 2
[scheduler]
poll-milliseconds = 200
provider-concurrency = 40
retry-seconds = 30
retention-retry-seconds = 60
"""


class Process(Service):
    """One process of the service, with one role."""

    def __init__(self, role, *arguments):
        super().__init__(*arguments)
        self.role = role

    def command(self, words):
        return [*words, "--role", self.role]

    def memory(self):
        """Returns how many MiB it has in memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


class House:
    """The database, an API, schedulers and workers. The first scheduler, the witness, is never killed."""

    def __init__(self, binary, home):
        self.home = Path(home)
        self.database = Server("postgres", self.home / "server")
        self.clock = Clock(self.home / "clock")
        config = CONFIG.format(database=self.database.url, home=self.home, host=HOST)
        environment = {"KARBOR_CLOCK_FILE": str(self.clock.file)}
        roles = {"api": "api", "witness": "scheduler", "scheduler-1": "scheduler", "scheduler-2": "scheduler",
                 "worker-1": "worker", "worker-2": "worker"}
        self.processes = {name: Process(role, binary, self.home / name, config, environment) for name, role in roles.items()}
        self.api, self.witness = self.processes["api"], self.processes["witness"]
        self.deaths = 0

    def keep_alive(self, crash_at=None):
        """Starts whatever does not run; a worker among it dies at `crash_at`. What cannot reach the database ends, and is started again."""
        for name, process in self.processes.items():
            if not process.is_running():
                self.deaths += process.process is not None
                process.spawn(crash_at if process.role == "worker" else None)

    def kill(self, name):
        process = self.processes[name]
        if process.is_running():
            process.process.send_signal(signal.SIGKILL)
            process.process.wait()

    def stop(self):
        """Asks all to end; returns what they ended with."""
        for process in self.processes.values():
            if process.is_running():
                process.process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.stop()
        return {name: process.process.returncode for name, process in self.processes.items() if process.process}

    def close(self):
        for process in self.processes.values():
            process.stop(signal.SIGKILL)
        if self.database.process.poll() is None:
            self.database.stop()

    def open(self):
        """Returns what has not come to its end: triggers to fire, occurrences, retention and operations."""
        left = self.database.rows("""
            SELECT (SELECT count(*) FROM triggers WHERE next_at <= {now}) AS triggers,
                   (SELECT count(*) FROM occurrences WHERE state IN ('waiting', 'ready', 'started')) AS occurrences,
                   (SELECT count(*) FROM occurrences WHERE retain_at IS NOT NULL) AS retention,
                   (SELECT count(*) FROM operations WHERE state IN ('queued', 'running') AND kind <> 'sweep') AS operations
            """.format(now=micros(self.clock.now())))[0]
        return {name: count for name, count in left.items() if count}

    def rest(self, seconds):
        """Waits until nothing is left to do, and no longer than so many seconds; returns whether nothing is."""
        deadline = time.monotonic() + seconds
        while self.open():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def settle(self, seconds):
        """Lets the clock go on without harm until nothing is left to do."""
        deadline = time.monotonic() + seconds
        while not self.rest(1):
            if time.monotonic() > deadline:
                raise Failed(f"after {seconds} s without harm there is still something to do: {self.open()}")
            self.keep_alive()
            self.clock.move(60)

    def logs(self):
        for name in self.processes:
            file = self.home / name / "karbor.log"
            if file.exists():
                yield name, file.read_text(errors="replace")


def micros(at):
    return round(at.timestamp() * 1_000_000)
