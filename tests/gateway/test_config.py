from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from gateway_parts import write_config

from holdfast_gateway.config import ConfigError, load

if TYPE_CHECKING:
    from pathlib import Path


def spoil(tmp_path: Path, *path: str | int, value: Any) -> Path:
    file = write_config(tmp_path, "http://127.0.0.1:8200")
    config = yaml.safe_load(file.read_text())
    at = config
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    file.write_text(yaml.safe_dump(config))
    return file


def test_a_sound_file_is_read(tmp_path: Path) -> None:
    config = load(write_config(tmp_path, "http://127.0.0.1:8200/"))
    assert config.models[0].upstream == "http://127.0.0.1:8200"
    assert config.models_by_id["holdfast/starter"].teams == ("research",)
    assert config.limits.drain_seconds == 2


def test_listen_can_be_given_from_outside(tmp_path: Path) -> None:
    file = write_config(tmp_path, "http://127.0.0.1:8200")
    assert load(file, listen="[::1]:9000").listen == "[::1]:9000"
    with pytest.raises(ConfigError, match=r"gateway.yml: listen: .*ADDRESS:PORT"):
        load(file, listen="9000")


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("surprise",), 1, "surprise"),
        (("models", 0, "upsteam"), "x", r"models\[0\].upsteam"),
        (("models", 0, "upstream"), "127.0.0.1:8200", r"models\[0\].upstream"),
        (("models", 0, "upstream"), "http://h:1/v1", r"models\[0\].upstream"),
        (("models", 0, "upstream"), "file:///etc", r"models\[0\].upstream"),
        (("models", 0, "id"), "", r"models\[0\].id"),
        (("models", 0, "id"), "starter", r"models\[0\].id: .*org/name.*stop"),
        (("models", 1, "id"), "holdfast/starter", r"\(whole file\).*two models"),
        (("models", 0, "labels"), {"colour": "red"}, r"models\[0\].labels.colour"),
        (("limits", "idle_seconds"), 0, "limits.idle_seconds"),
        (("limits", "body_bytes"), "many", "limits.body_bytes"),
        (("listen",), "127.0.0.1:99999", "listen"),
        (("trust",), {}, "trust.database"),
        (("database",), None, "database"),
    ],
)
def test_a_fault_names_file_and_field(
    tmp_path: Path, path: tuple[str | int, ...], value: Any, field: str
) -> None:
    with pytest.raises(ConfigError, match=rf"gateway.yml: {field}"):
        load(spoil(tmp_path, *path, value=value))


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yml"
    file.write_text("listen: x\n")
    with pytest.raises(ConfigError) as failure:
        load(file)
    assert len(str(failure.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: [1\n", r"yml:2: is not YAML"), (b"- 1\n", "expected a mapping"), (b"\xff", "UTF-8")],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "gateway.yml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load(file)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "gateway.yml")
