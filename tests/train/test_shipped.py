"""The shipped model is what its files say, and as accurate on the embedded images as its README claims."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file

from simplenet import datasets, model
from simplenet.model_card import ModelCard
from train import data, evaluation, in_memory_dataset

FOLDER = datasets.SHIPPED / "fashion-mnist"
CHECKPOINTS = sorted(datasets.SHIPPED.glob("*/*.safetensors"))


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_checkpoint_its_card_and_its_training_summary_agree(checkpoint: Path) -> None:
    with safe_open(checkpoint, "pt") as file:
        card = ModelCard.from_json(file.metadata()["simplenet"])
    assert card.variant == checkpoint.stem
    assert len(card.labels) == card.num_classes
    if (spec := data.DATASETS.get(checkpoint.parent.name)) is not None and spec.labels:
        assert card.labels == spec.labels
        assert card.preprocessing == spec.preprocessing
    summary = json.loads(checkpoint.with_suffix(".training.json").read_text())
    log = summary.pop("log", [])
    assert summary == card.training
    if "averaged" in summary:
        assert len(summary["averaged"]) > 1
        assert {(run["weights"], run["top1"]) for run in summary["averaged"]} <= _recorded_ends(checkpoint)
        return
    assert [line["epoch"] for line in log] == list(range(1, summary["epochs"] + 1))
    assert abs(log[-1]["test_top1"] - summary["top1"]) < 0.2  # bf16 during training, float32 at the end
    assert checkpoint.with_suffix(".training.png").read_bytes().startswith(b"\x89PNG")


def _recorded_ends(checkpoint: Path) -> set[tuple[str, float]]:
    """The final weights, and their accuracy, of the runs whose records lie beside those that are shipped."""
    records = [json.loads(path.read_text()) for path in checkpoint.parent.glob(f"{checkpoint.stem}.*-run.json")]
    outputs = [re.search(r"--output (\S+)", record["command"]) for record in records]
    return {
        (f"{output[1]}/{checkpoint.name}", record["top1"])
        for output, record in zip(outputs, records, strict=True)
        if output
    }


def test_the_table_of_the_runs_says_what_their_records_say() -> None:
    folder = datasets.SHIPPED / "cifar10"
    rows = re.findall(
        r"^\| `(\S+)` \| (\w+) \| [^|]* \| ?(\d*) \| [^|]* \| ([\d.]+) \| ([\d.]+) \|$",
        (folder / "README.md").read_text(),
        re.MULTILINE,
    )
    told = {(variant, run): (epochs, top1, loss) for variant, run, epochs, top1, loss in rows}
    recorded = {}
    for path in sorted(folder.glob("*.json")):
        variant, run, _ = path.name.split(".")
        record = json.loads(path.read_text())
        name = "average" if run == "training" else run.removesuffix("-run")
        recorded[variant, name] = (str(record.get("epochs", "")), f"{record['top1']:.2f}", f"{record['test_loss']:.3f}")
    assert told == recorded


def test_the_readme_states_the_accuracy_on_the_embedded_images() -> None:
    card_path = FOLDER / "cifar-310k.safetensors"
    with safe_open(card_path, "pt") as file:
        card = ModelCard.from_json(file.metadata()["simplenet"])
    network = model.create(card.variant, card.num_classes)
    network.load_state_dict(load_file(card_path))
    embedded = datasets.shipped("fashion-mnist", "evaluation")
    batches = evaluation.in_batches(*in_memory_dataset.to_tensors(embedded, card.preprocessing), 100)
    top1, *_ = evaluation.evaluate(network, batches, card.preprocessing, bf16=False)
    text = (FOLDER / "README.md").read_text()
    stated = re.search(r"([\d.]+) % top-1 on the 2,000", text)
    assert stated
    assert abs(top1 - float(stated[1])) <= 0.1
    assert f"{card.training['top1']:.2f} % top-1 on the 10,000" in text
    assert card.training["top1"] >= 94.0
