"""Transport streams by hand: packets and program maps."""

MPEG2, H264, AAC = 2, 0x1B, 0x0F


def packet(payload: bytes, pid: int = 0x1000, *, starts: bool = True, stuffing: int = 0) -> bytes:
    """A packet of a transport stream."""
    adaptation = bytes((stuffing,)) + bytes(stuffing) if stuffing else b""
    header = bytes((0x47, starts << 6 | pid >> 8, pid & 255, 0x30 if stuffing else 0x10))
    return (header + adaptation + payload).ljust(188, b"\xff")


def program_map(*streams: tuple[int, int], padding: int = 0) -> bytes:
    """A program map of these PIDs and types, after descriptors of so many bytes."""
    body = b"\0\1\xc1\0\0\xe1\0" + (0xF000 | padding).to_bytes(2, "big") + bytes(padding)
    for pid, kind in streams:
        body += bytes((kind, 0xE0 | pid >> 8, pid & 255, 0xF0, 0))
    return b"\2" + (0xB000 | len(body) + 4).to_bytes(2, "big") + body + b"crc!"
