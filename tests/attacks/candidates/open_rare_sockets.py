"""Makes sockets that filters forget: netlink, raw packets, vsock, Bluetooth, kernel crypto; and io_uring, which needs none."""

import ctypes
import socket

from attack import attempt, system_call

IO_URING_SETUP = 425
FAMILIES = {
    "netlink": (16, 3, 0),
    "packet": (17, 3, 0),
    "raw": (2, 3, 1),
    "vsock": (40, 1, 0),
    "crypto": (38, 5, 0),
    "xdp": (44, 3, 0),
}
FAMILIES |= {"bluetooth": (31, 1, 3), "tipc": (30, 5, 0), "sctp": (2, 1, 132), "inet6": (10, 1, 0)}

for name, arguments in FAMILIES.items():
    attempt(f"a socket of {name}", lambda arguments=arguments: socket.socket(*arguments).close())
attempt("an io_uring", lambda: system_call(IO_URING_SETUP, 4, ctypes.create_string_buffer(256)) >= 0)
