"""The clock of services under test, which is moved instead of waited for."""

import datetime
import math
import time
from pathlib import Path

UTC = datetime.timezone.utc


class Clock:
    """The machine's clock, moved by what a file says: `KARBOR_CLOCK_FILE` of a binary built with failpoints."""

    def __init__(self, file):
        self.file, self.moved = Path(file), 0
        self.set_to(self.now())

    def now(self):
        return datetime.datetime.fromtimestamp(time.time() + self.moved, UTC)

    def move(self, seconds):
        self.moved += math.ceil(seconds)
        partial = self.file.with_suffix(".partial")
        partial.write_text(str(self.moved))
        partial.rename(self.file)

    def set_to(self, at):
        self.move((at - self.now()).total_seconds())
