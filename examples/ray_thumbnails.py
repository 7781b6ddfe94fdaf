"""A directory of clips to Parquet with Ray: a thumbnail of each, what it is, or why it can't be read.

    python examples/ray_thumbnails.py CLIPS OUT

Started again, it goes on with what is not in OUT yet; a clip that could not be read is there, with its error.
"""

import io
import sys
from pathlib import Path

import pyarrow
import pyarrow.dataset
import ray
from PIL import Image

from mmmedia.integrations.ray import decode_videos

SCHEMA = pyarrow.schema({"path": "string", "error": "string"})
"""What of OUT is read again."""


def thumbnail(row):
    """One row of the decoded dataset to one of the Parquet files."""
    jpeg = io.BytesIO()
    if len(row["frames"]):
        Image.fromarray(row["frames"][0]).save(jpeg, "JPEG")
    metadata = row["metadata"]
    return {
        "path": row["path"],
        "thumbnail": jpeg.getvalue(),
        "frames": metadata["total_num_frames"],
        "seconds": metadata["duration"],
        "error": row["error"] or "",
    }


def written(out):
    """What is in OUT, without a file that was being written when the last run was interrupted."""
    Path(out).mkdir(exist_ok=True)
    files = pyarrow.dataset.dataset(out, SCHEMA, format="parquet", exclude_invalid_files=True)
    return files.to_table().to_pylist()


def main(clips, out):
    done = {row["path"] for row in written(out)}
    todo = sorted({str(path) for path in Path(clips).iterdir()} - done)
    if todo:
        rows = ray.data.from_items([{"path": path} for path in todo], override_num_blocks=len(todo) // 8 + 1)
        # Not all of a CPU: what comes behind needs some as well, or waits until all clips are decoded.
        decoded = decode_videos(
            rows, "path", num_frames=1, resize=320, concurrency=2, num_cpus=0.9, keep_source=True
        )
        # Each block becomes a file of its own as soon as it is ready.
        decoded.map(thumbnail, num_cpus=0.1).write_parquet(out, ray_remote_args={"num_cpus": 0.1})
    rows = written(out)
    failed = [row for row in rows if row["error"]]
    print(f"{len(todo)} new, {len(rows)} in all, {len(failed)} of them unreadable:")
    for row in sorted(failed, key=lambda row: row["path"]):
        print(f"  {row['path']}: {row['error']}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
