"""A Gradio page and HTTP API for a finished run. Requires the extra `app`."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from trunkfold.data.photos import UnreadablePhotoError
from trunkfold.deploy.photo_service import PhotoService
from trunkfold.errors import InputError
from trunkfold.html import probability
from trunkfold.run_folder import SETS

LOCAL = ("127.0.0.1", "localhost")
CLEANING = (600, 3600)  # seconds between deletions of uploads, and the age at which they are deleted
UNLIKE = "This photo differs from all training photos. Do not rely on the prediction."
# gr.Label rounds to whole percents, even to 100 %; the labels contain the probabilities instead.
STYLE = """
#classes .confidence, #classes .line { display: none }
.alarm { border-left: .4rem solid #c0392b; padding: .4rem 1rem }
"""


def build_app(service: PhotoService) -> gr.Blocks:
    """Build the page and its API endpoints `predict` (returns JSON) and `explain` (returns the page's content)."""

    def predict(photo: dict | None) -> dict:
        if photo is None:
            raise _refusal("upload a photo first")
        with _refusing():
            return service.predict(_uploaded(photo))

    def explain(photo: dict | None) -> tuple:
        if photo is None:
            return _nothing()
        with _refusing():
            row, heat_map, similar = service.explain(_uploaded(photo))
        bars = {f"{name} · {probability(share)}": share for name, share in row["probabilities"].items()}
        unlike = gr.update(visible=bool(row["unlike_training"]))
        return unlike, bars, heat_map, [_captioned(one) for one in similar.to_dict("records")]

    with gr.Blocks(title=service.run.folder.name, analytics_enabled=False, delete_cache=CLEANING) as app:
        gr.HTML(_heading(service))
        buttons = ["download", "fullscreen"]  # not "share", which uploads to another server
        with gr.Row():
            photo = gr.Image(label="Photo", sources=["upload", "clipboard"], height=320, elem_id="photo")
            photo.async_move_resource_to_block_cache = _without_downloads(photo.async_move_resource_to_block_cache)
            with gr.Column():
                unlike = gr.HTML(f'<p class="alarm" role="alert">{UNLIKE}</p>', visible=False, elem_id="unlike")
                classes = gr.Label(label="Calibrated probabilities", elem_id="classes")
        with gr.Row():
            title = "Evidence for the predicted class (Grad-CAM)"
            heat = gr.Image(label=title, interactive=False, height=320, buttons=buttons, elem_id="heat")
            title = "Most similar training photos"
            similar = gr.Gallery(label=title, interactive=False, columns=3, buttons=buttons, elem_id="similar")
        results = [unlike, classes, heat, similar]
        # preprocess=False: Gradio's own decoder has no size limit. Results are cleared first, so that a rejected photo
        # is not shown next to those of the previous one.
        cleared = photo.change(_nothing, None, results, api_visibility="private", show_progress="hidden")
        cleared.then(explain, photo, results, preprocess=False, api_name="explain")
        numbers = gr.JSON(visible=False)
        gr.Button(visible=False).click(predict, photo, numbers, preprocess=False, api_name="predict")
    return app


@contextmanager
def serving(service: PhotoService, host: str, port: int | None) -> Iterator[str]:
    """Serve the page until the end of the block, then delete all uploads.

    Args:
        port: Port to listen on; None selects the first free one from 7860.

    Yields:
        URL to open in a browser.

    Raises:
        InputError: The address is in use or does not belong to this machine.
    """
    # Rejects requests with other host names, which websites could use to reach the page (DNS rebinding).
    hosts = [Middleware(TrustedHostMiddleware, allowed_hosts=list(LOCAL))] if host in LOCAL else []
    app = build_app(service)
    try:
        _, address, _ = app.launch(
            server_name=host,
            server_port=port,
            max_file_size=service.limits.bytes,
            app_kwargs={"middleware": hosts},
            css=STYLE,
            footer_links=["api"],
            run_history=False,
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
        )
    except (OSError, OverflowError) as error:
        taken = f"cannot listen on {host}, port {port or '7860 and up'}: choose another --host or --port"
        raise InputError(taken) from error
    try:
        yield address
    finally:
        app.close(verbose=False)


@contextmanager
def _refusing() -> Iterator[None]:
    """Show the reason of an `UnreadablePhotoError` on the page."""
    try:
        yield
    except UnreadablePhotoError as error:
        raise _refusal(str(error)) from error


def _refusal(reason: str) -> gr.Error:
    return gr.Error(reason, print_exception=False)


def _without_downloads(keep: Callable[[str], Awaitable[str | None]]) -> Callable[[str], Awaitable[str | None]]:
    """Reject URLs, which Gradio would download."""

    async def refuse_or_keep(place: str) -> str | None:
        if "://" in place:
            raise _refusal("upload the photo: URLs are not downloaded")
        return await keep(place)

    return refuse_or_keep


def _uploaded(photo: dict) -> Path:
    """Return the path of an upload; Gradio rejects other paths only in requests that declare them as files."""
    path = Path(photo["path"] or "").resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise _refusal("the path is not that of an uploaded photo")
    return path


def _nothing() -> tuple:
    return gr.update(visible=False), None, None, None


def _captioned(photo: dict) -> tuple[np.ndarray, str]:
    grey = np.full((96, 128, 3), 200, np.uint8)
    return grey if photo["pixels"] is None else photo["pixels"], f"{photo['name']} · {photo['filename']}"


def _heading(service: PhotoService) -> str:
    run, limits = service.run, service.limits
    about = f"{run.config.model.name}, {len(run.tails)} folds, {len(run.classes)} classes."
    with suppress(StopIteration):
        name, scores = next(iter(run.metrics.by_set().items()))
        low, high = scores.intervals.macro_f1
        about += f" Macro F1 {scores.macro_f1:.3f} on the {SETS[name]} photos"
        about += f" (95 % interval {low:.3f} to {high:.3f})."
        if run.metrics.leak and (leak := getattr(run.metrics.leak, name)) and leak.with_copies:
            about += " This score is inflated: copies of these photos were in training."
    about += f" Accepts photos of up to {limits.bytes / 1e6:.3g} MB and {limits.pixels / 1e6:.3g} megapixels."
    return f"<h1>{escape(run.folder.name)}</h1><p>{escape(about)}</p>"
