"""Configurations contain the options of files and command lines; unknown ones are errors."""

from dataclasses import replace
from pathlib import Path

import pytest

from trunkfold.config.parsing import dump_config, load_config, load_yaml, parse_config
from trunkfold.config.rules import option_types
from trunkfold.config.schema import VEHICLE_DAMAGE, Config, RunConfig
from trunkfold.errors import InputError

SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
EXPERIMENTS = [path for path in SHIPPED if path.stem != "tune"]


def write_yaml(folder: Path, text: str) -> list[str]:
    """The arguments that read `text` as a configuration."""
    (folder / "given.yaml").write_text(text)
    return ["--config", str(folder / "given.yaml")]


def test_without_arguments_the_experiment_is_the_competitions():
    config = parse_config([])
    assert config == replace(Config(), run=RunConfig("default"))
    assert config.data.classes == VEHICLE_DAMAGE
    assert (config.split.folds, config.split.holdout, config.split.groups) == (5, 0.135, "copies")
    assert (config.train.one_copy_per_epoch, config.predict.consensus, config.decode.copy_labels) == (
        False,
        True,
        False,
    )
    assert (config.model.name, config.model.pretrained) == ("convnext_tiny", True)
    assert (config.model.tune, config.model.tune_stages, config.model.rank, config.model.scale) == ("block", 1, 4, 8.0)


def test_options_override_the_file_and_leave_the_rest(tmp_path):
    args = write_yaml(tmp_path, "train: {epochs: 3, head_lr: 0.5}\ndata: {classes: {a: A, b: B}}")
    config = parse_config([*args, "--train.epochs", "7", "--data.image_size", "64"])
    assert (config.train.epochs, config.train.head_lr, config.data.image_size) == (7, 0.5, 64)
    assert config.data.classes == {"a": "A", "b": "B"}
    assert config.train.seed == Config().train.seed


def test_a_number_without_a_point_is_a_float_in_yaml(tmp_path):
    assert parse_config(write_yaml(tmp_path, "train: {tail_lr: 1e-4}")).train.tail_lr == 0.0001


def test_the_run_is_named_as_its_config_file_unless_it_has_a_name(tmp_path):
    assert parse_config(write_yaml(tmp_path, "train: {epochs: 3}")).run.name == "given"
    assert parse_config(write_yaml(tmp_path, "run: {name: mine}")).run.name == "mine"
    assert parse_config([*write_yaml(tmp_path, "run: {name: mine}"), "--run.name", "other"]).run.name == "other"


@pytest.mark.parametrize(
    "args",
    [
        ["--data.classes", "null"],
        ["--data.classes", "{1: crack, a b: 'x: y', '2': é}"],
        ["--data.classes", "{'01': one, '-1': minus, 'yes': certainly}"],
        ["--split.holdout", "legacy", "--split.groups", "none"],
        ["--train.one_copy_per_epoch", "true", "--predict.consensus", "false", "--decode.copy_labels", "true"],
        ["--model.weights", "some/where.safetensors", "--train.clip_grad", "null", "--train.ema_decay", "0.99"],
        ["--augment", "[{HorizontalFlip: {p: 0.5}}, {GaussNoise: {std_range: [0.1, 0.2]}}]"],
        ["--train.optimizer_args", "{betas: [0.9, 0.99]}", "--predict.views", "[plain]"],
    ],
)
def test_what_is_dumped_loads_as_an_equal_configuration(args, tmp_path):
    config = parse_config([*args, "--run.name", "first"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--train.epoch", "5"], "train.epoch"),
        (["--train.epochs", "many"], "train.epochs"),
        (["--train.epochs", "0"], "train.epochs"),
        (["--model.tune", "most"], "model.tune"),
        (["--model.tune_stages", "5"], "model.tune_stages"),
        (["--split.holdout", "1.5"], "split.holdout"),
        (["--split.holdout", "legasy"], "split.holdout"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--split.holdout", "1"], "split.holdout must be a number of at least 0 and below 1"),
        (["--split.holdout", "legacy", "--split.groups", "groups.csv"], "it requires split.groups none"),
        (["--split.holdout", "legacy"], "it requires split.groups none"),
        (["--decode.copy_labels", "perhaps"], "decode.copy_labels"),
        (["--predict.consensus", "perhaps"], "predict.consensus"),
        (["--train.one_copy_per_epoch", "2"], "train.one_copy_per_epoch"),
        (["--split.folds", "0"], "split.folds"),
        (
            ["--data.normalize", "{mean: [0.5, 0.5], std: [0.2, 0.2, 0.2]}"],
            "data.normalize must be model or dataset or {mean: \\[red, green, blue\\]",
        ),
        (["--data.normalize", "{mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.0]}"], "data.normalize"),
        (["--data.normalize", "imagenet"], "data.normalize"),
        (["--train.batch_size", "42"], r"train.batch_size 42 .* split.folds 5, .*: use 40,"),
        (["--train.batch_size", "4"], "use 5,"),
        (["--predict.views", "[]"], "predict.views must be a list of at least one view"),
        (["--run.name", "a/b"], "run.name 'a/b' must be a plain folder name"),
        (["--run.name", ".."], "run.name"),
        (["--run.name", "copies"], "run.name copies is reserved for the results of copy searches: choose another name"),
        (["--data.classes", "{1: a, '1': b}"], "data.classes lists a label twice, as a number"),
        (["--data.classes", "{1: a, 2: a}"], "data.classes must have at least two labels with distinct names"),
        (["--data.classes", "{1: 'crack ', 2: a}"], "data.classes has whitespace around the name 'crack ': remove it"),
        (["--data.classes", "{}"], "data.classes must have at least two labels"),
    ],
)
def test_an_option_that_cannot_work_is_an_error_that_names_it(args, message):
    with pytest.raises(InputError, match=message):
        parse_config(args)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("train: {epoch: 3}", "given.yaml: there is no option train.epoch; the nearest is train.epochs"),
        ("trian: {epochs: 3}", "there is no option trian; the nearest is train"),
        ("train: {epochs: three}", "given.yaml: train.epochs must be a positive integer, not 'three'"),
        ("train: 3", "train is a section: write `train: {option: value}`, not 3"),
        ("train: {batch_size: 42}", "train.batch_size"),
        ("augment: [{HorizontalFlip: }]", "augment"),
        ("a: [", "given.yaml: line 1: "),
    ],
)
def test_a_file_that_cannot_work_is_an_error_that_names_the_key(yaml, message, tmp_path):
    with pytest.raises(InputError, match=message):
        parse_config(write_yaml(tmp_path, yaml))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"config\.yaml: no such file"),
        ("train: {epoch: 3}", r"config\.yaml: there is no option train\.epoch"),
        ("train: {batch_size: 3}", r"config\.yaml: train\.batch_size 3 must be a multiple"),
    ],
)
def test_a_runs_configuration_that_is_missing_or_damaged_is_named(text, message, tmp_path):
    if text is not None:
        (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        load_config(tmp_path / "config.yaml")


def test_a_configuration_written_by_pyyaml_loads(tmp_path):
    """Runs of earlier versions wrote YAML 1.1."""
    (tmp_path / "config.yaml").write_text(
        "data:\n  root: input\n  classes:\n    '01': one\n    2: 'yes'\ntrain:\n  tail_lr: 1.0e-05\n"
        "  optimizer_args:\n    betas:\n    - 0.9\n    - 0.99\nrun:\n  name: '2024-01-31'\n  restart: false\n"
    )
    config = load_config(tmp_path / "config.yaml")
    assert config.data.classes == {"01": "one", 2: "yes"}
    assert (config.train.tail_lr, config.train.optimizer_args) == (1e-5, {"betas": [0.9, 0.99]})
    assert config.run.name == "2024-01-31"


@pytest.mark.parametrize(
    ("yaml", "value"), [("010", 10), ("0o10", 8), ("1e-4", 0.0001), ("no", "no"), ("1:30", "1:30"), ("true", True)]
)
def test_yaml_has_no_surprises_of_version_1_1(yaml, value):
    assert load_yaml(yaml) == value


def test_numbers_are_not_read_from_text_or_truth_values(tmp_path):
    for value in ("'3'", "true", "3.0"):
        with pytest.raises(InputError, match="train.epochs must be a positive integer"):
            parse_config(write_yaml(tmp_path, f"train: {{epochs: {value}}}"))


def test_text_options_take_command_line_words_as_they_are():
    assert parse_config(["--run.name", "2024"]).run.name == "2024"
    assert parse_config(["--run.name", "a: b: c"]).run.name == "a: b: c"


def test_the_help_explains_every_option(capsys):
    with pytest.raises(SystemExit):
        parse_config(["--help"], "About this command.")
    text = " ".join(capsys.readouterr().out.split())
    assert "About this command." in text
    assert "--train.keep VALUE last keeps the weights of the last epoch" in text
    assert "(last or best; default: last)" in text
    for name in option_types():
        assert f"--{name} " in text


def test_print_config_prints_what_would_be_used(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_config([*write_yaml(tmp_path, "train: {epochs: 3}"), "--print_config", "--train.seed=7"])
    (tmp_path / "config.yaml").write_text(capsys.readouterr().out)
    config = load_config(tmp_path / "config.yaml")
    assert (config.train.epochs, config.train.seed, config.run.name) == (3, 7, "given")


def test_there_are_shipped_configs():
    assert SHIPPED


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_shipped_config_parses_and_is_named_after_its_file(path):
    assert parse_config(["--config", str(path)]).run.name == path.stem


def test_a_config_file_named_copies_needs_a_run_name_of_its_own(tmp_path):
    """Its run would lie where the searches do."""
    (tmp_path / "copies.yaml").write_text("train: {epochs: 3}")
    args = ["--config", str(tmp_path / "copies.yaml")]
    with pytest.raises(InputError, match="run.name copies is reserved"):
        parse_config(args)
    assert parse_config([*args, "--run.name", "copies2"]).run.name == "copies2"
