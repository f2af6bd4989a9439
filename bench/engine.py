#!/usr/bin/env python3
"""Measures the data engine against restic, rustic and borg, encryption on in all, in one run.

  bench/engine.py [--karbor PATH] [--work DIR] [--runs N] [--only NAME,...] [--small-files] [--add FILE]

Makes a sparse 4 GiB ext4 image of real files (about 2.6 GiB allocated, a tenth of it incompressible) and a second
day of it (2 % rewritten in clusters, 64 MiB new), then for each program: first backup, unchanged, second day,
restore of the first and comparison of every byte. "Unchanged" is read again by all: who would look at times only is
told not to. With a list of changed blocks (made outside of what is timed) ours runs the second day once more, and
the unchanged one with an empty list.

With --small-files: a directory of 100,000 small files instead, of which 500 change; there, times may be looked at.

Prints CPU seconds / wall seconds, peak memory and stored bytes, medians of all runs, ours to the best peer, and
the target. Runs are kept in FILE with --add, and those in it count as well. Sources are read into the page cache,
and what is dirty is written, before each measurement. Peers that are not installed are left out and named.
"""
import argparse
import filecmp
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

IMAGE_BYTES = 4 << 30
CONTENT_BYTES = 2560 << 20
PASSWORD = "benchmark"


def measured(command, **kwargs):
    """Runs a command; returns (CPU seconds, wall seconds, peak MiB, standard output)."""
    begun = time.monotonic()
    out = open(kwargs.pop("out", os.devnull), "w+b")
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, **kwargs)
    error = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed: {error.decode(errors='replace')}")
    out.seek(0)
    return usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, out.read().decode(errors="replace")


def real_files(limit):
    """Yields real files of this machine in a fixed order, up to so many bytes; again from the start if need be."""
    total, generation = 0, 0
    while total < limit and generation < 8:
        for root in ("/usr/lib", "/usr/bin", "/usr/share", "/usr/include", "/opt", os.path.expanduser("~/.rustup")):
            for directory, names, files in os.walk(root):
                names.sort()
                for name in sorted(files):
                    path = os.path.join(directory, name)
                    if os.path.islink(path) or not os.access(path, os.R_OK):
                        continue
                    size = os.path.getsize(path)
                    if 0 < size <= 256 << 20 and total + size <= limit:
                        total += size
                        yield path, f"{generation}{path}"
        generation += 1


def make_images(work):
    first, second = work / "day0.img", work / "day1.img"
    if second.exists():
        return first, second
    staging = work / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    incompressible = CONTENT_BYTES // 10
    for source, name in real_files(CONTENT_BYTES - incompressible):
        target = staging / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    rng = random.Random(1)
    for n in range(16):
        (staging / f"random-{n}").write_bytes(rng.randbytes(incompressible // 16))
    with open(first, "wb") as image:
        image.truncate(IMAGE_BYTES)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", staging, first], check=True)
    shutil.rmtree(staging)
    partial = work / "day1.partial"
    subprocess.run(["cp", "--sparse=always", first, partial], check=True)
    # 2 % rewritten in clusters of 1 to 8 MiB, at block borders, and 64 MiB where there was nothing.
    with open(partial, "r+b") as image:
        left = IMAGE_BYTES // 50
        while left > 0:
            length = min(left, rng.randrange(256, 2049) * 4096)
            image.seek(rng.randrange(0, (CONTENT_BYTES - length) // 4096) * 4096)
            image.write(rng.randbytes(length // 2) + b"compressible text " * (length // 2 // 18 + 1))
            left -= length
        image.seek(IMAGE_BYTES - (512 << 20))
        image.write(rng.randbytes(32 << 20) + b"\x01\x02\x03\x04" * (8 << 20))
    partial.rename(second)
    return first, second


def list_changes(work, first, second):
    """Writes the ranges in which the second image differs, in blocks of 64 KiB: what a hypervisor would tell."""
    listed, grain = work / "changed.txt", 64 << 10
    if listed.exists():
        return listed
    ranges = []
    with open(first, "rb") as old, open(second, "rb") as new:
        for piece in range(0, IMAGE_BYTES, 16 << 20):
            before, after = old.read(16 << 20), new.read(16 << 20)
            if before == after:
                continue
            for at in range(0, len(after), grain):
                if before[at : at + grain] != after[at : at + grain]:
                    if ranges and sum(ranges[-1]) == piece + at:
                        ranges[-1] = (ranges[-1][0], ranges[-1][1] + grain)
                    else:
                        ranges.append((piece + at, grain))
    listed.write_text("".join(f"{offset} {length}\n" for offset, length in ranges))
    return listed


def make_small_files(work):
    first, second = work / "small0", work / "small1"
    if second.exists():
        return first, second
    rng = random.Random(2)
    texts = [path for path, _ in real_files(1 << 30) if os.path.getsize(path) < 64 << 10][:20_000]
    partial = work / "small.partial"
    shutil.rmtree(partial, ignore_errors=True)
    for n in range(100_000):
        target = partial / f"{n // 1000:03}" / f"{n % 1000:03}"
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(texts[n % len(texts)], "rb") as source:
            target.write_bytes(f"{n}\n".encode() + source.read(rng.randrange(100, 12_000)))
    partial.rename(first)
    subprocess.run(["cp", "-a", first, work / "small1.partial"], check=True)
    for n in rng.sample(range(100_000), 500):
        with open(work / "small1.partial" / f"{n // 1000:03}" / f"{n % 1000:03}", "ab") as file:
            file.write(b"changed\n")
    (work / "small1.partial").rename(second)
    return first, second


def settle(source):
    """Reads the source into the page cache and writes what is dirty, so that nobody pays for who came before."""
    os.sync()
    touch_memory()
    for path in [source] if source.is_file() else (path for path in source.rglob("*") if path.is_file()):
        with open(path, "rb", buffering=0) as file:
            buffer = bytearray(1 << 20)
            while file.readinto(buffer):
                pass


def touch_memory():
    """Uses memory for a moment: a virtual machine gets what it has not used lately page by page from its host."""
    # In a process of its own: what is measured later would inherit the peak.
    touch = "import mmap; memory = mmap.mmap(-1, 3 << 30)\nfor at in range(0, 3 << 30, 4096): memory[at] = 1"
    subprocess.run([sys.executable, "-c", touch], check=True)


def size_of(path):
    return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())


class Karbor:
    name = "karbor"

    def __init__(self, work, binary):
        self.repo, self.key, self.binary = work / "karbor", work / "karbor.key", binary
        self.cache = work / "karbor-cache"

    def start(self):
        self.key.unlink(missing_ok=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        self.common = ["--key-file", str(self.key), "--cache-dir", str(self.cache)]
        measured([self.binary, "bank", "init", self.repo, *self.common])

    def backup(self, source, read_again=False, changed=None):
        # A disk is always read, unless a list tells what changed.
        listed = ["--changed-blocks", changed] if changed else []
        return measured([self.binary, "bank", "backup", self.repo, *self.common, *listed, "data", source], out=str(self.repo) + ".out")

    def keep(self):
        """Keeps the bank and its cache as they are now; objects are never changed, so names are enough."""
        for path in (self.repo, self.cache):
            kept = path.with_name(path.name + "-kept")
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(path, kept, copy_function=os.link if path == self.repo else shutil.copy2)

    def bring_back(self):
        for path in (self.repo, self.cache):
            shutil.rmtree(path)
            kept = path.with_name(path.name + "-kept")
            shutil.copytree(kept, path, copy_function=os.link if path == self.repo else shutil.copy2)

    def drop_kept(self):
        for path in (self.repo, self.cache):
            shutil.rmtree(path.with_name(path.name + "-kept"))

    def restore(self, target, first):
        return measured([self.binary, "bank", "restore", self.repo, *self.common, first, target])

    def id_of(self, out):
        return out.strip().splitlines()[-1]


class Restic:
    name = "restic"

    def __init__(self, work, _binary):
        self.repo, self.cache = work / "restic", work / "restic-cache"
        self.env = {**os.environ, "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(self.cache)}

    def start(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        measured(["restic", "init", "-r", self.repo], env=self.env)

    def backup(self, source, read_again=False):
        force = ["--force"] if read_again else []
        return measured(["restic", "-r", self.repo, "backup", "--json", *force, source.name], env=self.env,
                        cwd=source.parent, out=str(self.repo) + ".out")

    def restore(self, target, first):
        return measured(["restic", "-r", self.repo, "restore", first, "--target", target], env=self.env)

    def id_of(self, out):
        return json.loads(out.strip().splitlines()[-1])["snapshot_id"]


class Rustic:
    name = "rustic"
    config = []

    def __init__(self, work, _binary):
        self.repo, self.cache = work / self.name, work / f"{self.name}-cache"
        self.env = {**os.environ, "RUSTIC_PASSWORD": PASSWORD, "RUSTIC_CACHE_DIR": str(self.cache), "RUSTIC_REPOSITORY": str(self.repo)}

    def start(self):
        shutil.rmtree(self.cache, ignore_errors=True)
        measured(["rustic", "init", *self.config], env=self.env)

    def backup(self, source, read_again=False):
        force = ["--force"] if read_again else []
        return measured(["rustic", "backup", "--json", *force, source.name], env=self.env, cwd=source.parent,
                        out=str(self.repo) + ".out")

    def restore(self, target, first):
        target.mkdir(parents=True)
        return measured(["rustic", "restore", first, str(target)], env=self.env)

    def id_of(self, out):
        return json.loads(out[out.index("{"):])["id"]


class RusticFixed(Rustic):
    name = "rustic-fixed"
    config = ["--set-chunker", "fixed_size", "--set-chunk-size", "1MiB", "--set-compression", "1"]


class Borg:
    name = "borg"

    def __init__(self, work, _binary):
        self.repo, self.n = work / "borg", 0
        self.env = {**os.environ, "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(work / "borg-base"),
                    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def start(self):
        shutil.rmtree(self.env["BORG_BASE_DIR"], ignore_errors=True)
        os.makedirs(self.env["BORG_BASE_DIR"])
        measured(["borg", "init", "-e", "repokey-blake2", self.repo], env=self.env)

    def backup(self, source, read_again=False):
        self.n += 1
        chunker = ["--chunker-params", "fixed,1048576"] if source.is_file() else []
        cache = ["--files-cache", "disabled"] if read_again else []
        done = measured(["borg", "create", "-C", "zstd,1", *chunker, *cache, f"{self.repo}::{self.n}", source.name], env=self.env, cwd=source.parent)
        return (*done[:3], str(self.n))

    def restore(self, target, first):
        target.mkdir(parents=True)
        sparse = ["--sparse"]
        return measured(["borg", "extract", *sparse, f"{self.repo}::{first}"], env=self.env, cwd=target)

    def id_of(self, out):
        return out


def run_one(kind, work, binary, first, second, changed):
    program = kind(work, binary)
    shutil.rmtree(program.repo, ignore_errors=True)
    # Every program sees the same path on both days.
    source = work / "source" / ("tree" if first.is_dir() else "disk.img")
    source.parent.mkdir(exist_ok=True)

    program.start()
    rows = {}
    peak = 0

    def backup(row, **how):
        nonlocal peak
        settle(source)
        cpu, wall, memory, out = program.backup(source, **how)
        rows[row], peak = (cpu, wall), max(peak, memory)
        return program.id_of(out)

    first.rename(source)
    try:
        checkpoint = backup("first")
        rows["stored"] = size_of(program.repo) / 1e6
        backup("unchanged", read_again=source.is_file())
        if changed:
            program.keep()
            empty = work / "changed-none.txt"
            empty.write_text("")
            backup("unchanged-list", changed=empty)
            program.bring_back()
    finally:
        source.rename(first)
    second.rename(source)
    try:
        if changed:
            backup("second-list", changed=changed)
            program.bring_back()
            program.drop_kept()
        before = size_of(program.repo)
        backup("second")
        rows["added"] = (size_of(program.repo) - before) / 1e6
    finally:
        source.rename(second)
    target = work / "restored"
    shutil.rmtree(target, ignore_errors=True)
    target.unlink(missing_ok=True)
    os.sync()
    touch_memory()
    cpu, wall, memory, _ = program.restore(target, checkpoint)
    rows["restore"], rows["peak"] = (cpu, wall), max(peak, memory)
    if first.is_dir():
        restored = next(p for p in [*target.rglob(source.name), target] if p.is_dir())
        same = subprocess.run(["diff", "-rq", first, restored], stdout=subprocess.DEVNULL).returncode == 0
    else:
        restored = target if target.is_file() else next(target.rglob(source.name))
        same = filecmp.cmp(first, restored, shallow=False)
    if not same:
        sys.exit(f"{program.name}: what was restored differs")
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    shutil.rmtree(program.repo)
    return rows


# Rows: name, title, target for CPU and wall, ours to the best peer.
TIMES = [
    ("first", "first backup", (0.8, 0.5)),
    ("unchanged", "unchanged, read again", (0.3, 0.25)),
    ("second", "second day", (0.5, 0.35)),
    ("restore", "restore", (0.75, 0.6)),
]
SMALL_TIMES = [
    ("first", "first backup", (1, 1)),
    ("unchanged", "unchanged", (1, 1)),
    ("second", "500 files changed", None),
    ("restore", "restore", (1, 1)),
]
# Rows of ours alone, to our unchanged run.
LISTED = [
    ("unchanged-list", "unchanged, with a list of changed blocks", 0.1),
    ("second-list", "second day, with a list of changed blocks", 0.1),
]
SIZES = [
    ("stored", "stored after the first, MB", 1.06),
    ("added", "added by the second day, MB", None),
    ("peak", "peak memory, MiB", None),
]


def report(results, names, times):
    def median(name, row, part=None):
        return statistics.median(one[row] if part is None else one[row][part] for one in results[name])

    runs = min(len(results[name]) for name in names)
    compared = len(names) > 1 and names[0] == "karbor"
    print(f"\nMedians of {runs} runs; CPU seconds / wall seconds. Restored bytes were equal in all.\n")
    print("| | " + " | ".join(names) + " |" + (" ours to the best peer | target |" if compared else ""))
    print("| --- " * (len(names) + 1 + 2 * compared) + "|")
    for row, title, target in times:
        cells = [f"{median(name, row, 0):.2f} / {median(name, row, 1):.2f}" for name in names]
        if compared:
            best = [min(median(name, row, part) for name in names[1:]) for part in (0, 1)]
            cells.append(" / ".join(f"{median('karbor', row, part) / best[part]:.2f}" for part in (0, 1)))
            cells.append(f"{target[0]} / {target[1]}" if target else "")
        print(f"| {title} | " + " | ".join(cells) + " |")
    for row, title, target in SIZES:
        cells = [f"{median(name, row):.0f}" for name in names]
        if compared:
            cells.append(f"{median('karbor', row) / min(median(name, row) for name in names[1:]):.2f}")
            cells.append(f"{target}" if target else "")
        print(f"| {title} | " + " | ".join(cells) + " |")
    if names[0] == "karbor" and all(LISTED[0][0] in one for one in results["karbor"]):
        print("\n| karbor, with a list | CPU / wall | to the unchanged run, read | target |\n| --- | --- | --- | --- |")
        for row, title, target in LISTED:
            ours = [median("karbor", row, part) for part in (0, 1)]
            ratios = [ours[part] / median("karbor", "unchanged", part) for part in (0, 1)]
            print(f"| {title} | {ours[0]:.3f} / {ours[1]:.3f} | {ratios[0]:.2f} / {ratios[1]:.2f} | {target} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/karbor-target"))
    parser.add_argument("--karbor", default=f"{target}/release/karbor")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/karbor-bench"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--small-files", action="store_true")
    parser.add_argument("--add", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    kinds = [Karbor, Restic, Rustic, RusticFixed, Borg]
    if arguments.small_files:
        kinds.remove(RusticFixed)
    wanted = set(filter(None, arguments.only.split(",")))
    kinds = [kind for kind in kinds if not wanted or kind.name in wanted]
    for kind in list(kinds):
        program = kind.name.split("-")[0]
        if program != "karbor" and not shutil.which(program):
            print(f"{kind.name} is not installed and left out", file=sys.stderr)
            kinds.remove(kind)
    if arguments.small_files:
        first, second = make_small_files(arguments.work)
        changed = None
    else:
        first, second = make_images(arguments.work)
        changed = list_changes(arguments.work, first, second)
    results = {}
    if arguments.add and arguments.add.exists():
        results = json.loads(arguments.add.read_text())
    for run in range(arguments.runs):
        for kind in kinds:
            print(f"run {run + 1}: {kind.name}", file=sys.stderr)
            listed = changed if kind is Karbor else None
            rows = run_one(kind, arguments.work, arguments.karbor, first, second, listed)
            results.setdefault(kind.name, []).append(rows)
            if arguments.add:
                arguments.add.write_text(json.dumps(results))
    names = [kind.name for kind in [Karbor, Restic, Rustic, RusticFixed, Borg] if kind.name in results]
    report(results, names, SMALL_TIMES if arguments.small_files else TIMES)


if __name__ == "__main__":
    main()
