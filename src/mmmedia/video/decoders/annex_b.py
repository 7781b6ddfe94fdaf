"""H.264 and HEVC with start codes, as in transport streams, turned into what MP4 stores: with lengths."""

import re
from dataclasses import replace

import numpy as np

from mmmedia.video.decoders.bitstreams.bits import unescape
from mmmedia.video.decoders.bitstreams.structure import DAMAGED, PARAMETERS_CHANGE, CannotSeekError
from mmmedia.video.decoders.packets.index import PacketIndex

_START = re.compile(rb"\x00\x00\x01")
_LENGTH_SIZE = 4


def with_lengths(index: PacketIndex) -> PacketIndex:
    """Return an index whose packets and configuration are as in MP4; it itself where they are already.

    Raises:
        CannotSeekError: there is no configuration, or too many; or a packet does not begin with a start code.
    """
    if index.codec not in _KINDS or index.extradata[:1] == b"\x01":
        return index
    wanted = _KINDS[index.codec]
    sets: dict[int, list[bytes]] = {kind: [] for kind in wanted}
    for unit in _units(index.extradata):
        _note(index.codec, unit, sets)
    payloads, sizes = [], []
    for position in range(len(index)):
        made = bytearray()
        for unit in _units(index.payload(position)):
            _note(index.codec, unit, sets)
            made += len(unit).to_bytes(_LENGTH_SIZE, "big") + unit
        payloads.append(bytes(made))
        sizes.append(len(made))
    if not all(sets.values()):
        raise CannotSeekError(DAMAGED)
    size = np.array(sizes, np.int64)
    return replace(
        index,
        data=b"".join(payloads),
        offset=np.cumsum(size) - size,
        size=size,
        extradata=_h264_record(sets) if index.codec == "h264" else _hevc_record(sets),
    )


# Parameter sets by codec, in the order in which a record has them.
_KINDS = {"h264": (7, 8), "hevc": (32, 33, 34)}


def _units(stretch: bytes) -> list[bytes]:
    """The NAL units between start codes; zeros behind one are none of it."""
    starts = [match.end() for match in _START.finditer(stretch)]
    if not starts or stretch[: starts[0] - 3].strip(b"\0"):
        if not stretch:
            return []
        raise CannotSeekError(DAMAGED)
    stops = [*(start - 3 for start in starts[1:]), len(stretch)]
    units = (stretch[start:stop].rstrip(b"\0") for start, stop in zip(starts, stops, strict=True))
    return [unit for unit in units if unit]


def _note(codec: str, unit: bytes, sets: dict[int, list[bytes]]) -> None:
    """Keep a parameter set."""
    kind = unit[0] & 31 if codec == "h264" else unit[0] >> 1
    if kind in sets and unit not in sets[kind]:
        sets[kind].append(unit)
        if len(sets[kind]) > 32 - (kind != _KINDS["h264"][1]):
            raise CannotSeekError(PARAMETERS_CHANGE)


def _h264_record(sets: dict[int, list[bytes]]) -> bytes:
    """An AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1)."""
    sequences, pictures = sets[7], sets[8]
    head = b"\x01" + sequences[0][1:4] + bytes([0xFC | _LENGTH_SIZE - 1, 0xE0 | len(sequences)])
    return head + _with_sizes(sequences) + bytes([len(pictures)]) + _with_sizes(pictures)


def _hevc_record(sets: dict[int, list[bytes]]) -> bytes:
    """An HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, 8.3.3.1); what it only repeats is left open."""
    profile = unescape(sets[33][0])[3:15]
    head = b"\x01" + profile + b"\xf0\x00\xfc\xfd\xf8\xf8\x00\x00" + bytes([0x0C | _LENGTH_SIZE - 1])
    made = head + bytes([len(sets)])
    for kind, units in sets.items():
        made += bytes([0x80 | kind]) + len(units).to_bytes(2, "big") + _with_sizes(units)
    return made


def _with_sizes(units: list[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
