"""A PostgreSQL cluster of one's own: in a directory, on a Unix socket, run by an ordinary user."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

import signals


class Postgres:
    """PostgreSQL from Debian's package, below one directory, stopped by process id."""

    def __init__(self, home: Path):
        self.home = home
        self.data = home / "data"
        self.sockets = home / "socket"
        self.port = 5432  # names the socket only: it does not listen on a network
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[4]))
        if not versions:
            raise SystemExit("error: PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
        self.bin = versions[-1].parent
        # The server refuses to run as root.
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        self.process = None

    def _run_as(self):
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _check_reachable(self):
        """The server's user must be able to walk to its directory, and the socket's path has a limit of the kernel."""
        reached = subprocess.run(["test", "-w", self.sockets], **self._run_as()).returncode == 0
        if not reached:
            raise SystemExit(f"error: the user {self.user} cannot reach {self.home}, where its database is to be: name "
                             "a directory that all may enter with KARBOR_QUICKSTART_DIR")
        if len(os.fsencode(self.sockets / f".s.PGSQL.{self.port}")) > 107:
            raise SystemExit(f"error: {self.home} is too long a path for a socket: name a shorter one with "
                             "KARBOR_QUICKSTART_DIR")

    def start(self):
        """Makes the cluster when there is none, and starts it."""
        if not (self.data / "PG_VERSION").exists():
            shutil.rmtree(self.data, ignore_errors=True)
            for directory in (self.home, self.data, self.sockets):
                directory.mkdir(parents=True, exist_ok=True)
                if os.geteuid() == 0:
                    shutil.chown(directory, self.user, self.user)
            self._check_reachable()
            self.data.chmod(0o700)
            subprocess.run(
                [self.bin / "initdb", "-D", self.data, "-U", "karbor", "-A", "trust", "-E", "UTF8", "--locale=C"],
                check=True, stdout=subprocess.DEVNULL, cwd="/", **self._run_as())
        log = open(self.home / "log", "ab")
        with signals.held():
            self.process = subprocess.Popen(
                [self.bin / "postgres", "-D", self.data, "-k", self.sockets, "-p", str(self.port),
                 "-c", "listen_addresses=", "-c", "fsync=off"],
                stdout=log, stderr=log, cwd="/", start_new_session=True, **self._run_as())
        deadline = time.monotonic() + 60
        while subprocess.run([self.bin / "pg_isready", "-q", "-h", self.sockets, "-p", str(self.port)]).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"error: PostgreSQL did not start; see {self.home}/log")
            time.sleep(0.1)

    def stop(self):
        """Stops the server and waits for it."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def sql(self, database: str, text: str) -> str:
        """Runs SQL and returns the rows, unadorned."""
        done = subprocess.run(
            [self.bin / "psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.sockets,
             "-p", str(self.port), "-U", "karbor", "-d", database],
            input=text, text=True, capture_output=True)
        if done.returncode:
            raise SystemExit(f"error: psql failed: {done.stderr.strip()}")
        return done.stdout.strip()
