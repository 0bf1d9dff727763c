# Find the photos and the kit, and install missing packages from the dataset, without internet access.
import os
import shutil  # noqa: F401
import subprocess
import sys
from pathlib import Path

INPUT = Path(os.environ.get("KAGGLE_INPUT", "/kaggle/input"))
WORKING = Path(os.environ.get("KAGGLE_WORKING", "/kaggle/working"))
CACHE = Path(os.environ.get("KAGGLE_TEMP", "/tmp")) / "cache"  # Kaggle would save it with the working folder
os.chdir(WORKING)
BUNDLE = next(INPUT.rglob(MARKER)).parent  # noqa: F821
DATA = next(path for path in INPUT.rglob(SOURCE) if path.is_dir())  # noqa: F821
KIT = BUNDLE / "kit"


def run(*command):
    print("+", *command, flush=True)
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        for line in process.stdout:
            print(line, end="")
    if process.returncode:
        raise SystemExit(f"{command[:3]} failed with exit code {process.returncode}: see the output above")


install = ["install", "--no-index", "--no-deps", "--ignore-installed", "--find-links", BUNDLE / "wheels"]
run(sys.executable, "-m", "pip", *install, *LACKING)  # noqa: F821
