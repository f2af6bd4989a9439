"""A PostgreSQL or MariaDB of a test's own, stopped by process id."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from service import wait_for


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
        log = open(home.parent / "server.log", "ab")
        data = home / "data"
        if kind == "postgres":
            tools = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
            self.call(tools / "initdb", "-D", data, "-U", "karbor", "-A", "trust", "-E", "UTF8", "--locale=C")
            command = [tools / "postgres", "-D", data, "-k", home, "-c", "listen_addresses="]
            self.url = f"postgres://karbor@localhost/postgres?host={home}"
            ready = [tools / "pg_isready", "-q", "-h", home]
        else:
            self.call("mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db",
                      f"--datadir={data}")
            socket = home / "server.sock"
            command = ["/usr/sbin/mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking",
                       "--skip-log-bin", "--innodb-flush-log-at-trx-commit=1", f"--pid-file={home}/server.pid"]
            self.url = f"mariadb://root@localhost/karbor?socket={socket}"
            ready = ["mariadb", "--no-defaults", f"--socket={socket}", "-u", "root", "-e", "CREATE DATABASE IF NOT EXISTS karbor"]
        self.process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd="/", start_new_session=True, **self.who())
        wait_for(f"{kind} to answer", lambda: subprocess.run(list(map(str, ready)), capture_output=True).returncode == 0, 60)

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
