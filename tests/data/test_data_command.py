"""`resx data`: every data set in the table and in the JSON document, and the exit code of a verification."""

from __future__ import annotations

import json

import pytest
import typer
from typer.testing import CliRunner

from resx.cli import data as command
from resx.data import DATASETS

CLASSES = ("ant", "bee", "cow", "dog")


@pytest.fixture
def call():
    app = typer.Typer()
    app.command("data")(command.data)
    return lambda *arguments: CliRunner().invoke(app, [str(item) for item in arguments])


def test_the_table_and_the_document_list_every_data_set(call, tmp_path):
    table, document = call("--data-dir", tmp_path), call("--data-dir", tmp_path, "--json")
    assert table.exit_code == document.exit_code == 0
    rows = {row["name"]: row for row in json.loads(document.stdout)}
    assert list(rows) == list(DATASETS)
    assert all(name in table.stdout for name in DATASETS)
    assert "…" not in table.stdout  # nothing that a person has to type is cut off
    assert rows["cifar10"]["state"] == "absent"
    assert "cifar-10-python.tar.gz" in rows["cifar10"]["note"]
    assert rows["synthetic"]["arguments"]["classes"] == 4


def test_verification_decodes_a_folder_and_damage_is_exit_code_1(call, write_tree):
    root = write_tree(DATASETS.create("synthetic:train=12,test=8", None), CLASSES)

    def state(*flags):
        result = call("--data-dir", root, "--json", *flags)
        return result.exit_code, {row["name"]: row["state"] for row in json.loads(result.stdout)}["folder"]

    assert state() == (0, "present")
    assert state("--verify") == (0, "verified")
    (root / "test" / "cow" / "00002.png").write_bytes(b"")
    assert state() == (0, "present")
    assert state("--verify") == (1, "damaged")
