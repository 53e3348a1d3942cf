"""Runs a client where the names of Salesforce lead to this test.

Some clients have their log-in hosts built in, and speak to port 443. `tests/sdk/own_hosts.rs` starts this file in
a network and mount namespace of its own, in which those names are local. What is sent to a port here goes through a Unix
socket, which namespaces do not separate, to the test outside.
"""

import asyncio
import fcntl
import runpy
import socket
import struct
import sys
import threading

SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def raise_loopback():
    """A new network namespace has a loopback interface, which is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


async def pass_on(reader, writer):
    """Copies until there is no more."""
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        # The other side has left.
        writer.close()


def open_doors(doors):
    """Listens on each port, and returns when all do."""
    ready = threading.Event()

    async def serve():
        async def caller(path, reader, writer):
            far_reader, far_writer = await asyncio.open_unix_connection(path)
            await asyncio.gather(pass_on(reader, far_writer), pass_on(far_reader, writer))
            far_writer.close()
            writer.close()

        for port, path in doors:
            await asyncio.start_server(lambda near, far, path=path: caller(path, near, far), "127.0.0.1", port)
        ready.set()
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    if not ready.wait(30):
        sys.exit("the ports could not be opened")


if __name__ == "__main__":
    script, *pairs = sys.argv[1:]
    raise_loopback()
    open_doors([(int(port), path) for port, path in (pair.split("=", 1) for pair in pairs)])
    runpy.run_path(script, run_name="__main__")
