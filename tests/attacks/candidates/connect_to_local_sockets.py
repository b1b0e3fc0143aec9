"""Talks to other programs of this machine through UNIX sockets, by path and by abstract name."""

import socket

from attack import VICTIM, attempt


def say(address):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(b"weights")


def send(address):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"weights", address)


attempt("a socket by path", lambda: say(VICTIM["unix_socket"]))
attempt("a socket by abstract name", lambda: say("\0" + VICTIM["abstract_socket"]))
attempt("a datagram by abstract name", lambda: send("\0" + VICTIM["abstract_datagram_socket"]))
