"""One uploaded photo at a time: its prediction, a heat map of the evidence, and the most similar training photos."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trunkfold.data.photos import decode_photo, read_photo
from trunkfold.deploy.predict import Predicted, Predictor, prediction_row
from trunkfold.evaluation.predictions import read_folds
from trunkfold.output.thumbnails import thumbnail

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
    """An upload is no photo, or has too many pixels; the message is the reason alone."""


@dataclass(frozen=True)
class SimilarPhoto:
    """A training photo beside an uploaded one.

    Attributes:
        image_id: Its id.
        filename: Its file.
        name: Name of its class.
        pixels: A thumbnail, uint8 of shape (height, width, 3); None where the photo is not there any more.
    """

    image_id: str
    filename: str
    name: str
    pixels: np.ndarray | None


@dataclass(frozen=True)
class Explanation:
    """Everything the page shows of a photo.

    Attributes:
        row: As `PhotoService.predict`.
        heat_map: The photo with Grad-CAM heat, uint8 of shape (height, width, 3).
        similar: Training photos of different groups, the most similar first; empty where the run has no embeddings.
    """

    row: dict
    heat_map: np.ndarray
    similar: list[SimilarPhoto]


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

    def predict(self, file: Path) -> dict:
        """Predict one photo, see `trunkfold.deploy.predict.prediction_row`.

        Raises:
            UploadError: It is no photo, or has too many pixels.
        """
        with self.lock:
            return self._predict(file)[2]

    def explain(self, file: Path) -> Explanation:
        """Predict one photo, with a heat map and the most similar training photos.

        Raises:
            UploadError: See `predict`.
        """
        with self.lock:
            photo, predicted, row = self._predict(file)
            (heat,) = self.predictor.explain([photo], predicted.probabilities.argmax(1))
        return Explanation(row, heat, self._similar(predicted.embeddings[0]))

    def _predict(self, file: Path) -> tuple[np.ndarray, Predicted, dict]:
        try:
            photo = decode_photo(file, self.predictor.side, self.limits.pixels, FORMATS)
        except ValueError as error:
            raise UploadError(str(error)) from error
        predicted = self.predictor.predict([photo])
        return photo, predicted, prediction_row(predicted, 0, self.run.classes)

    def _similar(self, embedding: np.ndarray) -> list[SimilarPhoto]:
        if self.run.known is None:
            return []
        nearest = self.folds.iloc[self.run.known.nearest(embedding, CANDIDATES)]
        shown = nearest.drop_duplicates("group").head(SIMILAR)
        return [
            SimilarPhoto(
                str(row.image_id), row.filename, self.run.classes[row.label], self._training_photo(row.filename)
            )
            for row in shown.itertuples()
        ]

    def _training_photo(self, name: str) -> np.ndarray | None:
        try:
            return None if self.images is None else thumbnail(read_photo(self.images / name, 256))
        except ValueError:
            return None
