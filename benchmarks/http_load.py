"""Clients that ask again and again, in a process of their own; prints what they saw as JSON.

    python benchmarks/http_load.py URL FIELD CLIENTS SECONDS PHOTO…

Every client has a connection that it keeps, and sends the next photo as soon as it has its answer. The requests lie
ready as bytes and answers are only counted, so that little of the machine goes to the clients; what does is printed.
"""

import argparse
import asyncio
import json
import resource
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

BOUNDARY = "photo-of-the-benchmark"


def request_for(url: str, field: str, photo: bytes) -> bytes:
    """Write a whole request with the photo as the form's only field."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="p.jpg"\r\n'
    body = f"{part}Content-Type: image/jpeg\r\n\r\n".encode() + photo + f"\r\n--{BOUNDARY}--\r\n".encode()
    where = urlsplit(url)
    head = f"POST {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode() + body


async def answer_of(reader: asyncio.StreamReader) -> int:
    """Read one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.partition(b":")[2]))
    return int(head.split(b" ", 2)[1])


async def load(url: str, field: str, clients: int, seconds: float, photos: list[bytes]) -> dict[str, object]:
    """Ask for so long; statuses, and the milliseconds of every answer by the photo's number."""
    requests = [request_for(url, field, photo) for photo in photos]
    numbers = cycle(range(len(photos)))  # shared: every client sends every photo
    statuses: Counter[int] = Counter()
    took_ms: list[tuple[int, float]] = []
    where = urlsplit(url)
    streams = [await asyncio.open_connection(where.hostname, where.port) for _ in range(clients)]
    started = time.perf_counter()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (sent := time.perf_counter()) < started + seconds:
            number = next(numbers)
            writer.write(requests[number])
            status = await answer_of(reader)
            statuses[status] += 1
            took_ms.append((number, (time.perf_counter() - sent) * 1e3))
        writer.close()

    await asyncio.gather(*(client(*stream) for stream in streams))
    return {"statuses": statuses, "took_ms": took_ms, "wall_s": time.perf_counter() - started}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("field", help="of the form, for the photo")
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("photos", type=Path, nargs="+")
    given = parser.parse_args()
    photos = [photo.read_bytes() for photo in given.photos]
    outcome = asyncio.run(load(given.url, given.field, given.clients, given.seconds, photos))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps(outcome | {"cpu_s": used.ru_utime + used.ru_stime}))


if __name__ == "__main__":
    main()
