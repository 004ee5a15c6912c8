"""A TCP proxy that misbehaves on request: between Runbook and PostgreSQL, Redis, or an agent, and between clients and pages."""

import asyncio
import contextlib
import threading

CHUNK = 64 * 1024


class Proxy:
    """Listens on a port of its own and passes everything on to `target`: (host, port), or the path of a Unix socket.

    `mode` may be changed at any time, also for connections that stand:
    "open" passes on; "closed" resets what stands and what comes; "hole" takes everything and passes nothing on, as when
    packets vanish; "slow" passes each piece on after `delay` seconds; "drip" one byte of an answer every `delay` seconds;
    "cut" ends each connection after `bytes_left` bytes of its answer; "deaf" passes requests on and cuts the connection
    before the first byte of the answer, so that what was done is not told; "twice" gives each request to the target a second
    time, over a connection of its own whose answer nobody reads; "stale" answers with what the target said before, if it
    ever said anything.
    """

    def __init__(self, target):
        self.target, self.mode, self.delay, self.bytes_left = target, "open", 0.5, 100
        self.said = b""
        self._ready = threading.Event()
        self._writers, self._readers = set(), set()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode, **changes):
        """Change the mode; "closed" resets what stands at once."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.mode = mode
        if mode == "closed":
            self.reset()

    def reset(self):
        """Cut every connection that stands now."""
        self._loop.call_soon_threadsafe(self._abort_all)

    def close(self):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _abort_all(self):
        for writer in list(self._writers):
            writer.transport.abort()

    def _serve(self):
        asyncio.run(self._main())

    async def _main(self):
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        self._abort_all()

    async def _connect(self):
        if isinstance(self.target, str):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)

    async def _take(self, reader, writer):
        self._writers.add(writer)
        there_writer = None
        try:
            if self.mode == "closed":
                return
            there_reader, there_writer = await self._connect()
            self._writers.add(there_writer)
            up = asyncio.create_task(self._up(reader, there_writer))
            down = asyncio.create_task(self._down(there_reader, writer))
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # one end is gone, or the proxy is closed
        finally:
            for one in (writer, there_writer):
                if one is not None:
                    self._writers.discard(one)
                    with contextlib.suppress(Exception):
                        one.close()

    async def _second(self):
        reader, writer = await self._connect()
        self._writers.add(writer)
        self._readers.add(asyncio.create_task(_swallow(reader)))
        return writer

    async def _up(self, reader, writer):
        second = None
        try:
            while data := await reader.read(CHUNK):
                await self._while_a_hole()
                if self.mode == "slow":
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
                if self.mode == "twice":
                    second = second or await self._second()
                    second.write(data)
                    await second.drain()
        finally:
            if second is not None:
                self._writers.discard(second)
                second.close()

    async def _down(self, reader, writer):
        left = self.bytes_left
        while data := await reader.read(CHUNK):
            await self._while_a_hole()
            if self.mode == "stale":
                data = self.said or data
            else:
                self.said = data
            if self.mode == "deaf":
                writer.transport.abort()
                return
            if self.mode == "drip":
                for byte in data:
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(self.delay)
                    if self.mode != "drip":
                        break
                continue
            if self.mode == "slow":
                await asyncio.sleep(self.delay)
            if self.mode == "cut":
                writer.write(data[:left])
                await writer.drain()
                left -= len(data)
                if left <= 0:
                    writer.transport.abort()
                    return
                continue
            writer.write(data)
            await writer.drain()

    async def _while_a_hole(self):
        while self.mode == "hole":
            await asyncio.sleep(0.05)


async def _swallow(reader):
    with contextlib.suppress(OSError):
        while await reader.read(CHUNK):
            pass
