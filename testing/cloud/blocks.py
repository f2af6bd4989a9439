"""The bytes of volumes, written and read in the files that the test cloud keeps them in."""

import hashlib
import json
import os
import random
from pathlib import Path

from apis import option
from service import Failed

BLOCK = 1 << 20


def file_of(volume):
    """Returns the file that holds a volume's bytes; a volume with a snapshot has a chain of files, and is refused."""
    base = Path(option("cinder/cinder.conf", "nfs", "nfs_mount_point_base"))
    found = [path for path in base.glob(f"*/volume-{volume}") if path.is_file()]
    if len(found) != 1:
        raise Failed(f"volume {volume} has {len(found)} files below {base}")
    info = Path(f"{found[0]}.info")
    active = json.loads(info.read_text()).get("active", found[0].name) if info.exists() else found[0].name
    if active != found[0].name:
        raise Failed(f"the bytes of volume {volume} lie in {active}: it has a snapshot")
    return found[0]


def write_pattern(volume, extents):
    """Writes (offset, length, seed) into a detached volume; a seed of 0 writes zeros."""
    write_into(file_of(volume), extents)


def write_into(path, extents):
    with open(path, "r+b") as file:
        for offset, length, seed in extents:
            file.seek(offset)
            file.write(random.Random(seed).randbytes(length) if seed else bytes(length))
        file.flush()
        os.fsync(file.fileno())


def digest(volume):
    """Returns the size of a volume and a digest of all its bytes; holes count as the zeros that they are."""
    return digest_of(file_of(volume))


def digest_of(path):
    zeros, whole = bytes(BLOCK), hashlib.blake2b()
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // BLOCK * BLOCK
            except OSError:
                break
            data = os.pread(file.fileno(), BLOCK, offset)
            if data != zeros[:len(data)]:
                whole.update(offset.to_bytes(8, "big") + data)
            offset += BLOCK
    return f"{size} bytes, {whole.hexdigest()[:32]}"


def allocated(volume):
    return file_of(volume).stat().st_blocks * 512
