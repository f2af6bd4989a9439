#!/usr/bin/env python3
"""Measures the data engine against restic, rustic and borg, encryption on in all, in one run.

  bench/engine.py [--karbor PATH] [--work DIR] [--runs N] [--only NAME,...] [--small-files]

Makes a sparse 4 GiB ext4 image of real files (about 2.6 GiB allocated, a tenth of it incompressible) and a second
day of it (2 % rewritten in clusters, 64 MiB new), then for each program: first backup, unchanged, second day,
restore of the first and comparison of every byte. With --small-files: a directory of 100,000 small files instead.
Prints CPU seconds / wall seconds, peak memory and stored bytes; with several runs, the medians.
Peers that are not installed are left out and named.
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

    def backup(self, source):
        return measured([self.binary, "bank", "backup", self.repo, *self.common, "data", source], out=str(self.repo) + ".out")

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

    def backup(self, source):
        # The same source path each time: linked in.
        return measured(["restic", "-r", self.repo, "backup", "--json", source.name], env=self.env, cwd=source.parent,
                        out=str(self.repo) + ".out")

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

    def backup(self, source):
        return measured(["rustic", "backup", "--json", source.name], env=self.env, cwd=source.parent, out=str(self.repo) + ".out")

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

    def backup(self, source):
        self.n += 1
        chunker = ["--chunker-params", "fixed,1048576"] if source.is_file() else []
        # Unchanged must mean read again for the image, as for the others.
        cache = ["--files-cache", "disabled"] if source.is_file() else []
        done = measured(["borg", "create", "-C", "zstd,1", *chunker, *cache, f"{self.repo}::{self.n}", source.name], env=self.env, cwd=source.parent)
        return (*done[:3], str(self.n))

    def restore(self, target, first):
        target.mkdir(parents=True)
        sparse = ["--sparse"]
        return measured(["borg", "extract", *sparse, f"{self.repo}::{first}"], env=self.env, cwd=target)

    def id_of(self, out):
        return out


def run_one(kind, work, binary, first, second, small):
    program = kind(work, binary)
    shutil.rmtree(program.repo, ignore_errors=True)
    # Every program sees the same path on both days.
    source = work / "source" / ("tree" if small else "disk.img")
    source.parent.mkdir(exist_ok=True)

    program.start()
    rows = {}
    peak = 0
    first.rename(source)
    for label in ("first", "unchanged"):
        cpu, wall, memory, out = program.backup(source)
        rows[label], peak = (cpu, wall), max(peak, memory)
        if label == "first":
            checkpoint = program.id_of(out)
            rows["stored"] = size_of(program.repo) / 1e6
    source.rename(first)
    second.rename(source)
    cpu, wall, memory, _ = program.backup(source)
    rows["second"], peak = (cpu, wall), max(peak, memory)
    rows["added"] = size_of(program.repo) / 1e6 - rows["stored"]
    source.rename(second)
    target = work / "restored"
    shutil.rmtree(target, ignore_errors=True)
    if target.is_file():
        target.unlink()
    cpu, wall, memory, _ = program.restore(target, checkpoint)
    rows["restore"], peak = (cpu, wall), max(peak, memory)
    rows["peak"] = peak
    if small:
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.expanduser("~/.cache/karbor-target"))
    parser.add_argument("--karbor", default=f"{target}/release/karbor")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/karbor-bench"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--small-files", action="store_true")
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
    make = make_small_files if arguments.small_files else make_images
    first, second = make(arguments.work)
    results = {kind.name: [] for kind in kinds}
    for run in range(arguments.runs):
        for kind in kinds:
            print(f"run {run + 1}: {kind.name}", file=sys.stderr)
            results[kind.name].append(run_one(kind, arguments.work, arguments.karbor, first, second, arguments.small_files))

    def median(name, row, part=None):
        values = [one[row] if part is None else one[row][part] for one in results[name]]
        return statistics.median(values)

    names = [kind.name for kind in kinds]
    print(f"\nMedians of {arguments.runs} runs; CPU seconds / wall seconds. Restored bytes were equal in all.\n")
    print("| | " + " | ".join(names) + " |" + (" ours to the best peer |" if len(names) > 1 else ""))
    print("| --- " * (len(names) + 1 + (len(names) > 1)) + "|")
    for row, title in (("first", "first backup"), ("unchanged", "unchanged"), ("second", "second day"), ("restore", "restore")):
        cells = [f"{median(name, row, 0):.2f} / {median(name, row, 1):.2f}" for name in names]
        if len(names) > 1 and names[0] == "karbor":
            ratios = [median("karbor", row, part) / min(median(name, row, part) for name in names[1:]) for part in (0, 1)]
            cells.append(f"{ratios[0]:.2f} / {ratios[1]:.2f}")
        print(f"| {title} | " + " | ".join(cells) + " |")
    for row, title in (("stored", "stored after the first, MB"), ("added", "added by the second day, MB"), ("peak", "peak memory, MiB")):
        cells = [f"{median(name, row):.0f}" for name in names]
        if len(names) > 1 and names[0] == "karbor":
            cells.append(f"{median('karbor', row) / min(median(name, row) for name in names[1:]):.2f}")
        print(f"| {title} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
