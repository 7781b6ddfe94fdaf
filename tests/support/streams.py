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


class Packets:
    """Packets of a transport stream as FFmpeg believes them: counted, filled up, with checksums."""

    NULL = b"\x47\x1f\xff\x10".ljust(188, b"\xff")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def of(self, payload: bytes, pid: int) -> bytes:
        """The packets that a table, or a stretch of a stream, takes."""
        made = []
        for at in range(0, len(payload), 184):
            part = payload[at : at + 184]
            count = self._counts[pid] = (self._counts.get(pid, -1) + 1) & 15
            stuffing = 183 - len(part)
            filler = b"" if stuffing < 0 else bytes((stuffing,)) + b"\0" * (stuffing > 0)
            head = bytes((0x47, (at == 0) << 6 | pid >> 8, pid & 255, (0x30 if filler else 0x10) | count))
            made.append(head + filler.ljust(184 - len(part), b"\xff") + part)
        return b"".join(made)

    def programs(self) -> bytes:
        """A table of programs: one, whose map is in packets of 0x1000."""
        return self.of(b"\0" + _with_checksum(0, b"\0\1\xc1\0\0" + b"\0\1\xf0\0"), 0)

    def map(self, *streams: tuple[int, int], padding: int = 0) -> bytes:
        """A program map of these PIDs and types."""
        return self.of(b"\0" + _with_checksum(2, program_map(*streams, padding=padding)[3:-4]), 0x1000)

    def sound(self, data: bytes, time: int, pid: int) -> bytes:
        """A stretch of sound that is shown at this time, in ticks of 90 kHz."""
        ticks = (
            0x21 | time >> 29 & 14,
            time >> 22 & 255,
            1 | time >> 14 & 254,
            time >> 7 & 255,
            1 | time << 1 & 254,
        )
        head = b"\0\0\1\xc0" + (len(data) + 8).to_bytes(2, "big") + b"\x80\x80\5" + bytes(ticks)
        return self.of(head + data, pid)


def _with_checksum(table: int, body: bytes) -> bytes:
    section = bytes((table,)) + (0xB000 | len(body) + 4).to_bytes(2, "big") + body
    remainder = 0xFFFFFFFF
    for byte in section:
        remainder ^= byte << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (0x04C11DB7 if remainder >> 31 else 0)) & 0xFFFFFFFF
    return section + remainder.to_bytes(4, "big")


def sound_that_becomes_h264(*, told: bool) -> bytes:
    """A transport stream over which FFmpeg (8.1) ends its process.

    It is MPEG audio by its bytes. Behind so many packets that FFmpeg has made up its mind a map says that it
    is H.264; and it ends within a frame, which FFmpeg only then looks at.

    Args:
        told: whether a map before it says that it is nothing known.
    """
    make, frame = Packets(), b"\xff\xfd\xe4\0" + bytes(1148)  # layer II, silent: 24 ms
    parts = [make.programs(), make.map((256, 0))] if told else []
    parts += [make.sound(frame, 90_000 + 2160 * number, 256) for number in range(166)]
    parts += [make.sound(frame[:576], 90_000 + 2160 * 166, 256), Packets.NULL * 27_000]
    return b"".join([*parts, make.programs(), make.map((256, H264))])
