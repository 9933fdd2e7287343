"""Image folders: the same batches as the data set they came from, the cache, and what is refused."""

from __future__ import annotations

import os
import shutil

import forks
import numpy as np
import pytest
import torch
from PIL import Image

from resx import data, lab
from resx.data import DATASETS, FACTS, folder
from resx.data.batches import Batches
from resx.spec import DataSpec, SpecError
from resx.training.machine import Machine
from resx.training.resolve import resolve

CLASSES = ("ant", "bee", "cow")


@pytest.fixture
def made():
    return DATASETS.create("synthetic:classes=3,size=8,train=60,test=24", None)


@pytest.fixture
def tree(made, write_tree):
    return write_tree(made, CLASSES)


@pytest.fixture
def decoded(monkeypatch):
    """Return a list that grows by every file that is decoded."""
    seen, image = [], folder._image

    def counted(path):
        seen.append(path)
        return image(path)

    monkeypatch.setattr(folder, "_image", counted)
    return seen


def spec(**fields):
    return DataSpec(dataset="folder", **fields)


def test_numbered_files_give_the_batches_of_the_data_set_they_came_from(made, tree):
    loaded = data.load(spec(), tree)
    assert loaded.classes == CLASSES
    for name in ("train", "test"):
        for ours, theirs in zip(loaded.split(name), made.split(name), strict=True):
            assert torch.equal(ours, theirs)
    wanted = DataSpec(augment="crop-flip")
    first, second = (Batches(source, wanted, 16, 3, "cpu") for source in (loaded, made))
    k = torch.tensor([2])
    for ours, theirs in zip(
        first.assemble(first.tables(0, 5), k), second.assemble(second.tables(0, 5), k), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_numbers_are_ordered_as_numbers_and_other_names_by_class(made, tree):
    for path in (tree / "train").glob("*/*.png"):
        path.rename(path.with_name(f"{int(path.stem)}.png"))
    assert torch.equal(folder.load_folder(tree).train_y, made.train_y)
    (tree / "train" / "bee" / "1.png").rename(tree / "train" / "bee" / "one.png")
    assert folder.load_folder(tree).train_y.tolist() == sorted(made.train_y.tolist())
    (tree / "train" / "bee" / "one.png").rename(tree / "train" / "bee" / "0.png")  # no longer unique
    assert folder.load_folder(tree).train_y.tolist() == sorted(made.train_y.tolist())


def test_a_tree_is_decoded_once_and_again_when_a_file_changes(made, tree, decoded):
    first = folder.load_folder(tree)
    assert len(decoded) == 84
    again = folder.load_folder(tree)
    assert len(decoded) == 84
    assert torch.equal(first.train_x, again.train_x)
    assert first.content == again.content
    path = tree / "test" / "cow" / "00002.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    changed = folder.load_folder(tree)
    assert len(decoded) == 2 * 84
    assert changed.test_x[2].sum() == 0
    assert changed.content != first.content
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    touched = folder.load_folder(tree)
    assert len(decoded) == 3 * 84
    assert touched.content == changed.content


@pytest.mark.parametrize("harm", ["truncated", "foreign", "altered"])
def test_a_broken_cache_is_made_anew(tree, tmp_path, decoded, harm):
    first = folder.load_folder(tree)
    (cache,) = (tmp_path / "cache" / "resx").iterdir()
    raw = cache.read_bytes()
    middle = len(raw) // 2
    harmed = {
        "truncated": raw[:middle],
        "foreign": b"not an archive",
        "altered": raw[:middle] + bytes([raw[middle] ^ 255]) + raw[middle + 1 :],
    }
    cache.write_bytes(harmed[harm])
    assert torch.equal(folder.load_folder(tree).train_x, first.train_x)
    assert len(decoded) == 2 * 84
    folder.load_folder(tree)
    assert len(decoded) == 2 * 84


def test_a_cache_that_cannot_be_written_is_done_without(made, tree, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert torch.equal(folder.load_folder(tree).train_x, made.train_x)
    assert "cannot be written" in capsys.readouterr().err


def test_the_spec_has_content_and_label_and_no_path(tree, tmp_path):
    complete = data.complete(spec(), tree)
    assert (complete.label, len(complete.content)) == ("tree", 64)
    moved = tmp_path / "elsewhere" / "tree"
    shutil.copytree(tree, moved)
    assert data.complete(spec(), moved) == complete
    assert data.complete(spec(label="Farm"), tree).label == data.load(spec(label="Farm"), tree).label == "Farm"
    assert data.complete(complete, tree) == complete


def test_a_run_is_not_continued_on_other_images(tree):
    complete = data.complete(spec(), tree)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tree / "train" / "ant" / "00000.png")
    data.READ.clear()
    with pytest.raises(SpecError, match="no longer holds"):
        data.load(complete, tree)


def test_a_reference_is_kept_only_where_published_numbers_compare(made, tree, monkeypatch):
    assert data.complete(spec(reference="cifar10"), tree).reference is None
    monkeypatch.setitem(FACTS, "cifar10", made.facts)
    assert data.complete(spec(reference="cifar10"), tree).reference == "cifar10"
    assert data.load(spec(reference="cifar10"), tree).reference == "cifar10"
    assert data.load(spec(), tree).reference is None
    assert data.complete(spec(reference="cifar10", subset=30), tree).reference is None


def test_the_content_does_not_depend_on_the_lossless_format(tree, tmp_path):
    before = folder.load_folder(tree).content
    for path in list(tree.glob("*/*/*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".webp"), lossless=True)
        path.unlink()
    assert folder.load_folder(tree).content == before


def test_grey_images_have_one_channel_and_three_beside_colour(tree):
    for path in tree.glob("*/*/*.png"):
        with Image.open(path) as image:
            image.convert("L").save(path)
    grey = folder.load_folder(tree)
    assert grey.input_shape == (1, 8, 8)
    Image.fromarray(np.full((8, 8, 3), (255, 0, 0), np.uint8)).save(tree / "test" / "cow" / "00002.png")
    colour = folder.load_folder(tree)
    assert torch.equal(colour.train_x, grey.train_x.expand(-1, 3, -1, -1))
    assert colour.test_x[2, :, 0, 0].tolist() == [255, 0, 0]


def test_images_of_different_sizes_need_an_image_size(made, tree, decoded):
    path = tree / "train" / "bee" / "00001.png"
    with Image.open(path) as image:
        image.resize((16, 12), Image.Resampling.NEAREST).save(path)
    with pytest.raises(SpecError, match=r"differ in size.*00001\.png 12×16; set image_size"):
        data.load(spec(), tree)
    complete = data.complete(spec(image_size=8), tree)
    loaded = data.load(complete, tree)
    assert loaded.input_shape == (3, 8, 8)
    assert torch.equal(loaded.train_x[2:], made.train_x[2:])
    assert loaded.label == "tree at 8×8"
    decoded.clear()
    data.READ.clear()
    assert data.complete(complete, tree) == complete
    assert not decoded
    with pytest.raises(SpecError, match=r"fewer than image_size 9"):
        data.load(spec(image_size=9), tree)


def test_images_of_one_size_are_averaged_down_from_the_same_cache(tree, decoded):
    whole, small = data.complete(spec(), tree), data.complete(spec(image_size=4), tree)
    assert len(decoded) == 84
    assert whole.content == small.content
    assert data.complete(spec(image_size=8), tree) == whole
    assert data.load(small, tree).input_shape == (3, 4, 4)


@pytest.mark.parametrize("harm", ["truncated", "empty", "text", "16-bit"])
def test_a_damaged_image_is_named_in_one_line(tree, harm):
    path = tree / "test" / "bee" / "00001.png"
    if harm == "16-bit":
        Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)
    else:
        raw = path.read_bytes()
        path.write_bytes({"truncated": raw[: len(raw) // 2], "empty": b"", "text": b"no image"}[harm])
    with pytest.raises(SpecError, match=r"bee/00001\.png") as caught:
        data.complete(spec(), tree)
    assert len(caught.value.errors) == 1
    assert "\n" not in str(caught.value)
    assert folder.look_folder(tree, verify=False).state == "present"
    assert folder.look_folder(tree, verify=True).state == "damaged"


@pytest.mark.parametrize(
    ("remove", "word"),
    [
        (".", "no such folder"),
        ("train", "no train/"),
        ("test", "no test/"),
        ("test/bee", "same classes; only one holds bee"),
        ("train/*", "no class folders in train/"),
        ("train/cow/*", "no images in train/cow/"),
    ],
)
def test_a_tree_that_is_not_whole_is_one_line(tree, remove, word):
    for path in [tree] if remove == "." else list(tree.glob(remove)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SpecError, match=word) as caught:
        data.load(spec(), tree)
    assert len(caught.value.errors) == 1
    assert folder.look_folder(tree, verify=False).state in ("absent", "damaged", "present")


def test_other_files_and_hidden_ones_are_passed_over_and_folders_within_classes_are_read(made, tree):
    (tree / "train" / "ant" / "notes.txt").write_text("no image")
    (tree / "train" / "ant" / ".00000.png").write_text("no image")
    (tree / "train" / ".hidden").mkdir()
    (tree / "train" / "ant" / "images").mkdir()
    path = tree / "train" / "ant" / "00000.png"
    path.rename(path.parent / "images" / path.name)
    assert torch.equal(folder.load_folder(tree).train_x, made.train_x)


def test_images_that_change_under_the_same_size_and_time_are_seen(tree, decoded):
    first = folder.load_folder(tree)
    path = tree / "train" / "bee" / "00001.png"
    times = path.stat()
    other = tree / "train" / "ant" / "00000.png"
    with Image.open(path) as image:
        changed = np.asarray(image).copy()
    changed[0, 0] ^= 1
    Image.fromarray(changed).save(path, compress_level=0)
    size = path.stat().st_size
    Image.fromarray(changed ^ 2).save(other, compress_level=0)
    folder.load_folder(tree)
    count = len(decoded)
    path.write_bytes(other.read_bytes()[:size])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert folder.load_folder(tree).content != first.content
    assert len(decoded) == count + 84


def test_classes_that_change_places_are_seen(tmp_path, decoded):
    """Their files may be of one size and one time, as unpacked at once from an archive of bitmaps."""
    files = [tmp_path / "tree" / split / name / "1.bmp" for split in ("train", "test") for name in CLASSES[:2]]
    contents = []
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file)
        contents.append(file.read_bytes())
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    for file in files:
        os.utime(file, (0, 0))
    before = folder.load_folder(tmp_path / "tree")
    train, aside = tmp_path / "tree" / "train", tmp_path / "aside"
    for source, target in ((train / "ant", aside), (train / "bee", train / "ant"), (aside, train / "bee")):
        source.rename(target)
    assert folder.load_folder(tmp_path / "tree").content != before.content


def test_images_that_change_between_two_calls_are_seen(tree):
    ids = []
    for value in (0, 255):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tree / "train" / "ant" / "00000.png")
        ids += [one.run_id for one in resolve([{"dataset": "folder", "steps": 1}], Machine(data_dir=tree))]
    assert ids[0] != ids[1]


def test_the_images_of_a_grid_are_read_once(tree, monkeypatch):
    read, real = [], data._read_files
    monkeypatch.setattr(data, "_read_files", lambda *given: (read.append(given), real(*given))[1])
    fields = {"preset": "digits", "dataset": "folder", "batch_size": 2, "depth": 8, "normalize": "pixel-mean"}
    grid = {"shortcut": ["scaled"], "order": ["pre", "post"]}
    planned = lab.plan("shortcuts", fields=fields, grid=grid, seeds=[0, 1], machine=Machine(data_dir=tree))
    assert len(planned.specs) == 12
    assert len(read) == 1


def test_what_a_kill_left_of_the_cache_goes(tree, tmp_path):
    folder.load_folder(tree)
    (cache,) = (tmp_path / "cache" / "resx").iterdir()
    cache.with_name(f".{cache.name}.0123456789abcdef.tmp").write_bytes(b"x")
    cache.unlink()
    folder.load_folder(tree)
    assert list(cache.parent.iterdir()) == [cache]


def test_verify_compares_with_what_was_decoded(tree, monkeypatch):
    folder.load_folder(tree)
    assert folder.look_folder(tree, True).state == "verified"
    listing = folder._list(tree)
    path = tree / "train" / "bee" / "00001.png"
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(path)
    monkeypatch.setattr(folder, "_list", lambda root: listing)  # a file system that tells no times
    found = folder.look_folder(tree, True)
    assert found.state == "damaged" and "changed since" in found.note
    assert folder.look_folder(tree, True).state == "verified", "the cache that was made from others is gone"


def test_a_pipe_among_the_images_is_named_and_not_waited_for(tree):
    os.mkfifo(tree / "train" / "bee" / "pipe.png")
    with pytest.raises(SpecError, match=r"pipe\.png is not a regular file"):
        folder.load_folder(tree)


def test_one_class_is_refused(tree):
    for split in ("train", "test"):
        for name in CLASSES[1:]:
            shutil.rmtree(tree / split / name)
    with pytest.raises(SpecError, match="only one class"):
        folder.load_folder(tree)


def test_a_photograph_is_turned_as_it_says(tree):
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tree / "train" / "ant" / "00000.png", exif=exif)
    turned = folder._image(str(tree / "train" / "ant" / "00000.png"))
    assert np.array_equal(turned.transpose(1, 2, 0), np.rot90(pixels, -1))


def test_val_is_taken_where_there_is_no_test(made, tree):
    before = folder.load_folder(tree)
    (tree / "test").rename(tree / "val")
    assert folder.load_folder(tree).content == before.content
    assert folder.look_folder(tree, False).state == "present"


def test_processes_that_want_one_tree_decode_it_once(tree, tmp_path):
    script = (
        "import sys; from pathlib import Path; from resx.data import folder; "
        "image = folder._image; folder._image = lambda path: (print('decoded'), image(path))[1]; "
        "folder.load_folder(Path(sys.argv[1]))"
    )
    files = [tmp_path / "one", tmp_path / "other"]
    processes = [forks.python(script, str(tree), out=file) for file in files]
    for process in processes:
        process.join(120)
    assert sorted(file.read_text().count("decoded") for file in files) == [0, 84]
    assert [process.exitcode for process in processes] == [0, 0]


def test_images_of_one_size_are_read_once_for_all_sizes_asked_for(tree, monkeypatch):
    data.READ.clear()
    spec = DataSpec(dataset="folder")
    data.complete(spec, tree)
    monkeypatch.setattr(data, "_read_files", lambda *arguments: pytest.fail("read again"))
    for size in (4, 2):
        assert data.facts(spec.model_copy(update={"image_size": size}), tree).shape[1:] == (size, size)
