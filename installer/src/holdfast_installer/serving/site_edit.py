"""Changes one value of a model in the text of a site file; every other character stays."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from holdfast_installer.bundle.durable import write_atomically
from holdfast_installer.errors import EXIT_USAGE, HoldfastError
from holdfast_installer.site_file import parse_site

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_installer.site import Model, Site


class Edit:
    """A site file with one value of one model changed: `site` is what it says then."""

    def __init__(self, path: Path, model: str, key: str, value: str | int) -> None:
        self._path = path.absolute()
        self._before = _read(self._path)
        was = parse_site(self._before, self._path)
        self.model = model_of(was, model, path)
        self._after = changed(self._before, model, key, value, path)
        self.site: Site = parse_site(self._after, self._path)
        wanted = tuple(
            one.model_copy(update={key: value}) if one.id == model else one for one in was.models
        )
        if self.site != was.model_copy(update={"models": wanted}):
            raise _by_hand(path, model, key, value, "the file is written in an unusual way")

    @property
    def differs(self) -> bool:
        """Say whether the file has another value now."""
        return self._after != self._before

    def write(self) -> None:
        """Replace the file; HoldfastError where somebody else changed it meanwhile."""
        if not self.differs:
            return
        if _read(self._path) != self._before:
            raise HoldfastError(
                "The site file was changed by somebody else meanwhile.",
                where=str(self._path),
                next_command="run the command again",
            )
        mode = self._path.stat().st_mode & 0o777
        write_atomically(self._path, self._after.encode(), mode=mode)


def model_of(site: Site, model: str, path: Path) -> Model:
    """Return a model of the site; HoldfastError with those there are where it has none such."""
    for one in site.models:
        if one.id == model:
            return one
    raise HoldfastError(
        f"The site has no model {model}.",
        where=str(path),
        cause=f"it has {', '.join(one.id for one in site.models) or 'none'}",
        next_command="add it under models, then: holdfast apply",
        exit_code=EXIT_USAGE,
    )


def changed(text: str, model: str, key: str, value: str | int, path: Path) -> str:
    """Return the text with one scalar of one model replaced, or added after its id."""
    mapping = _mapping(yaml.compose(text, Loader=yaml.SafeLoader), model)
    if mapping is None:
        raise _by_hand(path, model, key, value, "its entry was not found")
    written = str(value) if isinstance(value, int) else _plain(value)
    for name, node in mapping.value:
        if name.value != key:
            continue
        begin, end = node.start_mark.index, node.end_mark.index
        inside = mapping.start_mark.index <= begin and end <= mapping.end_mark.index
        if not (inside and isinstance(node, yaml.ScalarNode) and node.style not in {"|", ">"}):
            raise _by_hand(path, model, key, value, "the value is an alias or no plain value")
        return text[:begin] + written + text[end:]
    first, after = mapping.value[0][0], _value_of(mapping, "id")
    if mapping.flow_style:
        at = after.end_mark.index
        return f"{text[:at]}, {key}: {written}{text[at:]}"
    at = text.find("\n", after.end_mark.index)
    at = len(text) if at < 0 else at
    return f"{text[:at]}\n{' ' * first.start_mark.column}{key}: {written}{text[at:]}"


def _mapping(root: yaml.Node | None, model: str) -> yaml.MappingNode | None:
    if not isinstance(root, yaml.MappingNode):
        return None
    models = next((node for name, node in root.value if name.value == "models"), None)
    for entry in models.value if isinstance(models, yaml.SequenceNode) else ():
        if isinstance(entry, yaml.MappingNode) and _value_of(entry, "id").value == model:
            return entry
    return None


def _value_of(mapping: yaml.MappingNode, key: str) -> yaml.Node:
    found: yaml.Node = next(node for name, node in mapping.value if name.value == key)
    return found


def _plain(value: str) -> str:
    """Return text as YAML reads it back: bare where that is the same, else in quotes."""
    try:
        same = yaml.safe_load(f"[{value}]") == [value]
    except yaml.YAMLError:
        same = False
    return value if same and value.isprintable() else json.dumps(value)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HoldfastError(
            "The site file cannot be read.",
            where=str(path),
            cause=str(error),
            next_command="holdfast init --output site.yml writes one",
            exit_code=EXIT_USAGE,
        ) from error


def _by_hand(path: Path, model: str, key: str, value: object, why: str) -> HoldfastError:
    return HoldfastError(
        f"The site file cannot be changed for {model}.",
        where=str(path),
        cause=why,
        next_command=f"write {key}: {value} there by hand, then: holdfast apply",
    )
