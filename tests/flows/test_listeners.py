"""The helper sees a listener beyond the loopback: else what it says of our servers would be worth nothing."""

import os
import socket
import subprocess
import sys

from .listeners import addresses


def test_a_listener_of_this_process_and_of_a_child_is_seen():
    with socket.socket() as own, socket.socket(socket.AF_INET) as idle:
        own.bind(("127.0.0.2", 0))
        own.listen()
        idle.bind(("127.0.0.3", 0))  # bound, and listens to nobody
        seen = addresses(os.getpid())
        assert "127.0.0.2" in seen and "127.0.0.3" not in seen
    code = "import socket; s = socket.socket(); s.bind(('0.0.0.0', 0)); s.listen(); print(1, flush=True); input()"
    shell = ["sh", "-c", f'{sys.executable} -c "{code}"; true']
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        assert addresses(child.pid) == {"0.0.0.0"}
        child.communicate("\n")
