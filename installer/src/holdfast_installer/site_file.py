"""Reads site.yml: every error names file, line and column, the field, and what was expected."""

from __future__ import annotations

import difflib
import types
import typing
from pathlib import Path
from typing import Annotated, Any  # Any: what YAML holds before validation has no narrower type

import yaml
from pydantic import BaseModel, ValidationError

from holdfast_installer.errors import EXIT_USAGE, HoldfastError
from holdfast_installer.site import Location, Model, Site, disagreements

Marks = dict[Location, tuple[yaml.Mark, yaml.Mark]]


class SiteError(HoldfastError):
    """The site file cannot be used; `problems` holds one text for each thing wrong in it."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        super().__init__(
            f"The site file has {count}:\n" + "\n".join(f"  {line}" for line in problems),
            where=str(path),
            next_command=f"correct the lines named above in {path}, then run the command again",
            exit_code=EXIT_USAGE,
        )
        self.problems = problems


def load_site(path: Path) -> Site:
    """Read and check a site file; relative paths in it are taken from its own folder.

    Raises `SiteError` with every problem found, each with file:line:column.
    """
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HoldfastError(
            "The site file cannot be read.",
            where=str(path),
            cause=str(error),
            next_command="holdfast init --output site.yml writes one",
            exit_code=EXIT_USAGE,
        ) from error
    return parse_site(text, path)


def parse_site(text: str, path: Path) -> Site:
    """Check the text of a site file that stands, or will stand, at `path`."""
    data, marks = _compose(text, path)
    try:
        site = Site.model_validate(data, context={"base": path.parent})
    except ValidationError as error:
        raise SiteError(path, _readable(error, data, marks, path)) from error
    found = disagreements(site)
    if found:
        raise SiteError(
            path, [_at(path, marks, where, f"{_dotted(where)}: {what}") for where, what in found]
        )
    return _with_absolute_sources(site, path.parent)


def _with_absolute_sources(site: Site, base: Path) -> Site:
    def absolute(model: Model) -> Model:
        if not model.is_local:
            return model
        source = (base / Path(model.source).expanduser()).resolve()
        return model.model_copy(update={"source": str(source)})

    return site.model_copy(update={"models": tuple(absolute(model) for model in site.models)})


def _compose(text: str, path: Path) -> tuple[object, Marks]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            raise SiteError(path, [f"{path}:1:1: the file is empty; a site is expected"])
        marks: Marks = {}
        problems: list[str] = []
        _walk(node, (), marks, problems, path)
        if problems:
            raise SiteError(path, problems)
        return loader.construct_document(node), marks
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise SiteError(path, [f"{at}: not YAML: {what}"]) from error
    except yaml.YAMLError as error:
        raise SiteError(path, [f"{path}: not YAML: {error}"]) from error
    finally:
        loader.dispose()


def _walk(node: yaml.Node, where: Location, marks: Marks, problems: list[str], path: Path) -> None:
    """Note where each value stands, and refuse keys written twice: YAML keeps the last only."""
    marks.setdefault(where, (node.start_mark, node.start_mark))
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _walk(child, (*where, index), marks, problems, path)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            below = (*where, name)
            if name in seen:
                at = f"{path}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
                problems.append(f"{at}: {_dotted(below)}: this key is written twice")
            seen.add(name)
            marks[below] = (key.start_mark, child.start_mark)
            _walk(child, below, marks, problems, path)


def _readable(error: ValidationError, data: object, marks: Marks, path: Path) -> list[str]:
    lines: list[str] = []
    for item in error.errors():
        if item["type"] == "too_short" and item["input"]:
            continue  # it is short only because an item in it was refused, which is said already
        where = _into_data(item["loc"], data)
        text = _explain(item["type"], item["msg"], item["input"], where)
        line = _at(path, marks, where, f"{_dotted(where)}: {text}", key=_about_key(item["type"]))
        if line not in lines:
            lines.append(line)
    return lines


def _about_key(kind: str) -> bool:
    return kind in {"extra_forbidden", "missing"}


def _into_data(location: Location, data: object) -> Location:
    """Keep the parts of a pydantic location that are keys of the data; it also names types."""
    kept: list[str | int] = []
    here: Any = data
    for part in location:
        if isinstance(here, dict):
            kept.append(part)
            here = here.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            kept.append(part)
            here = here[part]
    return tuple(kept)


def _explain(kind: str, message: str, found: object, where: Location) -> str:
    if kind == "extra_forbidden":
        known = _known_keys(where[:-1])
        near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key {where[-1]!r}; {hint}"
    if kind == "missing":
        return "this key is required and is missing"
    text = message.removeprefix("Value error, ")
    text = text[0].lower() + text[1:]
    if kind == "string_pattern_mismatch":
        text = f"expected text like {_example(where)}"
    if "found" in text:
        return text
    shown = repr(found) if not isinstance(found, dict | list) else type(found).__name__
    return f"{text.replace('input should be', 'expected')}; found {shown}"


def _example(where: Location) -> str:
    if where and where[-1] == "domain":
        return "lab.internal (lower case, with a dot)"
    if where and where[-1] == "currency":
        return "EUR (ISO 4217)"
    if where and where[0] == "models" and where[-1] == "id":
        return "organisation/name"
    return "control-1 (lower case letters, digits and inner hyphens, at most 63)"


def _known_keys(where: Location) -> list[str]:
    model: type[BaseModel] = Site
    for part in where:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(str(part))
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return []
        model = inner
    return list(model.model_fields)


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in {tuple, typing.Union, types.UnionType, Annotated}:
        for argument in typing.get_args(annotation):
            if (found := _model_in(argument)) is not None:
                return found
    return None


def _at(path: Path, marks: Marks, where: Location, text: str, *, key: bool = False) -> str:
    near = where
    while near not in marks and near:
        near = near[:-1]
    key_mark, value_mark = marks[near]
    mark = key_mark if key else value_mark
    return f"{path}:{mark.line + 1}:{mark.column + 1}: {text}"


def _dotted(where: Location) -> str:
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text or "(the whole file)"
