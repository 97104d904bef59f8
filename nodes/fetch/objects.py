"""Objects of named S3 buckets. Needs obstore (`pip install inference-mesh[s3]`)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from mesh import InvalidInput, SetupError, Unavailable
from nodes.fetch.intake import Intake
from nodes.fetch.references import ObjectReference
from nodes.fetch.settings import Bucket

__all__ = ["Objects"]

_CHUNK = 1 << 20


class Objects:
    """Reads from buckets.

    Args:
        buckets: Each by its name.
        timeout_s: Seconds for one request to the store.

    Raises:
        SetupError: A bucket's settings make no store.
    """

    def __init__(self, buckets: Mapping[str, Bucket], timeout_s: float) -> None:
        self._stores = {name: _store(name, bucket, timeout_s) for name, bucket in buckets.items()}

    async def get(self, reference: ObjectReference, intake: Intake) -> bytes:
        """The bytes of an object.

        Raises:
            InvalidInput: Not there, not readable, or too large.
            Unavailable: The store fails or cannot be reached.
        """
        try:
            found = await obstore.get_async(self._stores[reference.bucket], reference.key)
            intake.announced(found.meta["size"])
            async for chunk in found.stream(min_chunk_size=_CHUNK):
                intake.add(bytes(chunk))
        except FileNotFoundError as error:
            raise InvalidInput("there is no such object") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise InvalidInput("it may not be read") from error
        except InvalidPathError as error:
            raise InvalidInput("that is no key of an object") from error
        except (BaseError, OSError) as error:
            raise Unavailable("the store cannot be reached, or fails") from error
        return intake.body()


def _store(name: str, bucket: Bucket, timeout_s: float) -> S3Store:
    settings: dict[str, str | bool] = {}
    if bucket.region:
        settings["region"] = bucket.region
    if bucket.endpoint:
        settings["endpoint"] = bucket.endpoint
    if bucket.unsigned:
        settings["skip_signature"] = True
    try:
        return S3Store(
            name,
            config=settings,  # type: ignore[arg-type]  # a TypedDict of which some keys are given
            client_options={
                "allow_http": bucket.endpoint.startswith("http:"),
                "timeout": timedelta(seconds=timeout_s),
                "connect_timeout": timedelta(seconds=timeout_s),
            },
            # Retries are the layers' business, which know the deadline.
            retry_config={"max_retries": 0},
        )
    except (BaseError, ValueError, TypeError) as error:
        raise SetupError(f"bucket {name!r} cannot be used: {error}") from error
