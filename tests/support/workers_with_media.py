"""Media decoded in workers of other libraries, in a process of its own, in which every warning is an error.

``python -W error workers_with_media.py WAY CLIP…`` prints the shape of each clip's frames.
"""

import multiprocessing
import sys
from pathlib import Path

from mmmedia.integrations.transformers import decode_columns, worker_init
from mmmedia.media import MediaConnector


def say(shape, error=None):
    sys.stdout.write(f"{' '.join(map(str, shape))} {error}\n")


def only(samples):
    """No batch: a sample as it is."""
    return samples[0]


class Clips:
    """A dataset as torch takes it."""

    def __init__(self, paths):
        self.paths = paths
        self.transform = decode_columns(video={"num_frames": 4})

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, number):
        batch = self.transform({"video": [self.paths[number]]})
        return batch["video"][0].shape, batch["video_error"][0]


def by_data_loader(context, paths):
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Clips(paths),
        num_workers=2,
        multiprocessing_context=context,
        worker_init_fn=worker_init,
        collate_fn=only,
    )
    for shape, error in loader:
        say(shape, error)


def connector_for(paths):
    return MediaConnector({"video": {"num_frames": 4}}, allowed_local_media_path=Path(paths[0]).parent)


def by_pool(context, paths):
    fetch = connector_for(paths).fetch_video
    with multiprocessing.get_context(context).Pool(2) as pool:
        for frames, _ in pool.map(fetch, [Path(path).as_uri() for path in paths]):
            say(frames.shape)
        pool.close()
        pool.join()


def by_joblib(paths):
    from joblib import Parallel, delayed

    fetch = connector_for(paths).fetch_video
    for frames, _ in Parallel(n_jobs=2)(delayed(fetch)(Path(path).as_uri()) for path in paths):
        say(frames.shape)


if __name__ == "__main__":
    library, _, context = sys.argv[1].partition("-")
    if library == "loader":
        Clips(sys.argv[2:])[0]  # the parent has decoded before: its threads and locks must not harm
        by_data_loader(context, sys.argv[2:])
    elif library == "pool":
        by_pool(context, sys.argv[2:])
    else:
        by_joblib(sys.argv[2:])
