"""datasets: load, stream and push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from datasets import Dataset, DatasetDict, get_dataset_config_names, load_dataset
from huggingface_hub import HfApi

if TYPE_CHECKING:
    from hub import Hub

ROWS = 2_000


def _table(rows: int = ROWS) -> Dataset:
    numbers = list(range(rows))
    return Dataset.from_dict({"number": numbers, "text": [f"row {each}" for each in numbers]})


def scenario_push_and_load(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-table"
    splits = DatasetDict({"train": _table(), "test": _table(100)})
    splits.push_to_hub(name, private=True)
    found = load_dataset(name)
    assert {split: len(table) for split, table in found.items()} == {"train": ROWS, "test": 100}
    assert found["train"][ROWS - 1] == {"number": ROWS - 1, "text": f"row {ROWS - 1}"}
    assert found["test"]["number"] == list(range(100))


def scenario_push_another_configuration(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-table"
    _table(10).push_to_hub(name, config_name="small", split="train")
    assert set(get_dataset_config_names(name)) == {"default", "small"}
    assert len(load_dataset(name, "small", split="train")) == 10


def scenario_stream(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-table"
    streamed = load_dataset(name, split="train", streaming=True)
    assert [row["number"] for row in streamed.skip(5).take(3)] == [5, 6, 7]


def scenario_plain_files(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-files"
    api = HfApi()
    api.create_repo(name, repo_type="dataset")
    for split, rows in (("train", 50), ("test", 5)):
        lines = "".join(f'{{"n": {each}}}\n' for each in range(rows))
        api.upload_file(
            path_or_fileobj=lines.encode(),
            path_in_repo=f"data/{split}.jsonl",
            repo_id=name,
            repo_type="dataset",
        )
    assert {split: len(table) for split, table in load_dataset(name).items()} == {
        "train": 50,
        "test": 5,
    }
    one = load_dataset(name, data_files="data/test.jsonl", split="train", streaming=True)
    assert [row["n"] for row in one] == list(range(5))
    files = load_dataset("json", data_files=f"hf://datasets/{name}/data/test.jsonl", split="train")
    assert len(files) == 5


def scenario_an_older_revision(hub: Hub) -> None:
    name = f"research/{hub.names['prefix']}-versions"
    first = _table(3).push_to_hub(name)
    _table(4).push_to_hub(name)
    assert len(load_dataset(name, split="train")) == 4
    assert len(load_dataset(name, split="train", revision=first.oid)) == 3
