"""Batches: order, crop and flip of every image, the stream of epochs, and a slow reference for the pixels."""

from __future__ import annotations

import pytest
import torch

from resx import data
from resx.data import batches as module
from resx.data.batches import Batches, Feed
from resx.data.dataset import Dataset
from resx.spec import DataSpec

CUDA = (pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"))
DEVICES = ["cpu", pytest.param("cuda", marks=CUDA)]
IMAGES = 120


@pytest.fixture(scope="module")
def dataset():
    return data.load(DataSpec(dataset=f"synthetic:train={IMAGES},test=40,size=9"))


def make(dataset, seed=0, batch_size=32, device="cpu", **fields):
    return Batches(dataset, DataSpec(**{"augment": "crop-flip", **fields}), batch_size, seed, device)


def columns(tables):
    return [part for part in (tables.index, tables.dy, tables.dx, tables.flip) if part is not None]


def test_an_epoch_is_a_permutation_and_batches_span_two(dataset):
    tables = make(dataset).tables(0, 15)  # 15 · 32 images are exactly 4 epochs of 120
    epochs = tables.index.view(4, IMAGES)
    assert all(sorted(epoch.tolist()) == list(range(IMAGES)) for epoch in epochs)
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 4
    assert tables.index.shape == tables.dy.shape == tables.dx.shape == tables.flip.shape == (15, 32)


@pytest.mark.parametrize("augment", ["crop-flip", None])
def test_tables_do_not_depend_on_where_they_are_cut(dataset, augment):
    batches = make(dataset, augment=augment)
    whole, first, rest = batches.tables(0, 10), batches.tables(0, 4), batches.tables(4, 6)
    assert len(columns(whole)) == (4 if augment else 1)
    for a, b, c in zip(columns(whole), columns(first), columns(rest), strict=True):
        assert torch.equal(a, torch.cat([b, c]))


def test_the_seed_and_nothing_else_draws_the_tables(dataset):
    first, again, other = (make(dataset, seed).tables(3, 5) for seed in (0, 0, 1))
    for a, b, c in zip(columns(first), columns(again), columns(other), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    plain = make(dataset, augment=None).tables(3, 5)
    assert torch.equal(first.index, plain.index)


def test_a_batch_may_be_larger_than_an_epoch(dataset):
    tables = make(dataset, batch_size=300).tables(1, 1)
    assert tables.index.shape == (1, 300)
    assert sorted(tables.index[0, 60:180].tolist()) == list(range(IMAGES))


def test_every_crop_and_flip_is_drawn(dataset):
    batches = make(dataset)
    tables, places = batches.tables(0, 60), 2 * batches.pad + 1
    for part in (tables.dy, tables.dx):
        counts = part.flatten().bincount(minlength=places)
        assert len(counts) == places
        assert counts.min() > 60 * 32 / places / 2
    assert 0.4 < tables.flip.float().mean() < 0.6
    # crop and flip are independent of one another
    rows = torch.stack([tables.dy.flatten(), tables.dx.flatten(), tables.flip.flatten()]).double()
    assert (torch.corrcoef(rows) - torch.eye(3)).abs().max() < 0.1


@pytest.mark.parametrize(("size", "pad"), [(32, 4), (16, 2), (8, 1), (4, 1)])
def test_the_papers_four_zeros_are_in_proportion_at_other_sizes(size, pad):
    made = data.load(DataSpec(dataset=f"synthetic:train={IMAGES},test=40,size={size}"))
    assert make(made).pad == pad


def test_each_image_has_its_own_crop_and_flip():
    """The whole batch is one image, marked in every pixel: its copies must not all look the same."""
    pattern = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8)
    x, y = pattern.repeat(128, 1, 1, 1), torch.zeros(128, dtype=torch.int64)
    batches = make(Dataset(x, y, x, y, classes=("a",)), batch_size=128, normalize=None)
    batch, _ = batches.assemble(batches.tables(0, 1), torch.tensor([0]))
    seen = {tuple(image.flatten().tolist()) for image in batch}
    assert len(seen) > 12  # 18 are possible
    inside = [image[0, 4] for image in batch]
    rising = [row[row > 0] for row in inside if (row > 0).sum() > 1]
    assert {bool((row.diff() > 0).all()) for row in rising} == {True, False}  # flipped and not


def reference(dataset, spec, tables, k):
    """Assemble a batch image by image, in double precision, as the paper describes it."""
    train = dataset.train_x.double()
    if spec.normalize == "pixel-mean":
        centred = train - train.mean(0)
        train = centred / centred.std(correction=0)
    elif spec.normalize == "channel-mean":
        mean, deviation = (
            f(train.transpose(0, 1).flatten(1)) for f in (lambda x: x.mean(1), lambda x: x.std(1, False))
        )
        train = (train - mean[:, None, None]) / deviation[:, None, None]
    else:
        train = train / 127.5 - 1 if spec.normalize == "symmetric" else train / 255
    channels, height, width = dataset.input_shape
    images = []
    for place, index in enumerate(tables.index[k].tolist()):
        image = train[index]
        if tables.dy is not None:
            pad = max(1, height // 8)
            padded = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=torch.float64)
            padded[:, pad:-pad, pad:-pad] = image
            dy, dx = int(tables.dy[k, place]), int(tables.dx[k, place])
            image = padded[:, dy : dy + height, dx : dx + width]
            image = image.flip(2) if tables.flip[k, place] else image
        images.append(image)
    return torch.stack(images), dataset.train_y[tables.index[k].cpu()]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("normalize", ["pixel-mean", "channel-mean", "symmetric", None])
@pytest.mark.parametrize("augment", ["crop-flip", None])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_what_the_paper_describes(device, normalize, augment, channels):
    made = data.load(DataSpec(dataset=f"synthetic:train=50,test=20,size=32,channels={channels}"))
    spec = DataSpec(normalize=normalize, augment=augment)
    batches = Batches(made, spec, 32, 5, device)
    tables = batches.tables(0, 3)
    for k in range(3):
        x, y = batches.assemble(tables, torch.tensor([k], device=device))
        expected, labels = reference(made, spec, tables, k)
        torch.testing.assert_close(x.cpu().double(), expected, atol=1e-5, rtol=0)
        assert torch.equal(y.cpu(), labels)
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_images_that_are_not_square_are_cropped_in_the_right_direction():
    x = torch.randint(0, 256, (40, 2, 5, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = Dataset(x, torch.zeros(40, dtype=torch.int64), x, torch.zeros(40, dtype=torch.int64), classes=("a",))
    spec = DataSpec(augment="crop-flip")
    batches = Batches(made, spec, 16, 0, "cpu")
    tables = batches.tables(0, 1)
    actual, _ = batches.assemble(tables, torch.tensor(0))
    torch.testing.assert_close(actual.double(), reference(made, spec, tables, 0)[0], atol=1e-5, rtol=0)


def test_normalised_training_images_have_mean_zero_per_pixel_and_variance_one(dataset):
    [(x, _)] = make(dataset).evaluation("train", None, len(dataset.train_x))
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x.mean(0).abs().max() < 1e-5
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_images_that_are_all_the_same_do_not_divide_by_zero():
    x = torch.full((10, 1, 4, 4), 7, dtype=torch.uint8)
    made = Dataset(x, torch.zeros(10, dtype=torch.int64), x, torch.zeros(10, dtype=torch.int64), classes=("a",))
    [(same, _)] = make(made).evaluation("train", None, 10)
    assert same.abs().max() == 0


def test_statistics_are_those_of_the_training_images_alone():
    held = data.load(DataSpec(dataset="synthetic:train=100", validation=20))
    batches = make(held)
    assert torch.cat([x for x, _ in batches.evaluation("train", None, 7)]).mean(0).abs().max() < 1e-5
    assert torch.cat([x for x, _ in batches.evaluation("val", None, 7)]).mean(0).abs().max() > 1e-3


def test_evaluation_passes_over_a_split_in_order_without_augmentation(dataset):
    batches, mean = make(dataset), dataset.train_x.double().mean(0)
    for split, images, labels in (
        ("train", dataset.train_x, dataset.train_y),
        ("test", dataset.test_x, dataset.test_y),
    ):
        parts = list(batches.evaluation(split, None, 32))
        expected = (images.double() - mean) / (dataset.train_x.double() - mean).std(correction=0)
        torch.testing.assert_close(torch.cat([x for x, _ in parts]).double(), expected, atol=1e-5, rtol=0)
        assert torch.equal(torch.cat([y for _, y in parts]), labels)
    with pytest.raises(ValueError, match="val"):
        next(batches.evaluation("val", None, 32))


def test_a_limited_evaluation_is_balanced_and_the_same_for_every_seed(dataset):
    x, y = next(make(dataset, seed=0).evaluation("train", 24, 100))
    other, _ = next(make(dataset, seed=9).evaluation("train", 24, 100))
    assert y.bincount().tolist() == [6] * 4
    assert torch.equal(x, other)
    assert sum(len(y) for _, y in make(dataset).evaluation("test", 1000, 16)) == 40


def test_the_made_task_is_learnt_by_a_small_network():
    made = data.load(DataSpec(dataset="synthetic"))
    batches = make(made, augment=None)
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16 * 64, 4)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    tables = batches.tables(0, 60)
    for k in range(60):
        x, y = batches.assemble(tables, torch.tensor([k]))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    x, y = next(batches.evaluation("test", None, 128))
    assert (net(x).argmax(1) == y).float().mean() > 0.9


@pytest.mark.parametrize("device", DEVICES)
def test_inputs_that_are_no_images_are_only_ordered(device):
    x, y = torch.rand(50, 7, 2), torch.rand(50, 3)
    made = Dataset(x[:40], y[:40], x[40:], y[40:], label="line", task="regression")
    batches = Batches(made, DataSpec(augment="crop-flip"), 16, 0, device)
    tables = batches.tables(0, 5)
    assert len(columns(tables)) == 1
    for k in range(5):
        inputs, targets = batches.assemble(tables, torch.tensor([k], device=device))
        assert torch.equal(inputs.cpu(), x[tables.index[k].cpu()])
        assert torch.equal(targets.cpu(), y[tables.index[k].cpu()])
    inputs, targets = next(batches.evaluation("test", 4, 10))
    assert (inputs.shape, targets.shape) == ((4, 7, 2), (4, 3))


@pytest.mark.parametrize("augment", ["crop-flip", None])
def test_a_feed_holds_the_batches_of_a_chunk_of_steps(dataset, augment):
    feed, batches = Feed(make(dataset, augment=augment)), make(dataset, augment=augment)
    for first, n in ((0, 21), (21, 3)):  # the second leaves the other rows as they were
        feed.load(first, n)
        tables = batches.tables(first, n)
        for k in range(n):
            for mine, alone in zip(
                feed.batch(torch.tensor([k])), batches.assemble(tables, torch.tensor(k)), strict=True
            ):
                assert torch.equal(mine, alone)
                assert mine.stride() == alone.stride()


def test_a_feed_takes_no_more_memory_than_it_may(dataset, monkeypatch):
    one = 32 * 3 * 9 * 9 * 4  # bytes of a batch
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 5 * one + 1)
    assert Feed(make(dataset)).rows == 5
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", 1)
    assert Feed(make(dataset)).rows == 1


def test_batches_of_another_seed_are_of_the_same_images(dataset):
    batches = make(dataset)
    other = batches.with_seed(1)
    assert other._x is batches._x
    assert torch.equal(other.tables(0, 9).index, make(dataset, seed=1).tables(0, 9).index)
    assert not torch.equal(other.tables(0, 9).index, batches.tables(0, 9).index)


def test_an_epoch_is_drawn_once_for_the_chunks_that_need_it(dataset, monkeypatch):
    drawn, draw = [], module._epoch
    monkeypatch.setattr(
        module, "_epoch", lambda images, seed, epoch, pad: drawn.append(epoch) or draw(images, seed, epoch, pad)
    )
    batches = make(dataset)
    for first in range(0, 12, 2):  # an epoch is 3.75 batches
        batches.tables(first, 2)
    assert drawn == [0, 1, 2, 3]


@CUDA[0]
@CUDA[1]
def test_tables_are_the_same_on_every_device_and_a_graph_replays_a_batch(dataset):
    here, there = make(dataset), make(dataset, device="cuda")
    tables = there.tables(0, 6)
    for a, b in zip(columns(here.tables(0, 6)), columns(tables), strict=True):
        assert torch.equal(a, b.cpu())
    k, feed = torch.zeros(1, dtype=torch.int64, device="cuda"), Feed(there)
    feed.load(0, 6)
    feed.batch(k)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x, _ = feed.batch(k)
    for step in range(6):
        k.fill_(step)
        graph.replay()
        expected, _ = here.assemble(here.tables(0, 6), torch.tensor([step]))
        torch.testing.assert_close(x.cpu(), expected, atol=1e-6, rtol=0)
