"""The tables that a page carries: packed into it, and unpacked again to judge them anew."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from resx import claims
from resx.probes import Findings, conclude, load_probe, of_others, parse_settings
from resx.spec import Foreign, SpecError

SCALE_FIELDS = "dataset reference content image_size subset test_subset widths width batch_size steps foreign".split()
OF_OTHERS = ("test_error", "test_images")  # packed next to them where others trained the networks
MISSING = "\\N"  # in a packed table; an empty text is a text
NUMBERS = ("float64", "int64", "bool")


def pack(findings: Mapping[str, Findings]) -> str:
    """Return experiments' tables as text: base64 of packed JSON, the same for the same findings."""
    content = {name: _document(one) for name, one in findings.items()}
    text = json.dumps(content, ensure_ascii=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpack(text: str) -> dict[str, Findings]:
    """Judge the tables of a page anew. Raises SpecError where they cannot be read."""
    try:
        return {name: _findings(document) for name, document in documents(text).items()}
    except (ValueError, OSError, EOFError, KeyError, TypeError, AttributeError) as error:
        raise SpecError(f"the page's tables are damaged ({type(error).__name__})") from error


def documents(text: str) -> dict[str, Any]:
    """Return what is packed in a page, by experiment, as it is."""
    content: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(text, validate=True)))
    return content


def _document(findings: Findings) -> dict[str, Any]:
    drawn = load_probe(findings.probe).drawn
    runs = findings.frames["runs"]
    fields = [*SCALE_FIELDS, *(OF_OTHERS if runs["foreign"].notna().any() else ())]
    runs = runs[fields].drop_duplicates()
    runs["foreign"] = [one.model_dump_json() if isinstance(one, Foreign) else None for one in runs["foreign"]]
    # ids of runs judge nothing and can hardly be packed
    judged = {name: table.drop(columns="run_id", errors="ignore") for name, table in findings.tables.items()}
    return {
        "probe": findings.probe,
        "settings": findings.settings.model_dump(mode="json"),
        "runs": _text(runs),
        "tables": {name: _text(table) for name, table in judged.items() if name not in drawn},
        "parts": {name: _document(part) for name, part in findings.parts.items()},
    }


def _findings(document: dict[str, Any]) -> Findings:
    probe = load_probe(document["probe"])
    tables = {name: _table(text) for name, text in document["tables"].items()}
    parts = {name: _findings(part) for name, part in document["parts"].items()}
    runs = _table(document["runs"])
    runs["foreign"] = runs["foreign"].map(Foreign.model_validate_json, na_action="ignore")
    settings = parse_settings(probe, document["settings"])
    findings = conclude(document["probe"], settings, tables, parts, claims.scale(runs))
    return replace(findings, answer=[*of_others(runs), *findings.answer])


def _text(table: pd.DataFrame) -> dict[str, Any]:
    kinds = {str(name): str(kind) for name, kind in table.dtypes.items()}
    return {"kinds": kinds, "csv": table.to_csv(index=False, na_rep=MISSING)}


def _table(document: dict[str, Any]) -> pd.DataFrame:
    kinds = {name: kind if kind in NUMBERS else "str" for name, kind in document["kinds"].items()}
    text = io.StringIO(document["csv"])
    return pd.read_csv(text, dtype=kinds, keep_default_na=False, na_values=[MISSING])
