"""places: the file systems on which the servers keep their data.

"disk" is a directory below build/, on whatever the machine has there. The others are fresh
images, also below build/, mounted through a loop device; that needs root.

ext4 without a journal does not use the inode of a file again for up to five minutes after it was
deleted, and whoever creates a file steps over all of those in the directory's block group: after
5,000 deletions a create took twenty times as long. So that no server pays for what another one
deleted, or an earlier run, each gets a directory in a block group of its own; what it deletes
itself it does pay for. A disk mounted with `discard` and no journal also discards blocks within
unlink, if they had been written: the kind of a place says so.
"""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
IMAGE_BYTES = 4 << 30  # sparse

MAKE = {
    "journal": ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "has_journal"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
    "btrfs": ["mkfs.btrfs", "-q", "-f"],
}
SHORT = {"disk": "own disk", "journal": "ext4 image with a journal", "xfs": "xfs image",
         "btrfs": "btrfs image"}


@dataclasses.dataclass
class Place:
    name: str
    path: pathlib.Path
    kind: str  # as shown

    def directory(self, name):
        """A new one. ext4 takes the block group from the name, which therefore is random."""
        return pathlib.Path(tempfile.mkdtemp(prefix=name + ".", dir=self.path))


def file_system(path):
    """What file system that is, and for ext4 whether it has a journal."""
    kind, device, options = subprocess.run(
        ["findmnt", "-nro", "FSTYPE,SOURCE,OPTIONS", "-T", path], check=True,
        capture_output=True, text=True).stdout.split()
    if kind == "ext4":
        # jbd2 has a directory for each journal in use, named after the device.
        journals = pathlib.Path("/proc/fs/jbd2").glob(os.path.basename(device) + "-*")
        kind += " with a journal" if any(journals) else " without a journal"
    return kind + (", discard" if "discard" in options.split(",") else "")


def unmount(path):
    """As soon as the last worker that still has a file open there has ended."""
    end = time.monotonic() + 10
    while subprocess.run(["umount", path], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > end:
            raise SystemExit("run: %s cannot be unmounted" % path)
        time.sleep(0.05)


def spread(path):
    """Directories made in this one go to different block groups, as those of the root do."""
    if file_system(path).startswith("ext4"):
        subprocess.run(["chattr", "+T", path], check=True)


@contextlib.contextmanager
def opened(name, work):
    """The place of that name, below the directory `work`; yields None where there is none."""
    path = work / name
    path.mkdir()
    if name == "disk":
        spread(path)
        yield Place(name, path, file_system(path))
        return
    image = work / (name + ".image")
    with open(image, "wb") as file:
        file.truncate(IMAGE_BYTES)
    environment = dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin")
    commands = [[*MAKE[name], image], ["mount", "-o", "loop", image, path]]
    for command in commands if os.geteuid() == 0 else []:
        done = subprocess.run(command, env=environment, capture_output=True, text=True,
                              check=False)
        if done.returncode != 0:
            print("run: %s: %s" % (command[0], done.stderr.strip()))
            break
    mounted = os.path.ismount(path)
    try:
        if mounted:
            spread(path)
        yield Place(name, path, file_system(path) + ", image") if mounted else None
    finally:
        if mounted:
            unmount(path)
        image.unlink()
