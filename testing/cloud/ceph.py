"""The bytes of volumes that lie on the test cloud's Ceph."""

import subprocess
import tempfile

import blocks
from apis import DIRECTORY
from service import Failed


def fill(volume, size, extents):
    """Gives a detached volume without snapshots these bytes: (offset, length, seed), and zeros between them."""
    with tempfile.NamedTemporaryFile(dir=DIRECTORY) as file:
        file.truncate(size)
        blocks.write_into(file.name, extents)
        rbd("rm", image(volume))
        rbd("import", file.name, image(volume))


def digest(volume):
    """Returns the size of a volume and a digest of all its bytes, as for volumes in files."""
    with tempfile.TemporaryDirectory(dir=DIRECTORY) as directory:
        rbd("export", image(volume), f"{directory}/bytes")
        return blocks.digest_of(f"{directory}/bytes")


def image(volume):
    return f"volumes/volume-{volume}"


def rbd(*words):
    command = ["rbd", "--conf", DIRECTORY / "data" / "ceph" / "ceph.conf", "--no-progress", *words]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120)
    if done.returncode:
        raise Failed(f"rbd {' '.join(words)}: {done.stderr}")
