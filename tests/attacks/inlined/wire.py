"""The referee's channel without prepare and without torch: frames of JSON, and START with its two descriptors."""

import json
import os
import socket
import struct

settings = json.loads(os.environ["AUTORESEARCH_SETTINGS"])
channel = socket.socket(fileno=settings["channel_fd"])


def send(header):
    data = json.dumps(header).encode()
    channel.sendall(struct.pack("!II", len(data), 0) + data)


def start():
    """Open the training data, which starts the clock; return the descriptors of the tokens and of the clock."""
    send({"type": "open_train", "vocab_size": 257})
    _, descriptors, _, _ = socket.recv_fds(channel, 65_536, 4)
    return descriptors


def hand_over(model):
    """Write the bytes of a model and say that it is there."""
    with open(settings["scratch"] + "/model.pkl", "wb") as file:
        file.write(model)
    send({"type": "handoff", "vocab_size": 257, "batch_size": 64})
