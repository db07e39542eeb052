"""What an application can see of the other processes of its server: every way to their memory and their descriptors."""

import ctypes
import json
import os
from pathlib import Path

PTRACE_ATTACH, PTRACE_DETACH = 16, 17


async def app(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError("no lifespan")
    master = os.getppid()
    relatives = [pid for pid in children(master) if pid != os.getpid()]
    found = {pid: sorted(name for name, way in WAYS.items() if opens(way, pid)) for pid in [master, *relatives]}
    body = json.dumps({"user": os.geteuid(), "found": found}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def children(master):
    """proc(5): the fourth field of /proc/pid/stat, which everybody may read, is the parent."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == master:
                yield int(entry.name)


def opens(way, pid):
    try:
        way(pid)
    except OSError:
        return False
    return True


def memory(pid):
    Path(f"/proc/{pid}/mem").open("rb").close()


def descriptors(pid):
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        os.readlink(entry)


def trace(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0x40000000)  # __WALL
    libc.ptrace(PTRACE_DETACH, pid, 0, 0)


def copy(pid):
    """process_vm_readv(2), which needs no file."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(1)
    piece = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 1)
    libc.process_vm_readv.argtypes = [ctypes.c_int, *[ctypes.c_void_p, ctypes.c_ulong] * 2, ctypes.c_ulong]
    if libc.process_vm_readv(pid, piece, 1, piece, 1, 0) < 0:
        error = ctypes.get_errno()
        if error != 14:  # EFAULT: it would have been allowed, and there is nothing at this address
            raise OSError(error, "process_vm_readv")


WAYS = {"memory": memory, "descriptors": descriptors, "trace": trace, "copy": copy}
