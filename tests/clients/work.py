"""work() of the examples: note that it has begun, then hang if there is a file that says so."""
import os
import sys


def work(job):
    with open("worked", "a") as worked:
        print(job.decode(), file=worked)
    if os.path.exists("hang"):
        sys.stdin.read()
