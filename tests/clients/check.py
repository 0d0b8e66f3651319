"""What the Python clients share: checks that are counted and, once one fails, told apart.

    from check import check, done
    check("the head of the queue", client.get("jobs"), "one")
    done()
"""
import glob
import os
import sys

passed = failed = 0


def check(what, got, wanted):
    """got must be wanted in value and type: True is no 1, bytes are no str."""
    global passed, failed
    if type(got) is type(wanted) and got == wanted:
        passed += 1
        return
    failed += 1
    print(f"{what}: wanted {wanted!r:.200}, got {got!r:.200}")


def check_raises(what, error, call, *arguments):
    try:
        got = call(*arguments)
    except error:
        check(what, True, True)
    else:
        check(what, got, error)


def numbers(queue):
    """the numbers of the messages that wait, as the spool shows them; see mqspool(5)"""
    files = glob.glob(os.path.join(os.environ["SPOOL"], queue, "[0-9]*"))
    return sorted(int(os.path.basename(file)) for file in files)


def done():
    print(f"{passed} checks passed, {failed} failed")
    sys.exit(0 if passed and not failed else 1)
