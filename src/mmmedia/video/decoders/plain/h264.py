"""What is plain of H.264: frames, and no sequence parameter sets but those of the container."""

from collections.abc import Iterable

import numpy as np

from mmmedia.video.decoders.bitstreams.colours import are_usual
from mmmedia.video.decoders.bitstreams.h264_sets import IDR, SLICE, SPS, read_avcc, read_sequence

# Of a unit's first byte: its kind, and how much depends on it.
_KIND, _REFERENCE = 0x1F, 0x60
_USUAL_LENGTH = 4  # bytes of the length in front of a unit
_STRETCH = 1 << 20
# Of H.264 (ITU-T H.264, annex A).
_PROFILES = frozenset([66, 77, 88, 100, 110, 122, 244, 44])


def is_plain_record(record: bytes) -> bool:
    """Return whether an AVCDecoderConfigurationRecord is of frames, of colours that OpenCV converts.

    Raises:
        CannotSeekError, HeaderEndError, IndexError: it can't be read, or is of fields.
    """
    length_size, sets = read_avcc(record)
    sequences = [read_sequence(each) for each in sets if each[0] & 31 == SPS]
    if length_size != _USUAL_LENGTH or not sequences or any(each.says_fields for each in sequences):
        return False
    return are_usual(each.colours for each in sequences if each.colours is not None)


def are_disposable(packets: Iterable[bytes]) -> list[bool]:
    """Return of each packet whether no other refers to it, by its first slice; the first begins with an IDR.

    Raises:
        ValueError, IndexError: it does not, or units don't fill their packet.
    """
    heads = [_first_slice(packet) for packet in packets]
    if heads[0] & _KIND != IDR:
        raise ValueError("the first picture may need others")
    return [not head & _REFERENCE for head in heads]


def _first_slice(packet: bytes) -> int:
    """The first byte of a packet's first slice (ITU-T H.264, 7.3.1)."""
    at = found = 0
    while at < len(packet):
        length, head = int.from_bytes(packet[at : at + _USUAL_LENGTH], "big"), packet[at + _USUAL_LENGTH]
        if not found and head & _KIND in (SLICE, IDR):
            found = head
        at += _USUAL_LENGTH + length
        if length < 2 or at > len(packet):
            raise ValueError("units that do not fill their packet")
    if not found:
        raise ValueError("a packet without a slice")
    return found


def has_sets_within(data: bytes) -> bool:
    """Return whether a sequence parameter set may stand among the packets of a file."""
    for start in range(0, len(data), _STRETCH):
        stretch = np.frombuffer(data, np.uint8)[start : start + _STRETCH + 6]
        if len(stretch) < 6:
            break
        # A length in four bytes, of less than 256; the unit's kind; a profile.
        begins = (stretch[4:-1] & 0x9F == SPS) & (stretch[3:-2] > 0)
        begins &= (stretch[2:-3] == 0) & (stretch[1:-4] == 0) & (stretch[:-5] == 0)
        if any(stretch[at + 5] in _PROFILES for at in np.flatnonzero(begins).tolist()):
            return True
    return False
