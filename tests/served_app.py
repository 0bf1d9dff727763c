"""The page of a finished run, served in this process."""

import threading
from collections.abc import Iterator

from trunkfold.deploy.app import AppServer
from trunkfold.deploy.photo_service import Limits, PhotoService

LIMITS = Limits(200_000, 1_000_000)
PAGE = b"<!doctype html><script>alert(1)</script>"


def serve(service: PhotoService, host: str = "127.0.0.1") -> Iterator[AppServer]:
    with AppServer(service, host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
