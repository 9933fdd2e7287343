"""Facts about every registered data set, and about what a specification asks of one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from resx import data
from resx.data import DATASETS, FACTS, LOOKUPS, balance
from resx.data.dataset import Dataset, averaged_down, look
from resx.seeding import generator
from resx.spec import DataSpec, RunSpec, SpecError

# what this machine can load without files or network
HERE = [name for name in DATASETS if name not in LOOKUPS]
DEFAULTS = DataSpec().model_dump()


@pytest.mark.parametrize("name", HERE)
def test_every_data_set_is_what_it_says(name):
    dataset, again = data.load(DataSpec(dataset=name)), DATASETS.create(name, None)
    assert torch.equal(dataset.train_x, again.train_x)
    assert torch.equal(dataset.test_y, again.test_y)
    if dataset.task == "classification":
        assert set(dataset.train_y.tolist()) == set(range(dataset.n_outputs)) == set(dataset.test_y.tolist())
    assert dataset.label
    assert dataset.val_x is None
    assert FACTS.get(name, dataset.facts) == dataset.facts
    train, test = dataset.train_x.flatten(1), dataset.test_x.flatten(1)
    assert not (train[:50, None] == test[None, :50]).all(2).any()  # the splits are not the same images


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_has_a_summary_and_can_be_looked_for(name, tmp_path):
    assert DATASETS.summary(name).endswith(".")
    found = look(name, tmp_path, verify=True)
    assert found.state == ("absent" if name in LOOKUPS else "built in")
    assert (found.where is None) == (name not in LOOKUPS)


@pytest.mark.parametrize("name", HERE)
def test_completing_twice_changes_nothing_and_loading_takes_either(name):
    spec = DataSpec(dataset=name, subset=40, validation=20)
    complete = data.complete(spec)
    assert data.complete(complete) == complete
    assert complete.dataset == DATASETS.complete(name)
    assert torch.equal(data.load(spec).train_x, data.load(complete).train_x)


def test_digits_are_rescaled_and_cut_as_written():
    from sklearn.datasets import load_digits

    raw, dataset = load_digits(), data.load(DataSpec())
    assert (len(dataset.train_x), len(dataset.test_x)) == (1500, 297)
    assert dataset.input_shape == (1, 8, 8)
    assert dataset.train_x[3, 0].tolist() == [[round(v * 255 / 16) for v in row] for row in raw.images[3]]
    assert dataset.test_y.tolist() == raw.target[1500:].tolist()
    assert int(dataset.train_x.max()) == 255


def test_what_changes_nothing_gives_no_second_run_id():
    def run_id(**fields):
        return RunSpec(data=data.complete(DataSpec(**fields))).run_id

    whole = run_id(dataset="digits")
    assert run_id(dataset="digits", subset=1500) == whole
    assert run_id(dataset="digits", test_subset=297, image_size=8) == whole
    assert run_id(dataset="digits", subset=1499) != whole
    assert run_id(dataset="digits", subset=1400, validation=100) == run_id(dataset="digits", validation=100)
    assert run_id(dataset="synthetic") == run_id(dataset="synthetic:classes=4")


def test_cifar_is_completed_without_its_files(tmp_path):
    spec = data.complete(DataSpec(dataset="cifar10", image_size=32, subset=50_000), tmp_path)
    assert spec == DataSpec(dataset="cifar10")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"dataset": "digit"}, "did you mean 'digits'"),
        ({"dataset": "synthetic:clases=3"}, "did you mean 'classes'"),
        ({"dataset": "digits", "image_size": 16}, "image_size"),
        ({"dataset": "cifar10", "subset": 50_001}, "subset"),
        ({"dataset": "cifar10", "subset": 45_001, "validation": 5000}, "45,000"),
        ({"dataset": "digits", "validation": 1500}, "validation"),
        ({"dataset": "digits", "test_subset": 298}, "test_subset"),
        ({"dataset": "digits", "label": "mine"}, "label"),
        ({"dataset": "cifar100", "reference": "cifar10"}, "reference"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_read(fields, word, tmp_path):
    errors = data.check_names({**DEFAULTS, **fields})
    assert len(errors) == 1
    assert word in errors[0]
    with pytest.raises(SpecError, match=word):
        data.complete(DataSpec(**fields), tmp_path)


def test_all_mistakes_come_at_once():
    fields = {"dataset": "digits", "image_size": 9, "subset": 2000, "test_subset": 500, "label": "x"}
    assert len(data.check_names({**DEFAULTS, **fields})) == 4
    assert data.check_names(DEFAULTS) == []


def test_a_made_task_refuses_numbers_it_cannot_be_made_with():
    with pytest.raises(SpecError) as caught:
        data.load(DataSpec(dataset="synthetic:classes=1,size=3"))
    assert len(caught.value.errors) == 2


def test_subsets_are_balanced_nested_and_apart_from_validation():
    spec = DataSpec(dataset="synthetic:train=400,test=200,size=4", validation=80, test_subset=42)
    whole = data.load(spec)
    small, smaller = (data.load(spec.model_copy(update={"subset": n})) for n in (100, 50))

    def rows(images):
        return {bytes(image.flatten().tolist()) for image in images}

    assert whole.train_y.bincount().tolist() == [80] * 4
    assert whole.val_y.bincount().tolist() == [20] * 4
    assert small.train_y.bincount().tolist() == [25] * 4
    assert sorted(whole.test_y.bincount().tolist()) == [10, 10, 11, 11]
    assert rows(smaller.train_x) < rows(small.train_x) < rows(whole.train_x)
    assert not rows(whole.val_x) & rows(whole.train_x)
    assert len(rows(whole.val_x) | rows(whole.train_x)) == 400
    assert torch.equal(small.val_x, whole.val_x)
    assert small.label == "synthetic, 100 images"


def test_a_class_that_runs_out_gives_what_it_has():
    labels = torch.tensor([0] * 3 + [1] * 50 + [2] * 50)
    chosen = balance.balanced(labels, len(labels), 43, generator(0, "subset"))
    assert labels[chosen].bincount().tolist() == [3, 20, 20]
    assert chosen.tolist() == sorted(set(chosen.tolist()))


def test_images_are_averaged_down_and_rounded():
    dataset = data.load(DataSpec(dataset="synthetic:size=8", image_size=4))
    raw = DATASETS.create("synthetic:size=8", None).train_x.double()
    mean = (raw[..., ::2, ::2] + raw[..., 1::2, ::2] + raw[..., ::2, 1::2] + raw[..., 1::2, 1::2]) / 4
    assert dataset.train_x.dtype == torch.uint8
    assert torch.equal(dataset.train_x, mean.round().to(torch.uint8))
    assert dataset.input_shape == (3, 4, 4)
    assert dataset.test_x.shape[2:] == (4, 4)
    assert dataset.label == "synthetic at 4×4"
    assert torch.equal(averaged_down(dataset.train_x, 4), dataset.train_x)


def test_published_numbers_stand_beside_all_images_at_full_size_only(monkeypatch):
    made = DATASETS.create("synthetic:classes=10,size=32,train=100,test=50", None)
    monkeypatch.setitem(FACTS, "cifar10", made.facts)
    monkeypatch.setitem(DATASETS._entries, "cifar10", lambda root: dataclasses.replace(made, reference="cifar10"))
    assert data.load(DataSpec(dataset="cifar10")).reference == "cifar10"
    for less in ({"subset": 50}, {"test_subset": 20}, {"validation": 10}, {"image_size": 16}):
        assert data.load(DataSpec(dataset="cifar10", **less)).reference is None


def test_data_that_is_no_images_and_no_classes(monkeypatch):
    x, y = torch.rand(60, 5, 2), torch.rand(60, 3)

    def line(root):
        return Dataset(x[:40], y[:40], x[40:], y[40:], label="line", task="regression")

    monkeypatch.setitem(DATASETS._entries, "line", line)
    spec = DataSpec(dataset="line", subset=20, validation=10, augment="crop-flip")
    complete = data.complete(spec)
    assert (complete.normalize, complete.augment) == (None, None)
    dataset = data.load(spec)
    assert (dataset.input_shape, dataset.n_outputs, dataset.is_images) == ((5, 2), 3, False)
    assert (len(dataset.train_x), len(dataset.val_x), len(dataset.test_x)) == (20, 10, 20)
    with pytest.raises(SpecError, match="holds no images"):
        data.complete(DataSpec(dataset="line", image_size=4))


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(3, 4), torch.zeros(3)),
        (torch.zeros(3, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
    ],
)
def test_a_data_set_that_does_not_fit_together_is_refused(x, y):
    with pytest.raises(ValueError, match=r"needed|must be"):
        Dataset(x, y, x, y, classes=("a", "b"))


def test_the_data_folder_is_the_flag_the_environment_or_data(monkeypatch):
    assert data.data_root(None) == Path("data")
    monkeypatch.setenv("RESX_DATA", "elsewhere")
    assert data.data_root(None) == Path("elsewhere")
    assert data.data_root(Path("given")) == Path("given")


@pytest.mark.parametrize(
    "text",
    ["synthetic:train=100000000000", "synthetic:size=1000000", "temporal-order:steps=10000000", "teacher:d=100000"],
)
def test_a_made_data_set_that_fits_no_memory_is_refused_at_once(text):
    with pytest.raises(SpecError, match="input values are too many"):
        DATASETS.create(text, None)
