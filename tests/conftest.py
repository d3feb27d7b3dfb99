"""Fixtures that several test modules share."""

import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a CUDA device where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is measured on this machine out of the developer's own cache, and that out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        # To list the fonts takes matplotlib seconds: that list stays where it is.
        patch.setenv("MPLCONFIGDIR", matplotlib.get_cachedir())
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def _real_data_folder() -> Path | None:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data" / "medmnist"
    for folder in (os.environ.get("MEDMNIST_ROOT"), beside):
        if folder and (Path(folder) / "breastmnist.npz").is_file():
            return Path(folder)
    return None


@pytest.fixture(scope="session")
def medmnist_root() -> Path:
    """Folder with official MedMNIST files; skips where there is none."""
    folder = _real_data_folder()
    if folder is None:
        pytest.skip("no real data: put MedMNIST files into $MEDMNIST_ROOT")
    return folder


@pytest.fixture(scope="session")
def deit_tiny_file() -> Path:
    """Pretrained DeiT-Tiny weights; skips where there are none."""
    return _weights_file("deit_tiny_patch16_224.safetensors", "RAYPATCH_DEIT_TINY")


@pytest.fixture(scope="session")
def efficientnet_lite0_file() -> Path:
    """Pretrained weights of timm's tf_efficientnet_lite0; skips where there are none."""
    return _weights_file("efficientnet_lite0.safetensors", "RAYPATCH_EFFICIENTNET_LITE0")


@pytest.fixture(scope="session")
def squeezenet_file() -> Path:
    """Pretrained weights of torchvision's squeezenet1_1; skips where there are none."""
    return _weights_file("squeezenet1_1.safetensors", "RAYPATCH_SQUEEZENET")


def _weights_file(name: str, variable: str) -> Path:
    default = Path(__file__).resolve().parents[2] / "shared" / "weights" / name
    path = Path(os.environ.get(variable, default))
    if not path.is_file():
        pytest.skip(f"no pretrained weights: set ${variable} to {name}")
    return path
