"""One uploaded photo at a time: its prediction, a heat map of the evidence, and the most similar training photos."""

import io
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trunkfold.data.photos import decode_photo, read_photo
from trunkfold.deploy.predict import Predicted, Predictor, prediction_row
from trunkfold.evaluation.predictions import read_folds
from trunkfold.html import data_address
from trunkfold.output.thumbnails import encode_jpeg, thumbnail

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # Pillow knows others, some of which run programs
SIMILAR = 5  # training photos that are shown, each of another group
CANDIDATES = 60  # from which they are chosen


@dataclass(frozen=True)
class Limits:
    """Limits of an uploaded photo.

    Attributes:
        bytes: Size of the file.
        pixels: Width times height, as the file's header says before anything is decoded.
    """

    bytes: int
    pixels: int


class UploadError(ValueError):
    """An upload is no photo, or too large; the message is the reason alone."""


class PhotoService:
    """Predictions of uploaded photos by a finished run; safe to call from several threads.

    Attributes:
        run: The finished run.
        limits: Of a photo.
    """

    def __init__(self, predictor: Predictor, limits: Limits, images: Path | None) -> None:
        """Take a run on its device.

        Args:
            images: Folder of the labelled photos; None shows similar training photos by their names alone.
        """
        self.predictor, self.run, self.limits, self.images = predictor, predictor.run, limits, images
        self.folds = read_folds(self.run.folder.folds)
        self.lock = threading.Lock()  # one photo in memory, and one in the model

    def predict(self, content: bytes) -> dict:
        """Predict one photo, see `trunkfold.deploy.predict.prediction_row`.

        Raises:
            UploadError: It is no photo, or too large.
        """
        with self.lock:
            return self._predict(content)[2]

    def explain(self, content: bytes) -> dict:
        """Predict one photo, with a heat map and the most similar training photos.

        Returns:
            As `predict`, and heat_map (a JPEG as a data: address) and similar (image_id, filename, label, name and
            photo of training photos of different groups, the most similar first; None where the run has no
            embeddings).

        Raises:
            UploadError: See `predict`.
        """
        with self.lock:
            photo, predicted, row = self._predict(content)
            (heat,) = self.predictor.explain([photo], predicted.probabilities.argmax(1))
            return row | {"heat_map": _address(heat), "similar": self._similar(predicted.embeddings[0])}

    def _predict(self, content: bytes) -> tuple[np.ndarray, Predicted, dict]:
        try:
            photo = decode_photo(io.BytesIO(content), self.predictor.side, self.limits.pixels, FORMATS)
        except ValueError as error:
            raise UploadError(str(error)) from error
        predicted = self.predictor.predict([photo])
        return photo, predicted, prediction_row(predicted, 0, self.run.classes)

    def _similar(self, embedding: np.ndarray) -> list[dict] | None:
        if self.run.known is None:
            return None
        nearest = self.folds.iloc[self.run.known.nearest(embedding, CANDIDATES)]
        shown = nearest.drop_duplicates("group").head(SIMILAR)
        return [
            {
                "image_id": str(row.image_id),
                "filename": row.filename,
                "label": row.label,
                "name": self.run.classes[row.label],
                "photo": self._training_photo(row.filename),
            }
            for row in shown.itertuples()
        ]

    def _training_photo(self, name: str) -> str | None:
        """A small picture; None where the photo is not there any more."""
        try:
            return None if self.images is None else _address(thumbnail(read_photo(self.images / name, 256)))
        except ValueError:
            return None


def _address(pixels: np.ndarray) -> str:
    return data_address(encode_jpeg(pixels), "jpeg")
