# Train on all GPUs within the time limit, resuming from the output of an earlier version of this notebook.
import torch

for earlier in INPUT.rglob(f"submissions/{NAME}"):  # noqa: F821
    shutil.copytree(earlier, WORKING / "submissions" / NAME, dirs_exist_ok=True)  # noqa: F821
options = ["--data.root", DATA, "--cache.dir", CACHE, "--run.name", NAME, "--train.max_hours", HOURS]  # noqa: F821
for option, name in FILES.items():  # noqa: F821
    options += [f"--{option}", BUNDLE / name]  # noqa: F821
processes = max(1, torch.cuda.device_count())
launch = ["accelerate.commands.launch", "--num_processes", processes, *(["--multi_gpu"] if processes > 1 else [])]
run(sys.executable, "-m", *launch, KIT / "src/train_folds.py", "--config", BUNDLE / "config.yaml", *options)  # noqa: F821
