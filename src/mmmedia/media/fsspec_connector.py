"""The connector "fsspec": objects of buckets (`s3://`, `gs://`, `az://`, `hf://`, …) beside HTTP URLs.

It is chosen by ``VLLM_MEDIA_CONNECTOR=fsspec``, needs ``pip install mmmedia[fsspec]`` and the package of
each store (s3fs, gcsfs, adlfs, huggingface-hub), and reads only from buckets that the operator listed.
"""

import functools
import os
from collections.abc import Iterable
from typing import Any

from mmmedia import envs
from mmmedia.connections import HTTPConnection, Progress, global_http_connection
from mmmedia.media.buckets import (
    OWN_SCHEMES,
    ObjectConnection,
    ObjectURL,
    bucket_list,
    parse_object_url,
)
from mmmedia.media.budget import Budget, MediaBudget
from mmmedia.media.connector import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from mmmedia.options import MediaIOKwargs
from mmmedia.urls import url_scheme


@functools.lru_cache(maxsize=16)
def _object_connection(http: HTTPConnection) -> ObjectConnection:
    """Return one for all connectors of a process, so that they share downloads."""
    return ObjectConnection(http)


@MEDIA_CONNECTOR_REGISTRY.register("fsspec")
class FsspecConnector(MediaConnector):
    """A `MediaConnector` that also loads objects of buckets, under the same cache, limits and budgets.

    Args:
        media_io_kwargs: as in `MediaConnector`.
        connection: what fetches HTTP URLs.
        allowed_buckets: what may be read: `s3://photos`, `gs://clips/public` for what is below that, `hf://*`
            for every bucket of a kind; `None` for what `VLLM_MEDIA_ALLOWED_BUCKETS` says. Nothing else is
            read, so that without either no bucket is.
        allowed_local_media_path: as in `MediaConnector`.
        allowed_media_domains: as in `MediaConnector`; it does not apply to buckets.
        decoded_budget: as in `MediaConnector`.
        download_budget: as in `MediaConnector`.
        budget: as in `MediaConnector`.
        on_progress: as in `MediaConnector`; of objects it is called in a thread that reads them.

    Raises:
        InvalidArgumentError: (a `ValueError`) an entry that is no bucket.
    """

    def __init__(
        self,
        media_io_kwargs: MediaIOKwargs | None = None,
        connection: HTTPConnection = global_http_connection,
        *,
        allowed_buckets: Iterable[str] | None = None,
        allowed_local_media_path: str | os.PathLike[str] = "",
        allowed_media_domains: Iterable[str] | None = None,
        decoded_budget: Budget | None = None,
        download_budget: Budget | None = None,
        budget: MediaBudget | None = None,
        on_progress: Progress | None = None,
    ) -> None:
        both: Any = _object_connection(connection)  # has the two methods that a connector calls
        super().__init__(
            media_io_kwargs,
            both,
            allowed_local_media_path=allowed_local_media_path,
            allowed_media_domains=allowed_media_domains,
            decoded_budget=decoded_budget,
            download_budget=download_budget,
            budget=budget,
            on_progress=on_progress,
        )
        if allowed_buckets is None:
            allowed_buckets = filter(None, map(str.strip, envs.VLLM_MEDIA_ALLOWED_BUCKETS.split(",")))
        self.allowed_buckets = bucket_list(allowed_buckets)

    def _remote(self, url: str) -> Any:
        if not isinstance(url, str) or url_scheme(url) in ("", *OWN_SCHEMES):
            return super()._remote(url)
        source = parse_object_url(url)
        self.allowed_buckets.check(source)
        return source

    def _may_still_be_served(self, remote: Any) -> bool:
        # The list of buckets was looked at before the cache was.
        return isinstance(remote, ObjectURL) or super()._may_still_be_served(remote)
