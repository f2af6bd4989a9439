#!/usr/bin/env python3
"""Kills `karbor bank` before and after every call that changes the bank: backup, delete, sweep, rewrite, rotation, copy.

bank.py KARBOR   (built with the feature failpoints)

Checked each time: what was committed before is whole; the same command again does its work; everything comes back
byte for byte; after everything is deleted and swept, no pack is left.
"""
import concurrent.futures
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from service import Failed  # noqa: E402

MIB = 1 << 20


class Bank:
    """A bank in a directory, and the tool that works on it."""

    def __init__(self, binary, home):
        self.binary, self.home = binary, home
        self.url, self.key = home / "bank", home / "key"

    def run(self, command, *words, crash=None, check=True, key=None, url=None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KARBOR_")}
        environment["KARBOR_CACHE_DIR"] = str(self.home / "cache")
        if crash:
            environment["KARBOR_CRASH_AT_CALL"] = str(crash)
        line = [self.binary, "-o", "json", "bank", command, url or self.url]
        if command != "scrub":
            line += ["--key-file", key or self.key]
        done = subprocess.run([*map(str, line), *map(str, words)], env=environment, text=True, capture_output=True)
        if check and done.returncode:
            raise Failed(f"bank {command} {' '.join(map(str, words))} ended with {done.returncode}: {done.stderr.strip()}")
        return done

    def checkpoints(self, **more):
        return {row["id"]: row["name"] for row in json.loads(self.run("list", **more).stdout)}

    def check(self, wanted, **more):
        """Verifies all, and restores the newest of each name that `wanted` has bytes for."""
        self.run("verify", "--read-data", **more)
        for name, content in wanted.items():
            target = self.home / "restored"
            target.unlink(missing_ok=True)
            self.run("restore", f"latest:{name}", target, **more)
            if target.read_bytes() != content:
                raise Failed(f"{name} came back with other bytes")

    def packs(self, url=None):
        return [path for path in (url or self.url).glob("accounts/*/packs/*/*") if path.is_file()]

    def empty(self, **more):
        """Deletes everything, sweeps, and sees that nothing is left; ends the sessions of those that died."""
        for id in self.checkpoints(**more):
            self.run("delete", id, **more)
        for _ in range(4):
            self.run("sweep", "--end-silent-sessions", **more)
            if not self.packs(more.get("url")):
                return
        raise Failed(f"{len(self.packs(more.get('url')))} packs are left after everything was deleted and swept")


class World:
    """The data of two days, and banks in the states from which the commands begin."""

    def __init__(self, binary, home):
        self.binary, self.home = binary, home
        rng = random.Random(1)
        chunks = [rng.randbytes(MIB) for _ in range(10)]
        self.first = b"".join(chunks[:6])
        self.second = b"".join(chunks[:2] + chunks[6:])
        for name, content in (("first", self.first), ("second", self.second)):
            (home / name).write_bytes(content)
        bank = Bank(binary, self.state("new"))
        bank.run("init")
        bank = Bank(binary, self.state("one", "new"))
        bank.run("backup", "a", home / "first")
        bank = Bank(binary, self.state("two", "one"))
        bank.run("backup", "b", home / "second")
        bank = Bank(binary, self.state("deleted", "two"))
        bank.run("delete", "latest:a")

    def state(self, name, base=None):
        path = self.home / name
        if base:
            shutil.copytree(self.home / base, path)
        else:
            path.mkdir()
        return path


def backup(world, bank, n):
    died = bank.run("backup", "a", world.home / "first", crash=n, check=False)
    bank.check({})
    bank.run("backup", "a", world.home / "first")
    bank.check({"a": world.first})
    bank.empty()
    return died


def second_backup(world, bank, n):
    died = bank.run("backup", "b", world.home / "second", crash=n, check=False)
    bank.check({"a": world.first})
    bank.run("backup", "b", world.home / "second")
    bank.check({"a": world.first, "b": world.second})
    bank.empty()
    return died


def delete(world, bank, n):
    died = bank.run("delete", "latest:a", crash=n, check=False)
    bank.check({"b": world.second})
    if "a" in bank.checkpoints().values():
        bank.check({"a": world.first})
        bank.run("delete", "latest:a")
    bank.run("sweep", "--end-silent-sessions")
    bank.check({"b": world.second})
    bank.empty()
    return died


def sweep(world, bank, n):
    """Also rewrites: four of six chunks of the first backup's pack are not needed any more."""
    died = bank.run("sweep", "--end-silent-sessions", crash=n, check=False)
    bank.check({"b": world.second})
    bank.run("backup", "a", world.home / "first")
    bank.run("sweep", "--end-silent-sessions")
    bank.check({"a": world.first, "b": world.second})
    bank.empty()
    return died


def rotate(world, bank, n):
    new = bank.home / "new-key"
    died = bank.run("rotate", "--new-key-file", new, crash=n, check=False)
    keys = [key for key in (bank.key, new) if key.exists() and bank.run("list", key=key, check=False).returncode == 0]
    if not keys:
        raise Failed("neither the old nor the new key opens the account")
    bank.check({"a": world.first}, key=keys[0])
    if keys != [new]:
        bank.run("rotate", "--new-key-file", new)
    bank.check({"a": world.first}, key=new)
    if bank.run("list", check=False).returncode == 0:
        raise Failed("the old key still opens the account")
    bank.empty(key=new)
    return died


def copy(world, bank, n):
    other, key = bank.home / "other", bank.home / "other-key"
    bank.run("init", url=other, key=key)
    words = ("latest:a", other, "--to-key-file", key)
    died = bank.run("copy", *words, crash=n, check=False)
    bank.check({"a": world.first})
    bank.run("copy", *words)
    bank.check({"a": world.first}, url=other, key=key)
    bank.empty(url=other, key=key)
    bank.check({"a": world.first})
    return died


COMMANDS = (("new", backup), ("one", second_backup), ("two", delete), ("deleted", sweep), ("one", rotate), ("one", copy))


def case(world, state, command, n):
    """Runs one case; returns (where it died or nothing when it ended before, problem, seconds)."""
    begun = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="karbor-bank-", dir=world.home))
    try:
        for entry in (world.home / state).iterdir():
            (shutil.copytree if entry.is_dir() else shutil.copy)(entry, home / entry.name)
        died = command(world, Bank(world.binary, home), n)
        if died.returncode == 0:
            return None, None, time.monotonic() - begun
        if died.returncode != -signal.SIGKILL:
            return "?", f"it ended with {died.returncode}: {died.stderr.strip()}", time.monotonic() - begun
        place = re.sub(r"accounts/[^/]*/", "", died.stderr.strip().splitlines()[-1].removeprefix("dies "))
        return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{20,}|[0-9a-f]{64}", "…", place), None, time.monotonic() - begun
    except Failed as err:
        return "?", str(err), time.monotonic() - begun
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main():
    home = Path(tempfile.mkdtemp(prefix="karbor-bank-"))
    passed = failed = 0
    try:
        world = World(os.path.abspath(sys.argv[1]), home)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for state, command in COMMANDS:
                name, n, ended = command.__name__.replace("_", " "), 1, False
                while not ended:
                    batch = range(n, n + 8)
                    for number, (place, problem, seconds) in zip(batch, pool.map(lambda k: case(world, state, command, k), batch)):
                        if problem:
                            failed += 1
                            print(f"FAILED {name}, moment {number} ({seconds:.1f} s)\n    {problem}", flush=True)
                        elif place is None:
                            ended = True
                        else:
                            passed += 1
                            print(f"ok     {name} dies {place} ({seconds:.1f} s)", flush=True)
                    n += 8
                    ended |= n > 400
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed < 30)


if __name__ == "__main__":
    main()
