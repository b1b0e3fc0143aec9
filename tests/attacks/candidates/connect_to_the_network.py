"""Sends what it knows over TCP and UDP."""

import socket

from attack import VICTIM, attempt


def by_tcp():
    with socket.create_connection(("127.0.0.1", VICTIM["tcp_port"]), timeout=2.0) as connection:
        connection.sendall(b"weights")


def by_udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"weights", ("127.0.0.1", VICTIM["udp_port"]))


def by_fast_open():
    with socket.socket() as sender:
        sender.sendto(b"weights", socket.MSG_FASTOPEN, ("127.0.0.1", VICTIM["tcp_port"]))


attempt("TCP", by_tcp)
attempt("TCP in one step", by_fast_open)
attempt("UDP", by_udp)
