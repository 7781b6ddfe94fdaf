"""What other processes do with a connection that they were sent; here, as they find it by its name."""

import asyncio

from mmmedia.connections import HTTPConnection


def fetched_by(connection: HTTPConnection, url: str) -> bytes:
    """Return what a process gets by both halves."""
    return connection.get_bytes(url) + asyncio.run(connection.async_get_bytes(url))
