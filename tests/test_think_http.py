"""Replies as they come off the wire: whole, in pieces, packed, broken off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib

import pytest

pytest.importorskip("aiohttp", reason="the think lever: pip install 'isoflop[think]'")
pytest.importorskip("orjson", reason="the think lever: pip install 'isoflop[think]'")


from isoflop.levers.think._http import Lost, Poster

# -- replies of other servers -----------------------------------------------------------------------------------------

BODY = json.dumps({"said": "x" * 300}).encode()
PACKED = zlib.compress(BODY, wbits=31)
REPLIES = {
    "by length": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY),
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n"
    % (BODY[:100], len(BODY) - 100, BODY[100:]),
    "with trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nA: b\r\n\r\n"
    % (len(BODY), BODY),
    "to the end": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "after a continue": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b"
    % (len(BODY), BODY),
    "packed": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(PACKED), PACKED),
}
BROKEN = {
    "cut short": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + BODY,
    "cut in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n999\r\n" + BODY,
    "no status": b"hello\r\n\r\n",
    "no number": b"HTTP/1.1 OK\r\n\r\n",
    "a wrong chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000,
    "nothing": b"",
}


def replies(sent, *, times=1, piece=10**9, open_=False):
    """What `Poster.post` makes of a server that sends so much each time, in pieces, and how often it connected."""
    connections = []

    async def serve(reader, writer):
        connections.append(1)
        while head := await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            for at in range(0, len(sent), piece):
                writer.write(sent[at : at + piece])
                await writer.drain()
                await asyncio.sleep(0)
            if not open_:
                writer.close()
                return

    async def quiet(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()

    async def go():
        server = await asyncio.start_server(quiet, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        poster = Poster(url, headers={}, timeout=5.0)
        try:
            return [await poster.post("/x", b"{}") for _ in range(times)], len(connections)
        finally:
            poster.close()
            server.close()
            await asyncio.sleep(0.01)

    return asyncio.run(go())


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("piece", [1, 7, 10**9])
def test_replies_are_read_whole_however_they_come(name, piece):
    (reply,), _ = replies(REPLIES[name], piece=piece)
    assert (reply.status, reply.body) == (200, BODY)


@pytest.mark.parametrize("name", BROKEN)
def test_replies_that_break_off_or_are_none_are_lost(name):
    with pytest.raises(Lost):
        replies(BROKEN[name])


def test_a_connection_is_kept_until_the_server_ends_it():
    got, connections = replies(REPLIES["in chunks"], times=5, open_=True)
    assert (len(got), connections) == (5, 1)
    assert replies(REPLIES["to the end"], times=3)[1] == 3
    assert replies(REPLIES["by length"] + b"more", times=2, open_=True)[1] == 2


def test_a_reply_that_does_not_come_is_a_time_out():
    async def go():
        async def silent(reader, writer):
            await reader.read()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        poster = Poster(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", headers={}, timeout=0.05)
        with pytest.raises(TimeoutError):
            await poster.post("/x", b"{}")
        assert not poster._idle
        server.close()
        await asyncio.sleep(0.01)

    asyncio.run(go())


def test_a_connection_that_ends_before_its_first_call_is_lost_at_once():
    async def go():
        async def end(reader, writer):
            writer.close()

        server = await asyncio.start_server(end, "127.0.0.1", 0)
        poster = Poster(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", headers={}, timeout=30.0)
        connection = await poster._connect()
        while connection.open:
            await asyncio.sleep(0.001)
        with pytest.raises(Lost, match="before the call"):
            connection.ask(b"")
        server.close()
        await asyncio.sleep(0.01)

    asyncio.run(go())


def test_a_key_with_a_line_in_it_is_refused_without_showing_it():
    with pytest.raises(ValueError, match="a line's end in it") as wrong:
        Poster("http://host", headers={"Authorization": "Bearer sk-1\r\nX: y"}, timeout=1.0)
    assert "sk-1" not in str(wrong.value)
