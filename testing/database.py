"""A PostgreSQL or MariaDB of a test's own, stopped by process id."""

import json
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path

from service import Failed, wait_for


class Server:
    """A database server of one's own: in a directory, on a Unix socket, that syncs at every commit."""

    def __init__(self, kind, home):
        self.kind, self.home = kind, home
        self.user = {"postgres": "postgres", "mariadb": "mysql"}[kind]
        home.mkdir()
        for place in (home, home.parent):
            place.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(home, self.user, self.user)
        data = home / "data"
        if kind == "postgres":
            tools = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
            self.call(tools / "initdb", "-D", data, "-U", "karbor", "-A", "trust", "-E", "UTF8", "--locale=C")
            self.command = [tools / "postgres", "-D", data, "-k", home, "-c", "listen_addresses="]
            self.url = f"postgres://karbor@localhost/postgres?host={home}"
            self.ready = [tools / "pg_isready", "-q", "-h", home]
        else:
            self.call("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
                      f"--datadir={data}")
            socket = home / "server.sock"
            self.command = ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking",
                            "--skip-log-bin", "--innodb-flush-log-at-trx-commit=1", f"--pid-file={home}/server.pid"]
            self.url = f"mariadb://root@localhost/karbor?socket={socket}"
            self.ready = ["mariadb", "--no-defaults", f"--socket={socket}", "-u", "root", "-e", "CREATE DATABASE IF NOT EXISTS karbor"]
        self.start()

    def start(self):
        """Starts the server, and waits until it answers."""
        with open(self.home.parent / "server.log", "ab") as log:
            self.process = subprocess.Popen(list(map(str, self.command)), stdout=log, stderr=log, cwd="/", start_new_session=True,
                                            **self.who())
        ready = list(map(str, self.ready))
        wait_for(f"{self.kind} to answer", lambda: subprocess.run(ready, capture_output=True).returncode == 0, 60)

    def who(self):
        if os.geteuid() != 0:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def call(self, *words):
        subprocess.run(list(map(str, words)), check=True, capture_output=True, cwd="/", **self.who())

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def break_off(self):
        """Ends PostgreSQL at once, as `pg_ctl stop -m immediate` does: clients lose their connections, nothing is written."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(60)

    def rows(self, query):
        """Returns what PostgreSQL answers to a query, as a list of dictionaries."""
        words = ["psql", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-h", self.home, "-U", "karbor", "-d", "postgres",
                 "-c", f"SELECT coalesce(json_agg(found), '[]') FROM ({query}) AS found"]
        done = subprocess.run(list(map(str, words)), text=True, capture_output=True)
        if done.returncode:
            raise Failed(f"psql failed: {done.stderr.strip()}")
        return json.loads(done.stdout)
