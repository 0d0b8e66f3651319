"""servers: how each server that is measured is started, and how it is stopped.

A Contender is a server with its options; start() runs it on a free port of 127.0.0.1 with a
directory of its own. Everything is stopped by the process id it was started with.
"""

import contextlib
import dataclasses
import getpass
import grp
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import time

from places import TOP

MQD = os.environ.get("MQD", str(TOP / "mqd"))
LOAD = os.environ.get("LOAD", str(TOP / "build/load"))
FLOOR_SERVER = str(TOP / "build/floor-server")
FLOOR_SYSCALLS = str(TOP / "build/floor-syscalls")
MEMCACHEQ = os.environ.get("MEMCACHEQ")
SIBERITE = os.environ.get("SIBERITE")

CONNECTIONS = "2048"  # more than the 1,000 that are ever open: the last ones may be closing
BODY_MAX = "2097152"
AS_ROOT = ["-u", "root"] if os.geteuid() == 0 else []


class Failure(Exception):
    """Something answered as it must not, or not at all."""


@dataclasses.dataclass(frozen=True)
class Contender:
    name: str
    protocol: str    # of load
    argv: object     # (directory for data, port) -> the command
    options: tuple = ()  # of load


def wait_for(what, condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure("gave up waiting for " + what)
        time.sleep(0.01)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def listening(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def server_ends(port):
    """Inodes of the accepted connections to that port which some process still holds."""
    # Not from /proc/net/tcp, which lists tens of thousands in TIME_WAIT after `perrequest`.
    table = subprocess.run(["ss", "-Htne", "state", "connected", "exclude", "time-wait",
                            "sport", "=", ":%d" % port], check=True, capture_output=True,
                           text=True).stdout
    return set(re.findall(r"\bino:(\d+)", table))


class Server:
    """A contender that runs."""

    def __init__(self, contender, directory):
        self.contender = contender
        self.data = directory / "data"
        self.data.mkdir()
        self.port = free_port()
        self.argv = [str(word) for word in contender.argv(self.data, self.port)]
        self.log = directory / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, cwd=self.data)
        try:
            wait_for(contender.name + " to listen",
                     lambda: listening(self.port) or self.process.poll() is not None)
        except Failure:
            self.stop()
            raise
        if self.process.poll() is not None:
            raise Failure("%s ended: %s" % (contender.name, self.log.read_text().strip()))
        self.settle()

    def command(self):
        """As shown: with nothing in it that differs from run to run."""
        return show(self.argv, {str(self.data.parent): "DIR", str(self.port): "PORT"})

    def settle(self):
        """Until the server has closed every connection: its processes then do nothing."""
        wait_for(self.contender.name + " to close its connections",
                 lambda: not server_ends(self.port))

    def workers(self):
        """The processes that hold a connection."""
        ends = {"socket:[%s]" % inode for inode in server_ends(self.port)}
        return [pid for pid in descendants(self.process.pid) if ends & open_files(pid)]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def show(argv, names):
    text = shlex.join(argv)
    for old, new in names.items():
        text = text.replace(old, new)
    return text.replace(str(TOP) + "/", "")


def descendants(pid):
    """Of a process, with itself."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in pathlib.Path("/proc/%d/task" % pid).iterdir():
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    return found


def open_files(pid):
    files = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc/%d/fd" % pid):
            with contextlib.suppress(OSError):
                files.add(os.readlink(entry.path))
    return files


def pss(pid):
    """Proportional set size, KiB."""
    text = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text()
    return int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1))


# How each is started. Peers get the settings that do the same work as mqd's, and no more.


def mqd(*options):
    return lambda directory, port: [MQD, "-H", directory, "-l", "127.0.0.1", "-p", port,
                                    "-c", CONNECTIONS, "-B", BODY_MAX, *AS_ROOT, *options]


def xinetd(*command):
    """Under xinetd, with etc/mqd.xinetd but for the command, the port and the user."""
    def argv(directory, port):
        text = (TOP / "etc/mqd.xinetd").read_text()
        words = [str(directory) if word == "DIR" else word for word in command]
        group = grp.getgrgid(os.getgid()).gr_name
        for name, value in (("port", port), ("user", getpass.getuser()), ("group", group),
                            ("server", words[0]), ("server_args", " ".join(words[1:]))):
            text, n = re.subn(r"(?m)^(\t%s\s*=).*" % name, r"\1 %s" % value, text)
            if n != 1:
                raise Failure("etc/mqd.xinetd: %d lines set %s" % (n, name))
        own = directory.parent
        conf = own / "xinetd.conf"
        # An empty value is no value to xinetd.
        conf.write_text(re.sub(r"(?m)^\tserver_args\s*= *\n", "", text))
        return ["xinetd", "-dontfork", "-f", conf, "-filelog", own / "xinetd.log",
                "-pidfile", own / "xinetd.pid"]
    return argv


def tcpserver(*command):
    return lambda directory, port: [
        "tcpserver", "-H", "-R", "-l", "0", "-D", "-c", CONNECTIONS, "-b", "1024", "127.0.0.1",
        port, *(directory if word == "DIR" else word for word in command)]


def memcached(_directory, port):
    return ["memcached", *AS_ROOT, "-l", "127.0.0.1", "-p", port, "-U", "0", "-c", CONNECTIONS,
            "-m", "1024", "-I", "2m"]


def beanstalkd(*options):
    return lambda directory, port: ["beanstalkd", "-l", "127.0.0.1", "-p", port, "-z", BODY_MAX,
                                    "-b", directory, *options]


def redis(sync):
    return lambda directory, port: [
        "redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", directory, "--save", "",
        "--protected-mode", "no", "--appendonly", "yes", "--appendfsync", sync,
        "--maxclients", CONNECTIONS]


def memcacheq(*options):
    return lambda directory, port: [MEMCACHEQ, *AS_ROOT, "-l", "127.0.0.1", "-p", port, "-c",
                                    CONNECTIONS, "-H", directory, *options]


def siberite(directory, port):
    return [SIBERITE, "-listen", "127.0.0.1:%d" % port, "-data", directory]


def floor(*mode):
    return lambda _directory, port: [FLOOR_SERVER, mode[0], port, *mode[1:]]


# They may call a queue empty that is not, or hand out of order.
LENIENT = ("--allow-miss", "--unordered")

ALL = {c.name: c for c in [
    Contender("mqd -N", "memcache", mqd("-N")),
    Contender("mqd", "memcache", mqd()),
    Contender("mqd -N, xinetd", "memcache", xinetd(MQD, "-N", "-H", "DIR")),
    Contender("mqd -N, tcpserver", "memcache", tcpserver(MQD, "-N", "-H", "DIR")),
    Contender("memcached", "memcached", memcached),
    Contender("beanstalkd -F", "beanstalk", beanstalkd("-F")),
    Contender("beanstalkd -f0", "beanstalk", beanstalkd("-f0")),
    Contender("redis everysec", "redis", redis("everysec")),
    Contender("redis always", "redis", redis("always")),
    Contender("floor: fork", "memcached", floor("fork")),
    Contender("floor: files", "memcached",
              lambda directory, port: [FLOOR_SERVER, "files", port, directory]),
    Contender("floor: ordered", "memcache",
              lambda directory, port: [FLOOR_SERVER, "ordered", port, directory]),
    Contender("floor: ordered, xinetd", "memcache", xinetd(FLOOR_SERVER, "ordered", "-", "DIR")),
    Contender("floor: pool", "null", floor("pool", "64")),
    Contender("floor: xinetd", "null", xinetd(FLOOR_SERVER)),
    Contender("floor: tcpserver", "null", tcpserver(FLOOR_SERVER)),
]}
if MEMCACHEQ:
    ALL["memcacheq -N"] = Contender("memcacheq -N", "memcache", memcacheq("-N"), LENIENT)
    ALL["memcacheq"] = Contender("memcacheq", "memcache", memcacheq(), LENIENT)
if SIBERITE:
    ALL["siberite"] = Contender("siberite", "memcache", siberite, LENIENT)


def version(command, pattern):
    if not command or shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found.group(1) if found else "unknown"


def versions():
    """What was measured: (name, version)."""
    number = r"(\d+(?:\.\d+)+\S*)"
    commit = version(["git", "-C", str(TOP), "describe", "--always", "--dirty"], r"(\S+)")
    known = [
        ("mqd", "%s, commit %s" % (version([MQD, "-V"], r"mqd (\S+)"), commit)),
        ("memcached", version(["memcached", "-V"], number)),
        ("beanstalkd", version(["beanstalkd", "-v"], number)),
        ("redis", version(["redis-server", "-v"], "v=" + number)),
        ("memcacheq", version(MEMCACHEQ and [MEMCACHEQ, "-i"], number)),
        ("siberite", version(SIBERITE and [SIBERITE, "-version"], number)),
        ("xinetd", version(["xinetd", "-version"], number)),
        ("tcpserver", version(["dpkg-query", "-W", "ucspi-tcp"], r"ucspi-tcp\s+(\S+)")),
    ]
    return [(name, text) for name, text in known if text]
