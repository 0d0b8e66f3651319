"""A disk that remembers each write and each flush, and of which any cut can be made.

The disk is a file that FUSE serves, by a process of its own, below a loop device. Each write is
appended to a record, with the moment at which it came, and so is each flush; it is done before it
is answered, so that what a flush was answered for stands before that flush in the record. A power
cut at a moment then leaves

    what was written before the last flush          whole
    what was written after it                       all of it (`keep`); or any part (`drop`), in
                                                    any order, down to sectors

since a disk's cache owes nobody an order, nor more than a sector at once. A file system must stand
all of these, and what it was told to make durable by fsync must be there in each.
"""
import bisect
import ctypes
import errno
import os
import random
import signal
import struct
import subprocess
import sys
import time

MAX_WRITE = 1 << 20
WRITE, FLUSH = 0, 1
ENTRY = struct.Struct("<IIQQQ")  # WRITE or FLUSH, length, offset, place of the data, time in ns
BAD = struct.Struct("<QQQ")  # writes that touch this part, from, to, fail; so many have

libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind, options):
    if libc.mount(source.encode(), target.encode(), kind.encode(), 0, options.encode()) == -1:
        e = ctypes.get_errno()
        raise OSError(e, "mount %s: %s" % (kind, os.strerror(e)))


def die_with(parent):
    """The parent may be killed at any time: what lives on keeps its mounts, on which a sync waits for ever."""
    libc.prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


# Of linux/fuse.h: the few requests that a single file needs.
GETATTR, SETATTR, OPEN, READ, WRITE_FILE, RELEASE, FSYNC, FLUSH_FILE, INIT = 3, 4, 14, 15, 16, 18, 20, 25, 26
FORGET, BATCH_FORGET, INTERRUPT, DESTROY = 2, 42, 36, 38
IN, OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")


def serve(fuse, live, log, index, bad):
    size = os.fstat(live).st_size
    attr = struct.pack("<QII", 3600, 0, 0) + struct.pack("<6Q10I", 1, size, size // 512, 0, 0, 0, 0, 0, 0,
                                                         0o100600, 1, 0, 0, 0, 4096, 0)
    buffer = bytearray(MAX_WRITE + 65536)
    view = memoryview(buffer)
    place = 0
    while True:
        try:
            n = os.readv(fuse, [buffer])
        except OSError as e:
            if e.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                continue
            return  # unmounted
        now = time.monotonic_ns()
        _, opcode, unique, _, _, _, _, _, _ = IN.unpack_from(buffer)
        error, reply = 0, b""
        if opcode == INIT:
            # Big writes, as many pages as that takes.
            reply = struct.pack("<IIIIHHIIHHI7I", 7, 31, 1 << 20, 1 << 5 | 1 << 22, 64, 48, MAX_WRITE, 1,
                                MAX_WRITE // 4096, 0, 0, *[0] * 7)
        elif opcode in (GETATTR, SETATTR):
            reply = attr
        elif opcode == OPEN:
            reply = struct.pack("<QII", 1, 2, 0)  # the pages that the kernel has stay right
        elif opcode == READ:
            _, offset, length = struct.unpack_from("<QQI", buffer, IN.size)
            reply = os.pread(live, length, offset)
        elif opcode == WRITE_FILE:
            _, offset, length = struct.unpack_from("<QQI", buffer, IN.size)
            data = view[IN.size + 40:n]
            assert len(data) == length
            begin, end, failed = BAD.unpack(os.pread(bad, BAD.size, 0))
            if offset < end and offset + length > begin:
                os.pwrite(bad, BAD.pack(begin, end, failed + 1), 0)
                error = -errno.EIO
            else:
                os.pwrite(log, data, place)
                os.pwrite(live, data, offset)
                os.write(index, ENTRY.pack(WRITE, length, offset, place, now))
                place += length
                reply = struct.pack("<II", length, 0)
        elif opcode == FSYNC:
            os.write(index, ENTRY.pack(FLUSH, 0, 0, 0, now))
        elif opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            continue
        elif opcode not in (RELEASE, FLUSH_FILE, DESTROY):
            error = -errno.ENOSYS
        try:
            os.writev(fuse, [OUT.pack(OUT.size + len(reply), error, unique), reply])
        except FileNotFoundError:
            pass  # who asked has been killed


class Disk:
    """Made of an image that has a file system; .path is for a loop device."""

    def __init__(self, directory, image):
        self.base, self.path = image, directory + "/disk"
        self.names = [directory + "/" + n for n in ("live", "log", "index", "bad")]
        copy_image(image, self.names[0])
        open(self.path, "wb").close()
        live, log, index, bad = [os.open(n, os.O_RDWR | os.O_CREAT, 0o600) for n in self.names]
        os.write(bad, BAD.pack(0, 0, 0))
        fuse = os.open("/dev/fuse", os.O_RDWR)
        mount("recorder", self.path, "fuse", "fd=%d,rootmode=100600,user_id=0,group_id=0" % fuse)
        fds = fuse, live, log, index, bad
        self.server = subprocess.Popen([sys.executable, __file__, *map(str, (os.getpid(), *fds))], pass_fds=fds)
        for fd in fds:
            os.close(fd)

    def fail(self, begin, end):
        """Have writes to that part of the disk fail, none if it is empty. Returns how many of the
        last one's have."""
        with open(self.names[3], "r+b") as f:
            failed = BAD.unpack(f.read())[2]
            f.seek(0)
            f.write(BAD.pack(begin, end, 0))
        return failed

    def close(self):
        """When its file system is unmounted, or soon will be; the record stays."""
        subprocess.run(["umount", "-l", self.path], check=True)
        self.server.wait()
        self.entries = list(ENTRY.iter_unpack(open(self.names[2], "rb").read()))
        self.log = os.open(self.names[1], os.O_RDONLY)
        self.done = 0  # entries that are in the base
        os.unlink(self.names[0])

    def cuts(self, begin, end, count):
        """Entries, ascending, behind which the power may fail; begin and end are times."""
        times = [e[4] for e in self.entries]
        self.end = end
        first, last = bisect.bisect(times, begin) - 1, bisect.bisect(times, end) - 1
        return sorted(random.randint(first, last) for _ in range(count))

    def moment(self, i):
        """The last at which that may have been: when the next write came."""
        return min([self.end] + [e[4] for e in self.entries[i + 1:i + 2]])

    def data(self, entry):
        return os.pread(self.log, entry[1], entry[3])

    def cut(self, i, how, sector, path):
        """Make an image at `path`, as a disk with sectors of that size is after the power failed
        behind entry i. The i of one call must not be lower than that of the call before."""
        flush = i
        while flush >= self.done and self.entries[flush][0] != FLUSH:
            flush -= 1
        with open(self.base, "r+b") as f:
            for entry in self.entries[self.done:flush + 1]:
                if entry[0] == WRITE:
                    os.pwrite(f.fileno(), self.data(entry), entry[2])
        self.done = max(self.done, flush + 1)
        copy_image(self.base, path)
        loose = []  # (offset, bytes): what no flush covers
        by_sector = how == "drop" and random.random() < 0.5
        for entry in self.entries[self.done:i + 1]:
            data, offset = self.data(entry), entry[2]
            step = sector if by_sector else len(data)
            loose += [(offset + at, data[at:at + step]) for at in range(0, len(data), step)]
        if how == "drop":
            share = random.choice((0, 0.1, 0.5, 0.5, 0.9, 1))
            loose = [piece for piece in loose if random.random() < share]
            random.shuffle(loose)
        with open(path, "r+b") as f:
            for offset, data in loose:
                os.pwrite(f.fileno(), data, offset)
        return len(loose)


def copy_image(a, b):
    """With its holes."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", a, b], check=True)


if __name__ == "__main__":
    parent, *fds = map(int, sys.argv[1:])
    die_with(parent)
    serve(*fds)
