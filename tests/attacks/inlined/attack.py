"""What most attacks begin with: their victims, and how they say what they reached."""

import ctypes

VICTIM: dict = {}  # filled in when the candidate is put together: where the victims of this test are


def libc():
    return ctypes.CDLL(None, use_errno=True)


# Its own name on all that it starts, so that whoever looks for survivors knows them (PR_SET_NAME).
libc().prctl(15, VICTIM["mark"].encode(), 0, 0, 0)


def reached(what):
    print(f"reached: {what}", flush=True)


def attempt(what, action):
    """Do ``action`` and tell what came of it; False is no success."""
    try:
        answer = action()
    except Exception as error:  # noqa: BLE001 - whatever stops an attack is worth a line, and the next attempt comes
        print(f"refused: {what}: {type(error).__name__}: {error}", flush=True)
        return None
    if answer is False:
        print(f"without effect: {what}", flush=True)
    else:
        reached(what if answer in (None, True) else f"{what}: {answer}")
    return answer


def system_call(number, *arguments):
    """Return what the kernel answers; an error raises `OSError`."""
    library = libc()
    library.syscall.restype = ctypes.c_long
    answer = library.syscall(ctypes.c_long(number), *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return answer
