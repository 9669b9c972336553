from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import given
from hypothesis import strategies as st

from holdfast_hub_protocol.identifiers import (
    BadIdentifierError,
    RepositoryId,
    checked_path,
    checked_revision,
    decode,
)


@pytest.mark.parametrize(
    "text",
    [
        *("a", "a/b/c", "/b", "a/", "a/.b", "a/b.", "a/b--c", "a/b..c", "a/b.git", "-a/b", "ä/b"),
        *("a/b c", "a/b\0", "a/b\n", "../b", "a/..", "api/models", "datasets/b", "_blobs/b"),
        f"a/{'b' * 95}",
    ],
)
def test_what_no_repository_is_called(text: str) -> None:
    with pytest.raises(BadIdentifierError):
        RepositoryId.parse(text)


@given(st.from_regex(r"[A-Za-z0-9_.-]{1,20}/[A-Za-z0-9_.-]{1,20}", fullmatch=True))
def test_a_name_taken_here_is_one_that_the_client_can_ask_for(text: str) -> None:
    try:
        RepositoryId.parse(text)
    except BadIdentifierError:
        return
    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise AssertionError(text) from error


def test_case_makes_another_name() -> None:
    assert RepositoryId.parse("Org/Name") != RepositoryId.parse("org/name")


@given(st.text(max_size=40) | st.from_regex(r"[./\\a]{1,12}", fullmatch=True))
def test_a_path_never_leaves_the_folder_it_is_written_under(text: str) -> None:
    try:
        path = checked_path(text)
    except BadIdentifierError:
        return
    parts = PurePosixPath(path).parts
    assert not PurePosixPath(path).is_absolute()
    assert not {".", "..", ".git"}.intersection(parts)
    assert str(PurePosixPath(path)) == path
    assert "\0" not in path
    path.encode()


@pytest.mark.parametrize(
    "text", ["", "/a", "a//b", "a/", "./a", "a/../b", "a\\b", "a\x7f", "\ud800"]
)
def test_paths_that_no_file_has(text: str) -> None:
    with pytest.raises(BadIdentifierError):
        checked_path(text)


def test_length_of_paths_and_revisions_is_bounded() -> None:
    assert checked_path("a" * 1024)
    with pytest.raises(BadIdentifierError):
        checked_path("ü" * 513)
    with pytest.raises(BadIdentifierError):
        checked_revision("a" * 257)


@given(st.binary(max_size=30))
def test_decoding_gives_text_that_a_database_takes_or_refuses(raw: bytes) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in raw)
    try:
        text = decode(encoded)
    except BadIdentifierError:
        return
    assert text.encode() == raw
    assert "\0" not in text
