"""Prediction of uploaded photos, with a Grad-CAM heat map and the most similar training photos."""

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from trunkfold.data.photos import UnreadablePhotoError, decode_photo, read_photo
from trunkfold.deploy.predict import Predicted, Predictor
from trunkfold.errors import InputError
from trunkfold.output.thumbnails import thumbnail

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # some of Pillow's other formats run programs
SIMILAR = 5  # similar training photos to show, each from a different group
CANDIDATES = 60  # nearest neighbours to choose them from


@dataclass(frozen=True)
class Limits:
    """Maximum file size, and width times height, of an uploaded photo; both are checked before decoding."""

    bytes: int
    pixels: int


class PhotoService:
    """Predict uploaded photos with a finished run. Thread-safe.

    Attributes:
        images: Folder of the labelled photos; None returns similar training photos without pixels.
    """

    def __init__(self, predictor: Predictor, limits: Limits, images: Path | None) -> None:
        self.predictor, self.run, self.limits, self.images = predictor, predictor.run, limits, images
        self.lock = threading.Lock()  # one photo at a time, to limit memory

    def predict(self, file: Path) -> dict:
        """Predict one photo, see the rows of `trunkfold.deploy.predict.Predicted`.

        Raises:
            UnreadablePhotoError: The file is not a photo, has too many pixels, or does not fit into memory.
        """
        with self.lock:
            _, predicted = self._predict(file)
        return predicted.rows[0]

    def explain(self, file: Path) -> tuple[dict, np.ndarray, pd.DataFrame]:
        """Predict one photo like `predict`, with a heat map and the most similar training photos.

        Returns:
            The result of `predict`; the photo with a Grad-CAM overlay, uint8 of shape (height, width, 3); and photos of
            different groups, the most similar first, with the columns of folds.csv, name of the class, and pixels (a
            thumbnail; None if the photo no longer exists), empty if the run has no embeddings.
        """
        with self.lock:
            photo, predicted = self._predict(file)
            (heat,) = self.predictor.explain([photo], predicted)
        return predicted.rows[0], heat, self._similar(predicted.embeddings[0])

    def _predict(self, file: Path) -> tuple[np.ndarray, Predicted]:
        try:
            photo = decode_photo(file, self.predictor.side, self.limits.pixels, FORMATS)
        except InputError as error:  # names the path of the upload
            reason = "the server lacks memory or file handles: try again later, or reduce the photo"
            raise UnreadablePhotoError(reason) from error
        return photo, self.predictor.predict([photo])

    def _similar(self, embedding: np.ndarray) -> pd.DataFrame:
        known = self.run.known
        nearest = self.run.folds.iloc[[] if known is None else known.nearest(embedding, CANDIDATES)]
        shown = nearest.drop_duplicates("group").head(SIMILAR)
        pixels = [self._training_photo(name) for name in shown["filename"]]
        return shown.assign(name=shown["label"].map(self.run.classes), pixels=pixels)

    def _training_photo(self, name: str) -> np.ndarray | None:
        try:
            return None if self.images is None else thumbnail(read_photo(self.images / name, 256))
        except UnreadablePhotoError:
            return None
