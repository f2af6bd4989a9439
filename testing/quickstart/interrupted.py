#!/usr/bin/env python3
"""Ctrl-C in the middle of the quickstart: it stops, and leaves no process behind.

interrupted.py KARBOR HOME
"""
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

# Lines that the quickstart shows, at each of which it is interrupted once.
MOMENTS = ("starting karbor serve", "$ karbor checkpoint create", "$ karbor restore create")


def left(home):
    """Returns the command lines of processes that have to do with a directory."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in words and Path(__file__).name not in words:
            found.append(words.strip())
    return found


def interrupt(binary, home, moment):
    main = Path(__file__).with_name("main.py")
    # A session of its own, as a terminal gives; Ctrl-C goes to the whole group in the foreground.
    process = subprocess.Popen([sys.executable, main, "--karbor", binary, "--home", home], start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = threading.Timer(300, process.kill)
    deadline.start()
    seen = []
    for line in process.stderr:
        seen.append(line)
        if moment in line:
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    status = process.wait()
    deadline.cancel()
    if status != 130:
        return f"it ended with {status}: {''.join(seen[-3:])}{rest[-500:]}"
    processes = left(home)
    return f"left behind: {processes}" if processes else None


def main():
    binary, home = os.path.abspath(sys.argv[1]), Path(sys.argv[2])
    failed = 0
    for moment in MOMENTS:
        problem = interrupt(binary, home, moment)
        failed += problem is not None
        print(f"{'FAILED' if problem else 'ok':6} interrupted at `{moment}`" + (f"\n    {problem}" if problem else ""), flush=True)
    print(f"{len(MOMENTS) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
