"""The page of a finished run, served in this process."""

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from trunkfold.deploy.photo_service import Limits, PhotoService

if find_spec("gradio") is None:
    pytest.skip("gradio is not installed: pip install -e '.[app]'", allow_module_level=True)

LIMITS = Limits(200_000, 1_000_000)
PAGE = b"<!doctype html><script>alert(1)</script>"


def serve(service: PhotoService) -> Iterator[str]:
    """Address of the page, on a free port."""
    from trunkfold.deploy.app import serving  # takes seconds, also of processes that only collect the tests

    with serving(service, "127.0.0.1", None) as address:
        yield address.rstrip("/")
