from . import capture as capture, reading as reading, stream as stream
from .capture import (
    Capture as Capture,
    check_request as check_request,
    claimed_metadata as claimed_metadata,
    frame_size as frame_size,
    get_cv2_video_api as get_cv2_video_api,
    kind as kind,
    may_be_interlaced as may_be_interlaced,
    may_tell_any_colours as may_tell_any_colours,
    open_capture as open_capture,
    source_metadata as source_metadata,
)
from .reading import (
    allocate as allocate,
    can_use_for_recovery as can_use_for_recovery,
    log_missing as log_missing,
    read_frames as read_frames,
    read_frames_with_recovery as read_frames_with_recovery,
)
from .stream import is_replaced as is_replaced
