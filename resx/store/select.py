"""Which recorded runs are meant: by the values of their fields, and by their names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from resx.spec import FIELDS, SpecError, did_you_mean
from resx.store.run import OUTCOMES, Record

NAMES = (*FIELDS, "run_id", "status", "steps_done", "data_label", "parameters", "seconds", "written", *OUTCOMES)
Wanted = Mapping[str, Sequence[str]]  # field -> the values that are wanted, as text


def as_text(value: object) -> str:
    """Write a field's value as a person would: 1500 for 1500.0, null for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(as_text(item) for item in value)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def parse_where(texts: Iterable[str], names: Sequence[str] = NAMES) -> dict[str, list[str]]:
    """Read `field=value` texts; several of one field are alternatives. Raises SpecError for a field not in `names`."""
    conditions: dict[str, list[str]] = {}
    errors = []
    for text in texts:
        field, equals, value = (part.strip() for part in text.partition("="))
        if not (field and equals and value):
            errors.append(f"--where: write field=value, such as lr=0.02, not '{text}'")
        elif field not in names:
            errors.append(f"--where: no field '{field}'{did_you_mean(field, names)}")
        else:
            conditions.setdefault(field, []).append(value)
    if errors:
        raise SpecError(errors)
    return conditions


def matches(row: Mapping[Any, Any], conditions: Wanted) -> bool:
    """Whether a run has one of the wanted values of every field.

    A shortcut matches without its arguments, too, a data set by its label, and `run` an id by how it begins or ends.
    """
    return all(any(_is(row, field, value) for value in values) for field, values in conditions.items())


def _is(row: Mapping[Any, Any], field: str, value: str) -> bool:
    text = as_text(row.get(field))
    if text == value or (field == "shortcut" and text.partition(":")[0] == value):
        return True
    if field == "run" and (row["run_id"].startswith(value) or row["run_id"].endswith(value)):
        return True
    if field == "dataset" and value in (row.get("label"), row.get("data_label")):
        return True
    try:
        return isinstance(row.get(field), int | float) and float(value) == row[field]
    except ValueError:
        return False


def sort_records(records: Sequence[Record], field: str) -> list[Record]:
    """Return records by a field, numbers before text and what has none last; `-field` for the largest first."""
    name = field.removeprefix("-")
    if name not in NAMES:
        raise SpecError(f"--sort: no field '{name}'{did_you_mean(name, NAMES)}")

    def key(record: Record) -> tuple[bool, float, str]:
        value = record.row[name]
        is_number = isinstance(value, int | float)
        return (not is_number, float(value) if is_number else 0.0, "" if is_number else str(value))

    present = [record for record in records if as_text(record.row.get(name)) != "null"]
    absent = [record for record in records if as_text(record.row.get(name)) == "null"]
    return sorted(present, key=key, reverse=field.startswith("-")) + absent


def differing(records: Sequence[Record]) -> list[str]:
    """Return the fields of the spec that are not the same in all these runs."""
    rows = [record.row for record in records if "seed" in record.row]
    return [field for field in FIELDS if len({as_text(row.get(field)) for row in rows}) > 1]
