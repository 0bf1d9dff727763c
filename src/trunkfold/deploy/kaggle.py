"""A Kaggle dataset with the kit and its dependencies, and notebooks that train and predict without internet access."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from trunkfold.config.parsing import load_config
from trunkfold.config.schema import Config
from trunkfold.errors import InputError
from trunkfold.files import whole_folder, write_json, write_text
from trunkfold.model.pretrained import PACKAGE
from trunkfold.split.groups import SEARCHED

LACKING = ("cleanlab", "docstring-parser", "ruamel.yaml", "termcolor")
PYTHON = "3.12"  # of Kaggle's image
MARKER = "trunkfold-bundle.json"  # the notebooks search for this file, as Kaggle's mount point varies
KIT = ("src", "configs", "pyproject.toml")  # files to bundle from the checkout
IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")


@dataclass(frozen=True)
class Bundle:
    """Content of a bundle and its names on Kaggle: the options of make_kaggle_bundle.py.

    The notebooks are named <name>-train and <name>-predict. Without a run, the second predicts with the output of the
    first.
    """

    out: Path
    user: str
    name: str
    data: str | None
    competition: str | None
    config: Path
    run: Path | None
    weights: Path | None
    hours: float
    resume: bool

    @cached_property
    def settings(self) -> Config:
        """Configuration of the training."""
        return load_config(self.config)

    @cached_property
    def trains(self) -> bool:
        """Whether there is a training notebook; not with a run trained from weights that Kaggle's image lacks."""
        weights = self.weights or self.settings.model.weights
        return self.run is None or not str(weights).startswith(PACKAGE)

    @cached_property
    def files(self) -> dict[str, Path]:
        """Files that training reads, by option."""
        if not self.trains:
            return {}
        split, data = self.settings.split, self.settings.data
        groups = None if split.groups in SEARCHED else split.groups
        paths = {"split.groups": groups, "data.relabel": data.relabel, "data.drop": data.drop}
        paths["model.weights"] = self.weights or self.settings.model.weights
        return {option: Path(path) for option, path in paths.items() if path is not None}


def check_bundle(bundle: Bundle) -> None:
    """Raise an `InputError` for names that Kaggle rejects, an invalid configuration, and missing files."""
    slug = r"[a-z0-9]+(-[a-z0-9]+)*"
    if not re.fullmatch(slug, bundle.name) or not 6 <= len(bundle.name) <= 42:
        raise InputError(f"--name {bundle.name} must be 6 to 42 characters of a-z, 0-9 and single hyphens")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", bundle.user):
        raise InputError(f"--user {bundle.user} is not a Kaggle user name: copy it from your profile's URL")
    if (bundle.data is None) == (bundle.competition is None):
        raise InputError("pass the source of the photos: either --data OWNER/SLUG, or --competition SLUG, not both")
    if bundle.data is not None and bundle.data.count("/") != 1:
        raise InputError(f"--data {bundle.data} must be OWNER/SLUG, as in the dataset's URL")
    if not bundle.hours > 0:
        raise InputError(f"--hours {bundle.hours} must be above 0")
    for option, path in (("config", bundle.config), ("weights", bundle.weights)):
        if path is not None and not path.is_file():
            raise InputError(f"--{option} {path} is not a file")
    if bundle.out.exists():
        raise InputError(f"--out {bundle.out} exists: remove it, or choose another folder")
    for option, path in bundle.files.items():
        if not path.is_file():
            own = "use timm's (null), or pass --weights with a file of timm's model"
            fix = own if option == "model.weights" else "correct the configuration"
            raise InputError(f"--config: {option} {path} is not a file, and cannot be bundled: {fix}")


def write_bundle(bundle: Bundle, checkout: Path) -> list[str]:
    """Write dataset/, train/ (if the bundle trains) and predict/ into the bundle's folder.

    Args:
        checkout: Folder that contains src/ and configs/.

    Returns:
        Commands that push the bundle to Kaggle, in order.

    Raises:
        InputError: A wheel cannot be downloaded, or the folder is not writable.
    """
    with whole_folder(bundle.out) as partial:
        _write_dataset(bundle, checkout, partial / "dataset")
        if bundle.trains:
            _write_kernel(bundle, "train", partial / "train")
        _write_kernel(bundle, "predict", partial / "predict")
    kernel = f"{bundle.user}/{bundle.name}-predict"
    train = f"kaggle kernels push -p {bundle.out / 'train'} --accelerator NvidiaTeslaT4"
    submit = f"kaggle competitions submit {bundle.competition} -k {kernel} -v 1 -f submission.csv -m trunkfold"
    return [
        f"kaggle datasets create -p {bundle.out / 'dataset'} --dir-mode zip",
        *([train] if bundle.trains else []),
        f"kaggle kernels push -p {bundle.out / 'predict'}",
        submit if bundle.competition else f"kaggle kernels output {kernel} -p .",
    ]


def _write_dataset(bundle: Bundle, checkout: Path, folder: Path) -> None:
    folder.mkdir()
    _download_wheels(folder / "wheels")
    for name in KIT:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, folder / "kit" / name, ignore=IGNORED)
        else:
            shutil.copy(source, folder / "kit" / name)
    shutil.copy(bundle.config, folder / "config.yaml")
    for option, path in bundle.files.items():
        shutil.copy(path, folder / (option + path.suffix))
    if bundle.run is not None:
        shutil.copytree(bundle.run, folder / "run", ignore=IGNORED)
    metadata = {"title": bundle.name, "id": f"{bundle.user}/{bundle.name}", "licenses": [{"name": "other"}]}
    write_json(metadata, folder / "dataset-metadata.json")
    write_json({"format": 1}, folder / MARKER)


def _download_wheels(folder: Path) -> None:
    """Download wheels of the packages that Kaggle's image lacks; all are pure Python."""
    options = ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--quiet", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, *LACKING]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise InputError(f"pip cannot download the wheels for Kaggle ({reason}): connect to the internet and rerun")


def _write_kernel(bundle: Bundle, kind: str, folder: Path) -> None:
    train, user, name = kind == "train", bundle.user, bundle.name
    from_training = bundle.resume if train else bundle.run is None
    folder.mkdir()
    metadata = {
        "id": f"{user}/{name}-{kind}",
        "title": f"{name}-{kind}",
        "code_file": f"{kind}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": True,
        "enable_internet": train and "model.weights" not in bundle.files,
        "dataset_sources": [f"{user}/{name}", *([bundle.data] if bundle.data else [])],
        "competition_sources": [bundle.competition] if bundle.competition else [],
        "kernel_sources": [f"{user}/{name}-train"] if from_training else [],
        "model_sources": [],
    }
    write_json(metadata, folder / "kernel-metadata.json")
    source = bundle.competition or bundle.data.rpartition("/")[2]  # folder in which Kaggle mounts the photos
    values = {"SOURCE": source, "MARKER": MARKER, "NAME": name, "HOURS": bundle.hours, "LACKING": list(LACKING)}
    values["FILES"] = {option: option + path.suffix for option, path in bundle.files.items()}
    parameters = "\n".join(f"{key} = {value!r}" for key, value in values.items())
    scripts = files("trunkfold") / "templates"
    cells = [parameters]
    for script in ("kaggle_setup.py", f"kaggle_{kind}.py"):
        cells.append((scripts / script).read_text(encoding="utf-8").strip())
    notebook = {
        "cells": [_cell(number, source) for number, source in enumerate(cells)],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    write_text(json.dumps(notebook, indent=1) + "\n", folder / f"{kind}.ipynb")


def _cell(number: int, source: str) -> dict:
    cell = {"cell_type": "code", "id": f"cell-{number}", "metadata": {}, "execution_count": None, "outputs": []}
    return {**cell, "source": source.splitlines(keepends=True)}
