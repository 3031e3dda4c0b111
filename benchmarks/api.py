"""What Snellen costs a request beside the bare clients, over HTTP on this machine.

``python benchmarks/api.py`` posts images of 300 KB to a server of no latency (a process of its own, which
reads requests and answers all alike) at several concurrencies: with bare aiohttp, with the bare ``openai``
client on its aiohttp transport, and with ``snellen run`` (closed set, one question an image), anew and with
the previews of the images made before; each in a process of its own that has loaded what it needs and sent
a few. Each sends every image once. Printed are requests a second and milliseconds of CPU a request on the
client's side.

``python benchmarks/api.py memory 10000 100000`` prints the peak memory of runs over so many small images.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONCURRENCIES = (16, 128, 512)
REQUESTS = 2000
QUESTION = (
    "Answer this question in one word: What type of object is in this photo? Choose one from {a, b}. Answer:"
)
ANSWER = json.dumps(
    {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "none",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
    }
).encode()


class Instant(asyncio.Protocol):
    """Reads requests as fast as it can, and answers each with ANSWER."""

    def connection_made(self, transport):
        self.transport, self.head, self.left = transport, b"", 0

    def data_received(self, data):
        while data:
            if self.left:
                taken = min(self.left, len(data))
                self.left -= taken
                data = data[taken:]
                if not self.left:
                    self.reply()
                continue
            self.head += data
            head, found, rest = self.head.partition(b"\r\n\r\n")
            if not found:
                return
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            self.left, self.head, data = int(lengths[0].split(b":")[1]), b"", rest

    def reply(self):
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(ANSWER), ANSWER)
        )


async def serve():
    """Until it is ended; prints its port."""
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def body(path):
    """What each of them sends about an image."""
    image = "data:image/jpeg;base64," + base64.b64encode(Path(path).read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": QUESTION}]
    return {
        "model": "none",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 32,
        "temperature": 0,
    }


async def pool(paths, concurrency, one):
    """Every path once, so many at a time."""
    left = iter(paths)

    async def work():
        for path in left:
            await one(path)

    await asyncio.gather(*(work() for _ in range(concurrency)))


async def bare_aiohttp(url, paths, concurrency):
    """The transport alone."""
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as session:

        async def one(path):
            async with session.post(f"{url}/chat/completions", json=body(path)) as reply:
                assert (await reply.json())["choices"]

        await pool(paths, concurrency, one)


async def bare_openai(url, paths, concurrency):
    """The client on that transport."""
    import openai

    limits = type(openai.DEFAULT_CONNECTION_LIMITS)(
        max_connections=concurrency, max_keepalive_connections=concurrency
    )
    http = openai.DefaultAioHttpClient(limits=limits)
    async with openai.AsyncOpenAI(api_key="none", base_url=url, http_client=http, max_retries=0) as client:

        async def one(path):
            reply = await client.chat.completions.create(**body(path))
            assert reply.choices

        await pool(paths, concurrency, one)


def with_snellen(url, folder, concurrency, workspace):
    """A whole run."""
    import snellen
    from snellen.models.remote import concurrency as pace

    # As the bare clients, at this concurrency from the first request to the last.
    find = pace.Concurrency.__init__
    pace.Concurrency.__init__ = (  # type: ignore[method-assign]
        lambda self, most, first=16, timeout=60.0: find(self, most, most, timeout)
    )
    found = snellen.run(
        model=f"openai:none?base_url={url}",
        data=f"folder:{folder}",
        protocol="closed-set?rounds=1",
        workspace=workspace,
        max_concurrency=concurrency,
    )
    assert found.metrics.outcomes["ok"] == found.metrics.n, found.metrics.outcomes


def measure(way, url, folder, concurrency):
    """In a process of its own, its imports done: requests a second, CPU ms a request, peak MB."""
    paths = sorted(Path(folder).rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as top:
        pictures(Path(top) / "photos", 20, 16)
        if way.startswith("snellen"):
            with_snellen(url, Path(top) / "photos", concurrency, Path(top) / "workspace")
        else:
            few = sorted(Path(top).rglob("*.jpg"))
            asyncio.run({"aiohttp": bare_aiohttp, "openai": bare_openai}[way](url, few, concurrency))
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    if way.startswith("snellen"):
        with tempfile.TemporaryDirectory() as fresh:
            # "again" is with previews of the images in place, as in every run but the first.
            workspace = Path(folder).parent / "workspace" if "again" in way else fresh
            for old in workspace.glob("snellen.db*") if "again" in way else ():
                old.unlink()
            with_snellen(url, folder, concurrency, workspace)
    else:
        asyncio.run({"aiohttp": bare_aiohttp, "openai": bare_openai}[way](url, paths, concurrency))
    now = resource.getrusage(resource.RUSAGE_SELF)
    seconds = time.perf_counter() - began
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps([len(paths) / seconds, 1000 * cpu / len(paths), now.ru_maxrss / 1024]))


def apart(*words):
    """What this script prints, told these words, in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")}
    done = subprocess.run(
        [sys.executable, __file__, *map(str, words)], capture_output=True, text=True, env=env, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def pictures(folder, count, side):
    """Noise: JPEGs that do not shrink."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    for i in range(count):
        path = Path(folder) / "ab"[i % 2] / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.roll(base, i, 0) ^ np.uint8(i % 251))
        picture.save(path, quality=80, comment=str(i).encode())  # no two files are equal
    return path.stat().st_size


def main():
    """All of it."""
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        with tempfile.TemporaryDirectory() as top:
            if sys.argv[1:2] == ["memory"]:
                for count in map(int, sys.argv[2:]):
                    folder = Path(top) / str(count)
                    pictures(folder, count, 16)
                    rate, cpu, peak = apart("measure", "snellen", url, folder, 64)
                    print(
                        f"{count} samples: {peak:.0f} MB peak, {rate:.0f} requests/s, {cpu:.2f} ms CPU each"
                    )
                return
            folder = Path(top) / "photos"
            size = pictures(folder, REQUESTS, 665)
            print(f"{REQUESTS} images of {size / 1000:.0f} KB")
            apart("measure", "snellen again", url, folder, 16)  # makes the previews
            ways = ("aiohttp", "openai", "snellen again", "snellen")
            for concurrency in CONCURRENCIES:
                for way in ways:
                    rate, cpu, peak = apart("measure", way, url, folder, concurrency)
                    told = f"{rate:>6.0f} requests/s  {cpu:>5.2f} ms CPU each  {peak:>4.0f} MB peak"
                    print(f"concurrency {concurrency:>3}  {way:<13} {told}", flush=True)
    finally:
        server.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve())
    elif sys.argv[1:2] == ["measure"]:
        way, url, folder, concurrency = sys.argv[2:6]
        measure(way, url, folder, int(concurrency))
    else:
        main()
