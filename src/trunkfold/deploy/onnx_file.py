"""Export of a run's ensemble to ONNX, in float32, float16 or int8."""

import copy
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from trunkfold.deploy.comparison import Comparison, Probabilities, check, compare
from trunkfold.deploy.finished import FinishedRun
from trunkfold.deploy.graph import EnsembleModule, describe, ensemble_module, example_photos
from trunkfold.deploy.labelled import PlainPhotos
from trunkfold.errors import InputError
from trunkfold.files import write_bytes

INPUT, OUTPUT = "photos", "probabilities"
QUANTIZED = ["Conv", "MatMul", "Gemm"]
MOST_BYTES = 2**31 - 2**24  # of weights: protobuf limits a file to 2 GiB, a few MB of which the operations take


def export_onnx(
    run: FinishedRun,
    out: Path,
    precision: str,
    held_out: PlainPhotos | None,
    calibration: PlainPhotos | None,
    most_loss: float,
) -> Comparison:
    """Write an ONNX graph with a dynamic batch size, input `photos` and output `probabilities`.

    Args:
        precision: fp32, fp16 (weights and arithmetic; probabilities stay float32) or int8 (static, per channel).
        held_out: Photos to evaluate on; None compares on noise, for fp32 only.
        calibration: Training photos to determine the ranges of activations for int8.
        most_loss: Largest accepted loss of macro F1.

    Raises:
        InputError: The file differs too much from PyTorch, or cannot be written.
    """
    module = ensemble_module(run)
    check_size(module, run, precision)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        write_graph(module, example_photos(run), file, precision)
        if precision == "int8":
            file = quantize(file, calibration.batches(8))
        compared = compare(module, onnx_probabilities(file), held_out, run)
        check(compared, precision, most_loss)
        model = onnx.load(file)
    onnx.helper.set_model_props(model, describe(run) | {"precision": precision} | compared.metadata())
    write_bytes(model.SerializeToString(), out)
    return compared


def check_size(module: EnsembleModule, run: FinishedRun, precision: str) -> None:
    """Raise an `InputError` if a graph with a module's weights would exceed the size of an ONNX file.

    For int8, this is the size of the float32 graph to quantize.
    """
    weights = sum(weight.numel() for weight in [*module.parameters(), *module.buffers()])
    size = weights * (2 if precision == "fp16" else 4)
    if size > MOST_BYTES:
        smaller = "--precision fp16 or " if weights * 2 <= MOST_BYTES else ""
        raise InputError(
            f"the ONNX graph of {run.folder} takes {size / 1e9:.3g} GB, more than the {MOST_BYTES / 1e9:.3g} GB of a "
            f"file: pass {smaller}--format torch"
        )


def onnx_probabilities(file: Path) -> Probabilities:
    """Load an ONNX file, and return its function on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda photos: session.run([OUTPUT], {INPUT: photos})[0]


def write_graph(module: EnsembleModule, photos: torch.Tensor, file: Path, precision: str) -> None:
    """Trace a module with a batch of at least two photos; for int8, write the float32 graph to quantize."""
    exported = copy.deepcopy(module).half() if precision == "fp16" else module
    quiet = logging.getLogger("torch.onnx")
    before, quiet.level = quiet.level, logging.ERROR
    try:
        program = torch.onnx.export(
            exported,
            (photos,),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            optimize=True,
            verbose=False,
        )
    finally:
        quiet.level = before
    program.save(file)


def quantize(file: Path, batches: Iterator[np.ndarray]) -> Path:
    """Quantize a float32 graph to static per-channel int8, and return the path of the new file.

    The ranges of activations are those of `batches` of uint8 photos (batch, 3, side, side).
    """
    prepared, quantized = file.with_name("prepared.onnx"), file.with_name("quantized.onnx")
    quant_pre_process(file, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        quantized,
        _Calibration(batches),
        op_types_to_quantize=QUANTIZED,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return quantized


class _Calibration(CalibrationDataReader):
    """Batches of photos through onnxruntime's calibration interface."""

    def __init__(self, batches: Iterator[np.ndarray]) -> None:
        self.batches = batches

    def get_next(self) -> dict[str, np.ndarray] | None:
        photos = next(self.batches, None)
        return None if photos is None else {INPUT: photos}
