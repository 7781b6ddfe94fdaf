"""A directory of clips to Parquet with Daft: a thumbnail of each, what it is, or why it can't be read.

    python examples/daft_thumbnails.py CLIPS OUT

Started again, it goes on with what is not in OUT yet; a clip that could not be read is there, with its error.
"""

import io
import sys
from pathlib import Path

import daft
import pyarrow
import pyarrow.dataset
from PIL import Image

from mmmedia.integrations.daft import decode_videos

SCHEMA = pyarrow.schema({"path": "string", "error": "string"})
"""What of OUT is read again."""
BATCH = 16
"""Clips that are written at once: what is lost when it is interrupted."""


@daft.func(return_dtype=daft.DataType.binary())
def jpeg(frames):
    if frames is None:
        return None
    encoded = io.BytesIO()
    Image.fromarray(frames[0]).save(encoded, "JPEG")
    return encoded.getvalue()


def written(out):
    """What is in OUT, without a file that was being written when the last run was interrupted."""
    Path(out).mkdir(exist_ok=True)
    files = pyarrow.dataset.dataset(out, SCHEMA, format="parquet", exclude_invalid_files=True)
    return files.to_table().to_pylist()


def main(clips, out):
    done = {row["path"] for row in written(out)}
    todo = sorted({str(path) for path in Path(clips).iterdir()} - done)
    for start in range(0, len(todo), BATCH):
        rows = daft.from_pydict({"path": todo[start : start + BATCH]})
        clip = decode_videos(daft.col("path"), num_frames=1, resize=320)
        metadata = daft.col("clip").get("metadata")
        rows.with_column("clip", clip).select(
            "path",
            jpeg(daft.col("clip").get("frames")).alias("thumbnail"),
            metadata.get("total_num_frames").alias("frames"),
            metadata.get("duration").alias("seconds"),
            daft.col("clip").get("error").alias("error"),
        ).write_parquet(out, write_mode="append")
    rows = written(out)
    failed = [row for row in rows if row["error"]]
    print(f"{len(todo)} new, {len(rows)} in all, {len(failed)} of them unreadable:")
    for row in sorted(failed, key=lambda row: row["path"]):
        print(f"  {row['path']}: {row['error']}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
