"""The page of a finished run, served in this process."""

from collections.abc import Iterator

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")

from trunkfold.deploy.app import serving
from trunkfold.deploy.photo_service import Limits, PhotoService

LIMITS = Limits(200_000, 1_000_000)
PAGE = b"<!doctype html><script>alert(1)</script>"


def serve(service: PhotoService) -> Iterator[str]:
    """Address of the page, on a free port."""
    with serving(service, "127.0.0.1", None) as address:
        yield address.rstrip("/")
