"""Slots without a server: processes that answer a byte with a byte, for tests/process/test_slots.py.

``python slots_program.py SLOTS`` prints its port and then does what the lines of its standard input say:
``replace SLOT``, ``grow SLOT``, ``shrink SLOT``, and ``drop SLOT``, which is how not to shrink. After each it prints
``done``, and at the end of its input it stops.
"""

import os
import selectors
import signal
import sys
import time
from contextlib import suppress

from aioserve.accept.reuseport import ReusePort
from aioserve.accept.sockets import SocketOptions
from aioserve.config.addresses import TcpAddress

BACKLOG = 1024


def serve(acceptor, slot, ready):
    """Accept and answer until TERM; then take what waits in the queue, answer all, and exit."""
    told_read, told_write = os.pipe()
    os.set_blocking(told_write, False)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.set_wakeup_fd(told_write)
    acceptor.keep_only(slot)
    [listener] = acceptor.listeners(slot)
    listener.sock.listen(BACKLOG)
    selector = selectors.DefaultSelector()
    selector.register(listener.sock, selectors.EVENT_READ)
    selector.register(told_read, selectors.EVENT_READ)
    os.write(ready, b"r")
    os.close(ready)
    accepting, open_connections = True, 0
    while accepting or open_connections:
        for key, _ in selector.select():
            if key.fileobj == told_read:
                selector.unregister(told_read)
                selector.unregister(listener.sock)
                while accept(listener.sock, selector):
                    open_connections += 1
                listener.sock.close()
                accepting = False
            elif key.fileobj is listener.sock:
                # Closed a moment ago, if TERM came in the same turn.
                open_connections += accepting and accept(listener.sock, selector)
            else:
                with suppress(ConnectionError):
                    if key.fileobj.recv(1):
                        key.fileobj.send(b"%d" % slot)
                selector.unregister(key.fileobj)
                key.fileobj.close()
                open_connections -= 1


def accept(sock, selector):
    with suppress(BlockingIOError):
        connection, _ = sock.accept()
        selector.register(connection, selectors.EVENT_READ)
        return True
    return False


class Slots:
    def __init__(self, count):
        self.acceptor = ReusePort([TcpAddress("127.0.0.1", 0)], count, SocketOptions(backlog=BACKLOG))
        self.acceptor.open()
        self.pids = {}
        for slot in range(count):
            self.spawn(slot)

    def spawn(self, slot):
        """Returns when the new process accepts."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(read)
                serve(self.acceptor, slot, write)
            finally:
                os._exit(0)
        os.close(write)
        assert os.read(read, 1) == b"r"
        os.close(read)
        self.pids[slot] = pid

    def end(self, pid):
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)

    def replace(self, slot):
        old = self.pids[slot]
        self.spawn(slot)
        self.end(old)

    def grow(self, slot):
        self.acceptor.grow(slot)
        self.spawn(slot)
        self.acceptor.joined(slot)

    def shrink(self, slot):
        self.acceptor.retire(slot)
        time.sleep(self.acceptor.linger)
        self.end(self.pids.pop(slot))
        self.acceptor.forget(slot)

    def drop(self, slot):
        os.kill(self.pids[slot], signal.SIGTERM)
        self.acceptor.forget(slot)
        os.waitpid(self.pids.pop(slot), 0)


def main(count):
    slots = Slots(count)
    [address] = slots.acceptor.addresses()
    print(address.rpartition(":")[2], flush=True)
    for line in sys.stdin:
        operation, slot = line.split()
        getattr(slots, operation)(int(slot))
        print("done", flush=True)
    for pid in slots.pids.values():
        slots.end(pid)


if __name__ == "__main__":
    main(int(sys.argv[1]))
