"""Weights of others are read without executing anything, whatever wraps them."""

import pickle

import pytest
import torch
from torch import nn

from resx.spec import SpecError
from resx.store.weights import content_hash, read_weights

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Trap:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("wrap", [dict, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_dict_is_found_in_what_scripts_save(tmp_path, wrap, prefix):
    torch.save(wrap({prefix + name: tensor for name, tensor in STATE.items()}), tmp_path / "w.pt")
    read = read_weights(tmp_path / "w.pt")
    assert read.keys() == STATE.keys()
    assert content_hash(read) == content_hash(STATE)


def test_safetensors_have_the_same_content(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(STATE, tmp_path / "w.safetensors")
    assert content_hash(read_weights(tmp_path / "w.safetensors")) == content_hash(STATE)
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(SpecError, match="damaged"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("content", [Trap(), nn.Linear(2, 2), {"state_dict": STATE, "optimizer": Trap()}])
def test_a_file_that_would_execute_code_is_refused(tmp_path, content, capsys):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(SpecError, match="refused, since reading it would execute code"):
        read_weights(tmp_path / "w.pt")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(SpecError):
        read_weights(tmp_path / "w.pkl")
    assert "executed" not in capsys.readouterr().out


def test_other_files_are_refused_in_a_line(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    for name, words in (("list.pt", "holds no state_dict"), ("cut.pt", "damaged"), ("absent.pt", "no such file")):
        with pytest.raises(SpecError, match=words):
            read_weights(tmp_path / name)


def test_the_hash_sees_every_value_and_no_counter():
    counted = {**STATE, "bn.num_batches_tracked": torch.tensor(7)}
    assert content_hash(counted) == content_hash(STATE) == content_hash(dict(reversed(STATE.items())))
    changed = {**STATE, "a.bias": torch.tensor([1.0, 1.0000001])}
    assert content_hash(changed) != content_hash(STATE)
    assert content_hash({"x": torch.ones(2, dtype=torch.bfloat16)}) != content_hash({"x": torch.ones(2)})
