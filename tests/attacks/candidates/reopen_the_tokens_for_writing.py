"""Opens the training tokens, which it was given to read, once more for writing through /proc, and changes their metadata."""

import os
import stat

from attack import attempt
from wire import start

tokens, clock = start()


def rewrite(descriptor):
    again = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
    os.pwrite(again, os.pread(again, 1, 0), 0)  # the same byte: whoever looks at the time of change sees it


def change_mode(descriptor):
    os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) ^ stat.S_IROTH)


attempt("the tokens rewritten", lambda: rewrite(tokens))
attempt("the clock rewritten", lambda: rewrite(clock))
attempt("the tokens' mode changed", lambda: change_mode(tokens))
attempt("the tokens' times changed", lambda: os.utime(tokens, (1, 1)))
attempt("an attribute added to the tokens", lambda: os.setxattr(tokens, "user.attack", b"1"))
raise SystemExit(0)
