"""The sample application: made of real files of this machine, described exactly, changed, destroyed, compared."""

import hashlib
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

SOURCES = ["/usr/share", "/usr/include", "/usr/lib/python3", "/usr/lib/python3.11", "/usr/lib/postgresql", "/etc"]
WEB_FILES = 10_000
WEB_BYTES = 400 << 20
DISK_BYTES = 3 << 30
DISK_CONTENT_BYTES = 1 << 30


def real_files(roots, max_file_bytes):
    """Yields readable regular files below the roots, in a fixed order."""
    for root in roots:
        for directory, names, files in os.walk(root):
            names.sort()
            for name in sorted(files):
                path = os.path.join(directory, name)
                try:
                    info = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(info.st_mode) and info.st_size <= max_file_bytes and os.access(path, os.R_OK):
                    yield path, info.st_size


def make_web(root: Path):
    """The web tier: a tree of some ten thousand real files, with everything that a tree can hold."""
    root.mkdir(parents=True)
    count = total = 0
    generation = 0
    while count < WEB_FILES:
        before = count
        for path, size in real_files(SOURCES, 4 << 20):
            if count >= WEB_FILES or total + size > WEB_BYTES:
                break
            target = root / "htdocs" / f"{generation}" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
            count += 1
            total += size
        generation += 1
        if count == before:
            break
    odd = root / "odd"
    odd.mkdir()
    (odd / "empty").write_bytes(b"")
    (odd / "empty-directory").mkdir()
    (odd / "name with spaces, ümläuts and \u2603").write_text("a name is bytes\n")
    with open(os.fsencode(odd) + b"/not-utf8-\xff\xfe", "wb") as file:
        file.write(b"a name is any bytes\n")
    (odd / "private").write_text("for the owner only\n")
    (odd / "private").chmod(0o600)
    (odd / "script.sh").write_text("#!/bin/sh\necho hello\n")
    (odd / "script.sh").chmod(0o755)
    (odd / "read-only").write_text("do not touch\n")
    (odd / "read-only").chmod(0o444)
    shared = odd / "setgid-directory"
    shared.mkdir()
    shared.chmod(0o2775)
    os.symlink("../htdocs/0", odd / "link-to-directory")
    os.symlink("no/such/place", odd / "dangling-link")
    (odd / "hard-a").write_text("one file, three names\n")
    os.link(odd / "hard-a", odd / "hard-b")
    os.link(odd / "hard-a", shared / "hard-c")
    os.mkfifo(odd / "fifo")
    with open(odd / "sparse", "wb") as file:
        file.truncate(256 << 20)
        for offset in (0, 100 << 20, (256 << 20) - 4096):
            file.seek(offset)
            file.write(os.urandom(4096))
    os.utime(odd / "private", ns=(1_234_567_890_123_456_789, 1_234_567_890_987_654_321))
    try:
        os.setxattr(odd / "script.sh", "user.karbor.note", b"kept\0too")
    except OSError:
        pass  # this file system has no extended attributes


def make_disk(image: Path, staging: Path):
    """The application tier: a sparse disk image with a real ext4 file system."""
    image.parent.mkdir(parents=True)
    shutil.rmtree(staging, ignore_errors=True)
    total = 0
    for path, size in real_files(["/usr/lib", "/usr/bin", "/usr/share"], 64 << 20):
        if total + size > DISK_CONTENT_BYTES:
            break
        target = staging / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        total += size
    with open(image, "wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-E", "hash_seed=6b617262-6f72-4000-8000-000000000001",
                    "-d", staging, image], check=True)
    shutil.rmtree(staging)


def make_postgres(postgres):
    """The data tier, first half: a database with rows, indexes, constraints and a view."""
    postgres.sql("postgres", "DROP DATABASE IF EXISTS shop;")
    postgres.sql("postgres", "CREATE DATABASE shop;")
    postgres.sql("shop", """
        CREATE TABLE customers (id bigserial PRIMARY KEY, name text NOT NULL, email text UNIQUE, born date);
        CREATE TABLE orders (id bigserial PRIMARY KEY, customer bigint NOT NULL REFERENCES customers,
            placed timestamptz NOT NULL, amount numeric(10,2) CHECK (amount > 0), note text, blob bytea);
        INSERT INTO customers (name, email, born) SELECT 'Customer ' || n, 'c' || n || '@example.org',
            date '1950-01-01' + (n % 20000) FROM generate_series(1, 50000) n;
        INSERT INTO orders (customer, placed, amount, note, blob) SELECT 1 + (n::bigint * 7919) % 50000,
            timestamptz '2026-01-01' + n * interval '37 seconds', 1 + (n * 31 % 99999) / 100.0,
            CASE WHEN n % 3 = 0 THEN NULL ELSE 'note ' || md5(n::text) END, decode(md5(n::text), 'hex')
            FROM generate_series(1, 300000) n;
        CREATE INDEX orders_by_customer ON orders (customer, placed);
        CREATE INDEX orders_big ON orders (amount) WHERE amount > 900;
        CREATE VIEW totals AS SELECT customer, sum(amount) AS total FROM orders GROUP BY customer;
    """)


def describe_postgres(postgres):
    """Everything in the database that must come back: rows (hashed in order), definitions, sequences."""
    described = {}
    for table in ("customers", "orders"):
        query = f"SELECT count(*) || ' ' || md5(string_agg(md5(t::text), '' ORDER BY id)) FROM {table} t;"
        described[table] = postgres.sql("shop", query)
    described["indexes"] = postgres.sql("shop", "SELECT indexdef FROM pg_indexes WHERE schemaname='public' ORDER BY 1;")
    described["constraints"] = postgres.sql(
        "shop", "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace='public'::regnamespace ORDER BY 1;")
    described["view"] = postgres.sql("shop", "SELECT count(*) || ' ' || sum(total) FROM totals;")
    described["sequence"] = postgres.sql("shop", "SELECT last_value FROM orders_id_seq;")
    return described


def make_sqlite(path: Path):
    """The data tier, second half: a SQLite database that goes on being written to."""
    path.parent.mkdir(parents=True)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE event (n INTEGER PRIMARY KEY, body TEXT NOT NULL)")
        db.execute("CREATE TABLE ledger (n INTEGER PRIMARY KEY, total INTEGER NOT NULL)")
        db.execute("INSERT INTO ledger VALUES (0, 0)")
        for n in range(1, 50_001):
            db.execute("INSERT INTO event VALUES (?, ?)", (n, event_body(n)))
        db.execute("INSERT INTO ledger VALUES (50000, 50000)")


def event_body(n: int) -> str:
    return hashlib.sha256(str(n).encode()).hexdigest()


def write_sqlite_for_ever(path: str):
    """Runs as a process: commits an event and its ledger row together, again and again."""
    db = sqlite3.connect(path, timeout=30)
    n = db.execute("SELECT max(n) FROM event").fetchone()[0]
    while os.getppid() != 1:
        n += 1
        with db:
            db.execute("INSERT INTO event VALUES (?, ?)", (n, event_body(n)))
            db.execute("INSERT INTO ledger VALUES (?, ?)", (n, n))


def sqlite_count(path: Path) -> int:
    with sqlite3.connect(path, timeout=30) as db:
        return db.execute("SELECT count(*) FROM event").fetchone()[0]


def check_sqlite(path: Path, at_least: int, at_most: int):
    """A consistent state between two moments: every row right, no gap, both tables at one commit."""
    problems = []
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
    if verdict != "ok":
        problems.append(f"integrity_check says: {verdict}")
    count, last = db.execute("SELECT count(*), max(n) FROM event").fetchone()
    total = db.execute("SELECT max(total) FROM ledger").fetchone()[0]
    if not at_least <= count <= at_most:
        problems.append(f"{count} rows, expected {at_least} to {at_most}")
    if not count == last == total:
        problems.append(f"not one commit's state: {count} rows, last {last}, ledger {total}")
    for n, body in db.execute("SELECT n, body FROM event"):
        if body != event_body(n):
            problems.append(f"row {n} differs")
            break
    db.close()
    return count, problems


def describe_tree(root: Path):
    """Every name below root with all that must come back: kind, mode, owner, times, links, bytes, attributes."""
    described = {}
    links = {}
    top = os.fsencode(root)
    for directory, names, files in os.walk(top):
        for name in [b""] * (directory == top) + names + files:
            path = os.path.join(directory, name) if name else directory
            info = os.lstat(path)
            row = [stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid]
            if not stat.S_ISLNK(info.st_mode):
                row.append(info.st_mtime_ns)
            if stat.S_ISREG(info.st_mode):
                row += [info.st_size, file_hash(path)]
                if info.st_nlink > 1:
                    links.setdefault((info.st_dev, info.st_ino), []).append(os.path.relpath(path, top))
            elif stat.S_ISLNK(info.st_mode):
                row.append(os.readlink(path))
            row.append(sorted((key, os.getxattr(path, key, follow_symlinks=False))
                              for key in os.listxattr(path, follow_symlinks=False) if key.startswith("user.")))
            described[os.path.relpath(path, top)] = row
    return described, sorted(sorted(group) for group in links.values())


def file_hash(path):
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def describe_disk(image: Path):
    info = os.stat(image)
    return {"size": info.st_size, "mode": stat.S_IMODE(info.st_mode), "hash": file_hash(image)}


def compare(what, before, after, problems):
    """Adds a line for each difference between two descriptions."""
    if isinstance(before, tuple):
        for part_before, part_after in zip(before, after):
            compare(what, part_before, part_after, problems)
    elif isinstance(before, dict):
        for key in sorted(set(before) | set(after)):
            if before.get(key) != after.get(key):
                problems.append(f"{what}: {key!r} was {before.get(key)!r}, is {after.get(key)!r}")
    elif before != after:
        problems.append(f"{what}: was {before!r}, is {after!r}")


def change_a_little(web: Path, disk: Path, postgres):
    """A day's work: a few files edited, added and removed; some blocks of the disk; some rows."""
    rng = random.Random(20261123)
    files = sorted(path for path in (web / "htdocs").rglob("*") if path.is_file() and not path.is_symlink())
    for path in rng.sample(files, 50):
        mode = path.stat().st_mode
        path.chmod(0o644)
        with open(path, "ab") as file:
            file.write(b"\n<!-- changed -->\n")
        path.chmod(stat.S_IMODE(mode))
    for path in rng.sample(files, 10):
        path.unlink()
    for n in range(20):
        (web / f"new-{n}.html").write_text(f"<h1>page {n}</h1>\n" * 50)
    scratch = disk.parent / "scratch"
    scratch.write_bytes(rng.randbytes(2 << 20))
    for n in range(4):  # debugfs writes into the file system of the image, no mount and no root needed
        subprocess.run(["/sbin/debugfs", "-w", "-R", f"write {scratch} /new-{n}", disk], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scratch.unlink()
    postgres.sql("shop", "UPDATE orders SET note = 'changed' WHERE id % 1000 = 7;"
                         "INSERT INTO customers (name) SELECT 'New ' || n FROM generate_series(1, 100) n;")


if __name__ == "__main__":
    write_sqlite_for_ever(sys.argv[1])
