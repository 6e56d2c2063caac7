"""Who listens where, from /proc: the sockets of a process and of all that it started."""

import ipaddress
from contextlib import suppress
from pathlib import Path

LISTEN = "0A"


def family(pid: int) -> set[int]:
    """A process and its descendants."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def addresses(pid: int) -> set[str]:
    """The addresses that a process and its descendants listen on, without ports."""
    inodes = set()
    for each in family(pid):
        with suppress(OSError):
            for link in Path(f"/proc/{each}/fd").iterdir():
                with suppress(OSError):
                    target = str(link.readlink())
                    if target.startswith("socket:["):
                        inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTEN and rest[5] in inodes:
                raw = bytes.fromhex(local.split(":")[0])
                # words of four bytes, each in the machine's own order
                packed = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
                found.add(str(ipaddress.ip_address(packed)))
    return found
