"""No test reaches the network: what a test needs is in the repository."""

import socket

import pytest
from pytest_socket import SocketBlockedError


def test_a_network_socket_raises() -> None:
    with pytest.raises(SocketBlockedError):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def test_loader_workers_may_talk_to_each_other() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        one.sendall(b"batch")
        assert other.recv(5) == b"batch"
