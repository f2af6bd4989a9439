#!/usr/bin/env python3
"""Karbor's main job, end to end, as a user would do it: protect, lose, restore, compare.

Everything lies below one directory; a second run starts anew with an empty one. Whatever happens (also Ctrl-C),
no process is left behind.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import sample  # noqa: E402
import signals  # noqa: E402
from postgres import Postgres  # noqa: E402

BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stderr.isatty() else ("", "", "")


def say(text):
    print(f"{BOLD}==>{PLAIN} {text}", file=sys.stderr, flush=True)


def size(count):
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024


def allocated(path):
    if path.is_dir():
        return sum(p.lstat().st_blocks * 512 for p in path.rglob("*"))
    return path.stat().st_blocks * 512


class Service:
    """`karbor serve` on its embedded defaults."""

    def __init__(self, binary, state, port):
        self.binary, self.state, self.port = binary, state, port
        self.process = None

    def start(self):
        self.state.mkdir(parents=True, exist_ok=True)
        log = open(self.state / "karbor.log", "ab")
        with signals.held():
            self.process = subprocess.Popen(
                [self.binary, "serve", "--state-dir", self.state, "--listen", f"127.0.0.1:{self.port}"],
                stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while not self.healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.state / "karbor.log").read_text(errors="replace").splitlines()[-5:]
                raise SystemExit("error: karbor serve did not start:\n  " + "\n  ".join(tail))
            time.sleep(0.05)

    def url(self):
        return json.loads((self.state / "client.json").read_text())["url"]

    def healthy(self):
        try:
            with urllib.request.urlopen(self.url().split("/v1/")[0] + "/healthcheck", timeout=2) as answer:
                return answer.status == 200
        except (OSError, ValueError, KeyError):
            return False

    def memory(self, field):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Run:
    def __init__(self, arguments):
        self.keep = arguments.keep
        self.home = arguments.home
        self.karbor_binary = os.path.abspath(arguments.karbor)
        self.state = self.home / "state"
        self.data = self.home / "application"
        self.web, self.disk = self.data / "web", self.data / "app" / "disk.img"
        self.sqlite = self.data / "events" / "events.db"
        self.postgres = Postgres(self.home / "postgresql")
        self.service = Service(self.karbor_binary, self.state, arguments.port)
        self.writer = None
        self.summary = []

    # -- processes ----------------------------------------------------------------------------------------------

    def karbor(self, *command, check=True, capture=False):
        """Runs a client command as a user would; shows it."""
        shown = " ".join(str(word) for word in command)
        print(f"{DIM}$ karbor {shown}{PLAIN}", file=sys.stderr, flush=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OS_", "KARBOR_"))}
        environment["KARBOR_STATE_DIR"] = str(self.state)
        done = subprocess.run([self.karbor_binary, *map(str, command)], env=environment, text=True,
                              stdout=subprocess.PIPE if capture else None)
        if check and done.returncode:
            raise SystemExit(f"error: karbor {shown} failed with status {done.returncode}; see {self.state}/karbor.log")
        return done

    def asked(self, *command):
        return json.loads(self.karbor("-o", "json", *command, capture=True).stdout)

    def start_writer(self):
        path = os.path.abspath(sample.__file__)
        with signals.held():
            self.writer = subprocess.Popen([sys.executable, path, self.sqlite], start_new_session=True)

    def stop_writer(self):
        if self.writer and self.writer.poll() is None:
            self.writer.terminate()
            self.writer.wait()

    def close(self):
        self.stop_writer()
        self.service.stop()
        self.postgres.stop()

    # -- the main job -------------------------------------------------------------------------------------------

    def run(self):
        self.prepare()
        plan = self.make_plan()
        first, before = self.protect(plan, "first")
        self.lose()
        self.restore(first)
        self.compare(before)
        say("a small change: some files edited, added and removed, some files written inside the disk image, some rows")
        self.start_writer()
        sample.change_a_little(self.web, self.disk, self.postgres)
        self.protect(plan, "second")
        self.stop_writer()
        self.tell()

    def prepare(self):
        marker = self.home / ".karbor-quickstart"
        if self.home.exists() and not marker.exists() and any(self.home.iterdir()):
            raise SystemExit(f"error: {self.home} exists and was not made by the quickstart: name another directory "
                             "with KARBOR_QUICKSTART_DIR")
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        marker.touch()
        self.home.chmod(0o755)
        say(f"making a three-tier application of real files below {self.data}")
        self.data.mkdir()
        sample.make_web(self.web)
        sample.make_disk(self.disk, self.home / "staging")
        self.postgres.start()
        sample.make_postgres(self.postgres)
        sample.make_sqlite(self.sqlite)
        say("starting karbor serve on its defaults")
        self.service.start()
        self.idle = self.service.memory("VmRSS")
        project = json.loads((self.state / "client.json").read_text())["project_id"]
        # TOML and JSON write these texts alike.
        q = json.dumps
        inventory = f"""
[[application]]
name = "shop"
project = {q(project)}
members = ["web", "app", "orders", "events"]

[[directory]]
name = "web"
project = {q(project)}
path = {q(str(self.web))}

[[disk]]
name = "app"
project = {q(project)}
path = {q(str(self.disk))}

[[postgresql]]
name = "orders"
project = {q(project)}
host = {q(str(self.postgres.sockets))}
port = {self.postgres.port}
user = "karbor"
database = "shop"

[[sqlite]]
name = "events"
project = {q(project)}
path = {q(str(self.sqlite))}
"""
        partial = self.state / "inventory.partial"
        partial.write_text(inventory)
        partial.rename(self.state / "inventory.toml")
        self.start_writer()

    def make_plan(self):
        self.karbor("protectable", "instances")
        return self.asked("plan", "create", "shop", "Host::Application=shop", "--provider", "Host Provider")["id"]

    def protect(self, plan, which):
        before = {}
        at_least = sample.sqlite_count(self.sqlite)
        begun = time.monotonic()
        self.karbor("checkpoint", "create", plan, "--wait")
        seconds = time.monotonic() - begun
        at_most = sample.sqlite_count(self.sqlite)
        before["sqlite"] = (at_least, at_most)
        checkpoint = self.asked("checkpoint", "list", "--plan", plan)[0]
        progress = self.asked("operation", "show", checkpoint["id"])["progress"]
        self.summary.append((f"{which} protect", seconds, progress["bytes_done"], progress["bytes_stored"]))
        return checkpoint["id"], before

    def lose(self):
        say("describing every byte, mode, link and row; then destroying the originals")
        self.stop_writer()
        self.before_tree = sample.describe_tree(self.web)
        self.before_disk = sample.describe_disk(self.disk)
        self.before_postgres = sample.describe_postgres(self.postgres)
        self.disk_allocated = allocated(self.disk)
        self.web_names = len(self.before_tree[0])
        shutil.rmtree(self.web)
        self.disk.unlink()
        for path in self.sqlite.parent.iterdir():
            path.unlink()
        self.postgres.sql("postgres", "DROP DATABASE shop;")

    def restore(self, checkpoint):
        in_place = []
        for kind in ("Directory", "Disk", "PostgreSQL", "SQLite"):
            in_place += ["-p", f"Host::{kind}.in_place=true"]
        self.karbor("restore", "create", checkpoint, *in_place, "--dry-run")
        begun = time.monotonic()
        self.karbor("restore", "create", checkpoint, *in_place, "--wait")
        seconds = time.monotonic() - begun
        restore = self.asked("restore", "list")[0]
        progress = self.asked("operation", "show", restore["id"])["progress"]
        self.summary.append(("restore", seconds, progress["bytes_done"], None))

    def compare(self, before):
        say("comparing")
        problems = []
        sample.compare("web", self.before_tree, sample.describe_tree(self.web), problems)
        sample.compare("disk", self.before_disk, sample.describe_disk(self.disk), problems)
        if allocated(self.disk) > self.disk_allocated * 1.05 + (1 << 20):
            problems.append(f"disk: it takes {allocated(self.disk)} bytes instead of {self.disk_allocated}")
        checked = subprocess.run(["/sbin/e2fsck", "-fn", self.disk], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if checked.returncode:
            problems.append("disk: e2fsck finds faults in its file system")
        sample.compare("postgresql", self.before_postgres, sample.describe_postgres(self.postgres), problems)
        self.rows, found = sample.check_sqlite(self.sqlite, *before["sqlite"])
        problems += [f"sqlite: {problem}" for problem in found]
        if problems:
            for problem in problems[:20]:
                print(f"  {problem}", file=sys.stderr)
            raise SystemExit(f"error: {len(problems)} differences after the restore")

    def tell(self):
        print(f"\n{BOLD}What was done{PLAIN}")
        for what, seconds, done, stored in self.summary:
            line = f"  {what:15} {seconds:6.1f} s   {size(done):>10}   {done / 1e6 / max(seconds, 0.001):7.0f} MB/s"
            if stored is not None:
                line += f"   {size(stored):>10} added to the bank (1:{done / max(stored, 1):.1f})"
            print(line)
        customers, orders = (self.before_postgres[table].split()[0] for table in ("customers", "orders"))
        print(f"\n{BOLD}What was compared, and found equal{PLAIN}")
        print(f"  {self.web_names} names of a directory tree: bytes, modes, owners, times, links, attributes")
        print(f"  a disk image of {size(sample.DISK_BYTES)}, {size(self.disk_allocated)} of it allocated: bytes, and e2fsck is content")
        print(f"  a PostgreSQL database: {customers} + {orders} rows, indexes, constraints, view, sequence")
        print(f"  a SQLite database that was written to meanwhile: {self.rows} rows of one commit")
        print(f"\n{BOLD}The service{PLAIN}")
        print(f"  peak memory {size(self.service.memory('VmHWM'))}, idle at start {size(self.idle)}, "
              f"binary {size(os.stat(self.karbor_binary).st_size)}")
        print(f"  address     {self.service.url()}")
        print(f"  token       in {self.state}/client.json (readable by you only)")
        print(f"\n{BOLD}How to go on{PLAIN}  (start it again with: {self.karbor_binary} serve --state-dir {self.state})")
        print(f"  export KARBOR_STATE_DIR={self.state} PATH={os.path.dirname(self.karbor_binary)}:$PATH")
        for command in ("karbor checkpoint list", "karbor plan show shop", "karbor operation log",
                        "karbor verification create $(karbor -o json checkpoint list | grep -m1 -o '[0-9a-f-]\\{36\\}') --wait",
                        "karbor protectable instances"):
            print(f"  {command}")
        if self.keep:
            print("\nRunning until Ctrl-C.", flush=True)
            signal.pause()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    parser.add_argument("--karbor", required=True, help="the binary")
    parser.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="port of the service; 0 takes a free one")
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("KARBOR_QUICKSTART_DIR") or f"{state}/karbor-quickstart"))
    arguments = parser.parse_args()
    # PostgreSQL runs as another user when this is root: it must be able to reach its directory.
    if os.geteuid() == 0 and str(arguments.home).startswith("/root/"):
        arguments.home = Path("/var/lib/karbor-quickstart")

    signals.install()
    run = Run(arguments)
    try:
        run.run()
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    finally:
        with signals.held():
            run.close()


if __name__ == "__main__":
    main()
