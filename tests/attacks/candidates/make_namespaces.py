"""Makes namespaces, in which it would be root, and mounts something over what it should not see."""

import os

from attack import VICTIM, attempt, libc, reached, system_call

NEW_USER, NEW_MOUNT, NEW_NETWORK, NEW_PROCESSES = 0x10000000, 0x00020000, 0x40000000, 0x20000000
UNSHARE, SETNS, CHROOT = 272, 308, 161


def in_a_child(action):
    """A failing step must not change what the next one finds."""
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    os.waitpid(child, 0)
    return None if child else False


def try_namespaces():
    for name, flags in {"users": NEW_USER, "mounts": NEW_MOUNT, "networks": NEW_NETWORK, "processes": NEW_PROCESSES}.items():
        attempt(f"a namespace of {name}", lambda flags=flags: system_call(UNSHARE, flags) == 0)


def mount():
    if libc().mount(b"none", VICTIM["outside"].encode(), b"tmpfs", 0, None) == 0:
        reached("a mount")


def enter():
    namespace = os.open(f"/proc/{VICTIM['server']}/ns/net", os.O_RDONLY)
    attempt("the server's namespace", lambda: system_call(SETNS, namespace, 0) == 0)


def try_mount():
    attempt("a namespace of users and mounts", lambda: system_call(UNSHARE, NEW_USER | NEW_MOUNT) == 0 and mount())


for step in (
    try_namespaces,
    try_mount,
    lambda: attempt("a way into a namespace", enter),
    lambda: attempt("a new root", lambda: os.chroot(".")),
):
    in_a_child(step)
