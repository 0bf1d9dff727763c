# Predict the test photos with the bundled run or the output of the training notebook, and write submission.csv.
runs = [path.parent for path in INPUT.rglob("metrics.json") if (path.parent / "shared.safetensors").exists()]  # noqa: F821
if not runs:
    raise SystemExit("no finished run among the inputs: wait for the training notebook to finish, or bundle a run")
copied = WORKING / "submissions" / NAME  # noqa: F821
shutil.copytree(runs[0], copied, dirs_exist_ok=True)  # noqa: F821
options = ["--run", copied, "--data.root", DATA, "--cache.dir", CACHE]  # noqa: F821
run(sys.executable, KIT / "src/make_submission.py", *options)  # noqa: F821
shutil.copy(copied / "submission.csv", WORKING / "submission.csv")  # noqa: F821
