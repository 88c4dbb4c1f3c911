"""YAML files checked against a schema, with errors that name file, key and what is allowed there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from paretone.errors import UserError, did_you_mean


def read_yaml(path: Path, what: str) -> Any:
    """The content of a YAML file; ``what`` is what the user calls it.

    Raises:
        UserError: if it can't be read or is no YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{what} {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} is not YAML: {' '.join(str(error).split())}") from error


def put(content: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of ``content`` with the value at a dotted key; what it passes through and is no mapping is replaced."""
    first, dot, rest = key.partition(".")
    inner = content.get(first)
    return {**content, first: put(inner if isinstance(inner, Mapping) else {}, rest, value) if dot else value}


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` words of the command line; values are read as YAML, and ``0,1,2`` as a list."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"--set {pair!r}: write key=value")
        if key in settings:
            raise UserError(f"--set {key} is given twice")
        try:
            is_list = "," in text and not text.startswith(("[", "{"))
            settings[key] = yaml.safe_load(f"[{text}]" if is_list else text)
        except yaml.YAMLError as error:
            raise UserError(f"--set {pair!r}: the value is not YAML") from error
    return settings


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """The first complaint in one line, with the nearest allowed key for an unknown one."""
    complaints = error.errors()
    first = next((c for c in complaints if c["type"] == "extra_forbidden"), complaints[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        allowed = list(_schema_at(schema, first["loc"][:-1]).model_fields)
        hint = did_you_mean(str(first["loc"][-1]), allowed) or ";"
        return f"unknown key {where!r}{hint} keys here: {', '.join(allowed)}"
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"] if isinstance(first["input"], str | int | float) else type(first["input"]).__name__
    return f"{where or 'the whole'}: {message} (given: {given!r})"


def _schema_at(schema: type[BaseModel], place: tuple[Any, ...]) -> type[BaseModel]:
    """The schema of the object that a path of keys leads to; list positions are passed over."""
    for key in place:
        if isinstance(key, str):
            schema = next(_schemas_in(schema.model_fields[key].annotation))
    return schema


def _schemas_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _schemas_in(inner)
