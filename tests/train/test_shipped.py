"""The shipped weights agree with their card, training records and README."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from simplenet import datasets, model
from simplenet.model_card import ModelCard
from tests.train.conftest import in_batches
from train import data, evaluation, in_memory_dataset

FOLDER = datasets.SHIPPED / "fashion-mnist"
RECORDS = Path(__file__).parents[2] / "docs/training/records"
CHECKPOINTS = sorted(datasets.SHIPPED.glob("*/*.safetensors"))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_checkpoint_card_and_training_record_agree(checkpoint: Path) -> None:
    with safe_open(checkpoint, "pt") as file:
        card = ModelCard.from_json(file.metadata()["simplenet"])
    assert card.variant == checkpoint.stem
    assert len(card.labels) == card.num_classes
    if (spec := data.DATASETS.get(checkpoint.parent.name)) is not None and spec.labels:
        assert card.labels == spec.labels
        assert card.preprocessing == spec.preprocessing
    record = RECORDS / checkpoint.parent.name / f"{checkpoint.stem}.training.json"
    summary = json.loads(record.read_text())
    log = summary.pop("log", [])
    assert summary == card.training
    if "averaged" in summary:
        assert len(summary["averaged"]) > 1
        assert {(run["weights"], run["top1"]) for run in summary["averaged"]} <= _recorded_runs(record)
        return
    assert [line["epoch"] for line in log] == list(range(1, summary["epochs"] + 1))
    assert abs(log[-1]["test_top1"] - summary["top1"]) < 0.2  # bf16 during training, float32 at the end
    assert record.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def _recorded_runs(record: Path) -> set[tuple[str, float]]:
    """Final weights and top-1 of the runs recorded beside `record`."""
    variant = record.name.removesuffix(".training.json")
    records = [json.loads(path.read_text()) for path in record.parent.glob(f"{variant}.*-run.json")]
    outputs = [re.search(r"--output (\S+)", record["command"]) for record in records]
    return {
        (f"{output[1]}/{variant}.safetensors", record["top1"])
        for output, record in zip(outputs, records, strict=True)
        if output
    }


def test_readme_table_of_runs_matches_records() -> None:
    rows = re.findall(
        r"^\| `(\S+)` \| (\w+) \| [^|]* \| ?(\d*) \| [^|]* \| ([\d.]+) \| ([\d.]+) \|$",
        (datasets.SHIPPED / "cifar10/README.md").read_text(),
        re.MULTILINE,
    )
    stated = {(variant, run): (epochs, top1, loss) for variant, run, epochs, top1, loss in rows}
    recorded = {}
    for path in sorted((RECORDS / "cifar10").glob("*.json")):
        variant, run, _ = path.name.split(".")
        record = json.loads(path.read_text())
        name = "average" if run == "training" else run.removesuffix("-run")
        recorded[variant, name] = (str(record.get("epochs", "")), f"{record['top1']:.2f}", f"{record['test_loss']:.3f}")
    assert stated == recorded


def test_readme_accuracy_matches_embedded_images() -> None:
    card_path = FOLDER / "cifar-310k.safetensors"
    with safe_open(card_path, "pt") as file:
        card = ModelCard.from_json(file.metadata()["simplenet"])
    network = model.create(card.variant, card.num_classes)
    network.load_state_dict(load_file(card_path))
    embedded = datasets.shipped("fashion-mnist", "evaluation")
    batches = in_batches(*in_memory_dataset.to_tensors(embedded, card.preprocessing), 100)
    top1, *_ = evaluation.evaluate(network, batches, card.preprocessing, bf16=False)
    text = (FOLDER / "README.md").read_text()
    stated = re.search(r"([\d.]+) % top-1 on the 2,000", text)
    assert stated
    assert abs(top1 - float(stated[1])) <= 0.1
    assert f"{card.training['top1']:.2f} % top-1 on the 10,000" in text
    assert card.training["top1"] >= 94.0
