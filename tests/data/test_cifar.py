"""CIFAR through torchvision: official order, checksums, one clear line where files are missing or damaged."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
import torchvision.datasets.utils

from resx import data
from resx.data import DATASETS, cifar
from resx.data.dataset import look
from resx.spec import DataSpec, SpecError

KINDS = {"cifar10": torchvision.datasets.CIFAR10, "cifar100": torchvision.datasets.CIFAR100}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def fail(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.datasets.utils, "_get_redirect_url", fail)
    monkeypatch.setattr(torchvision.datasets.utils, "_urlretrieve", fail)


@pytest.fixture(params=KINDS)
def archive(request, tmp_path, monkeypatch):
    """Put a small archive of the official layout in tmp_path; torchvision expects its checksums."""
    kind = KINDS[request.param]
    draw = np.random.default_rng(0)
    key = "labels" if request.param == "cifar10" else "fine_labels"
    content = {}
    for name, _ in [*kind.train_list, *kind.test_list]:
        rows = draw.integers(0, 256, (20, 3072), dtype=np.uint8)
        content[name] = pickle.dumps({"data": rows, key: list(range(10)) * 2})
    names = [f"class {number}" for number in range(10)]
    content[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: names})
    sums = {name: hashlib.md5(raw).hexdigest() for name, raw in content.items()}
    path = tmp_path / kind.filename
    with tarfile.open(path, "w:gz") as file:
        for name, raw in content.items():
            info = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            info.size = len(raw)
            file.addfile(info, io.BytesIO(raw))
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(kind, part, [[name, sums[name]] for name, _ in getattr(kind, part)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums[kind.meta["filename"]]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())
    return request.param, path, content


def test_the_archive_is_unpacked_and_read_in_the_official_order(archive, capsys):
    name, path, content = archive
    assert look(name, path.parent, verify=True).state == "verified"
    loaded = DATASETS.create(name, path.parent)
    batches = [pickle.loads(content[file])["data"] for file, _ in KINDS[name].train_list]
    rows = np.concatenate(batches).reshape(-1, 3, 32, 32)
    assert (loaded.train_x.numpy() == rows).all()
    assert loaded.train_y.tolist() == list(range(10)) * (len(rows) // 10)
    assert (loaded.classes[3], loaded.reference) == ("class 3", name)
    assert capsys.readouterr().out == ""  # stdout is for results
    assert look(name, path.parent).state == "present"
    assert look(name, path.parent, verify=True).state == "verified"


@pytest.mark.parametrize("name", KINDS)
def test_without_network_one_line_says_which_file_to_put_where(name, tmp_path):
    with pytest.raises(SpecError) as caught:
        data.load(DataSpec(dataset=name), tmp_path)
    line = str(caught.value)
    assert KINDS[name].filename in line
    assert str(tmp_path) in line
    assert "\n" not in line
    assert "://" not in line


def test_a_truncated_download_is_named(archive):
    name, path, _ = archive
    path.write_bytes(path.read_bytes()[:-20])
    assert look(name, path.parent, verify=True).state == "damaged"
    with pytest.raises(SpecError, match="truncated or damaged") as caught:
        DATASETS.create(name, path.parent)
    assert str(path) in str(caught.value)


def test_a_pickle_of_unknown_origin_is_not_opened(archive, monkeypatch):
    name, path, _ = archive
    DATASETS.create(name, path.parent)
    path.unlink()
    folder = path.parent / KINDS[name].base_folder
    for file in folder.iterdir():
        file.write_bytes(pickle.dumps({"data": 1}))
    monkeypatch.setattr("torchvision.datasets.cifar.pickle.load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(SpecError):
        DATASETS.create(name, path.parent)
    found = look(name, path.parent, verify=True)
    assert found.state == "damaged"
    assert KINDS[name].test_list[0][0] in found.note


def test_the_default_folder_is_data(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="not found in data"):
        cifar.load_cifar10()


@pytest.mark.parametrize("name", KINDS)
def test_the_names_are_those_of_torchvisions_reader(name):
    kind, files = KINDS[name], cifar.FILES[name]
    names = {file for file, _ in [*kind.train_list, *kind.test_list]} | {kind.meta["filename"]}
    assert (files.archive, files.folder, set(files.names)) == (kind.filename, kind.base_folder, names)
