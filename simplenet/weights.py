"""Find and load the weights of a variant: `--weights auto | pretrained | random | NAME | PATH`.

- pretrained: the official ImageNet file, downloaded once to the user's cache (simplenet/download.py).
- NAME: weights that ship with the project, simplenet/shipped/NAME/VARIANT.safetensors.
- PATH: a checkpoint of PyTorch or .safetensors, with any number of classes (simplenet/checkpoints.py).
- random: a random initialization, the same for the same seed; only for measuring latency.
- auto: pretrained if cached or downloadable, else the first NAME that has this variant (names with a shipped dataset
  first, then in alphabetical order), else random with an UntrainedWarning.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from simplenet import checkpoints, datasets, download, files, labels, variants
from simplenet import model as models
from simplenet.errors import (
    AssumedCardWarning,
    DownloadError,
    SimpleNetWarning,
    UntrainedWarning,
    UsageError,
    WeightsError,
    check_choice,
)
from simplenet.labels import KnownDataset
from simplenet.manifest import WeightsOrigin
from simplenet.model import SimpleNet
from simplenet.model_card import NO_OVERRIDES, CardOverrides, ModelCard
from simplenet.variants import Variant

KEYWORDS = ("auto", "pretrained", "random")
_USUAL_DATASETS = {1000: ("imagenet",), 10: ("cifar10", "cifar100")}
"""What checkpoints are usually trained on, by the `num_classes` of their variant."""
_VALUES = {"mean": "R G B", "std": "R G B", "labels": "FILE"}
"""What the flags of preprocessing and labels take, if not a number."""


@dataclass(frozen=True)
class LoadedWeights:
    """A network in eval mode, with the card and the origin of its weights.

    `origin.name` can be part of a folder's name. `preprocessing_source` is that of the manifest. `assumed` has the keys
    of `ModelCard.facts` whose values neither a card nor a flag gives.
    """

    model: SimpleNet
    card: ModelCard
    origin: WeightsOrigin
    preprocessing_source: str = "model card"
    assumed: tuple[str, ...] = ()


def load(
    variant: str,
    weights: str | Path = "auto",
    *,
    seed: int = 0,
    overrides: CardOverrides = NO_OVERRIDES,
    key: str | None = None,
) -> LoadedWeights:
    """Find, check and load weights.

    A checkpoint without a card gets the usual preprocessing and labels of its variant, with an AssumedCardWarning.

    Args:
        variant: name or reference name.
        weights: auto, pretrained, random, NAME or PATH (see above); keywords and NAMEs take precedence over files.
        seed: of random weights.
        overrides: preprocessing and labels in place of those of the card; other values than its own give a warning.
        key: which weights of the checkpoint at PATH, such as 'model_ema'; None: the averaged ones, else the only ones.

    Raises:
        UsageError: unknown variant, unknown name, 'pretrained' for a variant without official weights, a key without
            a PATH, or overrides that do not fit the weights.
        WeightsError: a checkpoint that is missing, damaged, unsafe, or of another network.
        DownloadError: 'pretrained' without a network.

    Example:
        weights.load("cifar-310k", "fashion-mnist").card.labels
    """
    spec, weights = variants.get(variant), str(weights)
    overrides.check_weights(weights)
    if key is not None and weights in (*KEYWORDS, *datasets.shipped_weights()):
        raise UsageError(f"--weights-key is for a checkpoint; type --weights PATH, not {weights}, or leave it out")
    if weights == "auto":
        return _auto(spec, seed)
    if weights == "pretrained":
        return _read(spec, download.fetch_official(spec.name), "pretrained", "pretrained", overrides)
    if weights == "random":
        return _random(spec, seed, overrides)
    if weights in datasets.shipped_weights():
        return _shipped(spec, weights, overrides)
    return _checkpoint(spec, weights, overrides, key)


def _auto(spec: Variant, seed: int) -> LoadedWeights:
    reason = f"no official weights exist for {spec.name}"
    if spec.official_weights_file:
        try:
            return load(spec.name, "pretrained")
        except DownloadError as error:
            reason = str(error)
    if names := datasets.shipped_weights(spec.name):
        return load(spec.name, names[0])
    warnings.warn(
        f"{spec.name} is UNTRAINED, with RANDOM weights: latencies are valid, predictions are not ({reason})",
        UntrainedWarning,
        stacklevel=3,
    )
    return load(spec.name, "random", seed=seed)


def _random(spec: Variant, seed: int, overrides: CardOverrides) -> LoadedWeights:
    network = models.create(spec.name, seed=seed)
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    origin = WeightsOrigin("random", "random", digest.hexdigest())
    card = overrides.apply(_default_card(spec, spec.num_classes, "imagenet"))
    spec.check_side(card.preprocessing.input_size, "choose a larger --size")
    return LoadedWeights(network, card, origin, overrides.source or "random weights")


def _shipped(spec: Variant, name: str, overrides: CardOverrides) -> LoadedWeights:
    path = datasets.SHIPPED / name / f"{spec.name}.safetensors"
    if not path.is_file():
        fitting = ", ".join(other for other in variants.VARIANTS if name in datasets.shipped_weights(other))
        raise UsageError(f"the weights {name!r} are not for {spec.name}; type --variant with one of: {fitting}")
    return _read(spec, path, "shipped", name, overrides)


def _checkpoint(spec: Variant, weights: str, overrides: CardOverrides, key: str | None) -> LoadedWeights:
    path = Path(files.expand_home(weights))
    is_path = bool(path.suffix) or path.name != weights
    if not weights or not (is_path or files.is_file(path) or files.is_folder(path)):
        choices = (*KEYWORDS, *datasets.shipped_weights())
        check_choice("weights", weights, choices, hint=", or the PATH of a checkpoint")
    return _read(spec, path, "checkpoint", None, overrides, key)


def _read(
    spec: Variant, path: Path, source: str, name: str | None, overrides: CardOverrides, key: str | None = None
) -> LoadedWeights:
    """Load a file; `source` and `name` are for its `WeightsOrigin`. None: named after the file."""
    candidates, card, sha256 = checkpoints.read(path)
    if source == "checkpoint":
        _check_official(spec, path, sha256)
    if card:
        _check_variant(card, spec, path)
    network = checkpoints.build_model(candidates, spec.name, path, key)
    num_classes = network.classifier.out_features
    if card and card.num_classes != num_classes:
        raise WeightsError(
            f"{path}: its card says {card.num_classes} classes, its weights {num_classes}; save it again"
        )
    is_official = source == "pretrained" or sha256[:8] == spec.official_sha256_prefix
    stated = "model card" if card else f"official checkpoint of {spec.name}" if is_official else ""
    card = card or _default_card(spec, num_classes, *_USUAL_DATASETS[spec.num_classes])
    used = overrides.apply(card)
    try:
        hint = "choose a larger --size" if overrides.flags else "train it on larger ones"
        spec.check_side(used.preprocessing.input_size, hint)
    except UsageError as error:
        if overrides.flags:
            raise
        raise WeightsError(f"{path} was trained on images that are too small: {error}") from error
    origin = WeightsOrigin(source, name or _slug(spec, f"{path.stem} {key or ''}", sha256), sha256, key)
    if not stated:
        return LoadedWeights(network, used, origin, *_assumptions(path, used, overrides))
    _warn_of_differences(path, stated, card, used, overrides)
    return LoadedWeights(network, used, origin, overrides.source or stated)


def _check_variant(card: ModelCard, spec: Variant, path: Path) -> None:
    """Raise WeightsError if a card is of another variant than `spec`."""
    try:
        own = variants.get(card.variant)
    except UsageError as error:
        raise WeightsError(f"{path} holds weights of an {error}") from error
    if own != spec:
        raise WeightsError(f"{path} holds weights of {own.name}, not of {spec.name}; type --variant {own.name}")


def _warn_of_differences(path: Path, stated: str, card: ModelCard, used: ModelCard, overrides: CardOverrides) -> None:
    """Warn if flags replace values of the card by others; `stated` is where the card's values come from."""
    before, after = card.facts(), used.facts()
    differing = {name for name in after if before[name] != after[name]}
    if card.labels != used.labels:  # the texts name only the first and the last
        differing.add("labels")
    if differing:
        changes = ", ".join(f"{name} {before[name]} by {after[name]}" for name in after if name in differing)
        text = f"{path}: {overrides.flags} replaces values of the {stated}: {changes}"
        warnings.warn(text, SimpleNetWarning, stacklevel=5)


def _assumptions(path: Path, card: ModelCard, overrides: CardOverrides) -> tuple[str, tuple[str, ...]]:
    """Warn about the values that are assumed without a card; return `preprocessing_source` and `assumed`."""
    facts = card.facts()
    assumed = tuple(name for name in facts if name not in overrides.replaced)
    if not assumed:
        return overrides.source, ()
    values = ", ".join(f"{name} {facts[name]}" for name in assumed)
    flags = " ".join(f"--{name} {_VALUES.get(name, 'N')}" for name in assumed)
    sets = labels.KNOWN_DATASETS
    same_number = ", ".join(name for name in sets if len(labels.known_dataset(name).labels) == card.num_classes)
    warnings.warn(
        f"{path} has no model card; assumed for {card.variant}: {values}"
        + (f" (datasets with {card.num_classes} classes: {same_number})" if same_number else "")
        + f"; if that is wrong, type --dataset NAME, or {flags}",
        AssumedCardWarning,
        stacklevel=5,
    )
    if not overrides.flags:
        return f"assumed for {card.variant}", assumed
    guessed = ", ".join(name for name in assumed if name != "labels" or card.labels)
    return overrides.source + (f"; {guessed} assumed for {card.variant}" if guessed else ""), assumed


def _check_official(spec: Variant, path: Path, sha256: str) -> None:
    """Refuse official files of another network, by their name or hash: their tensors have the same shapes.

    Raises:
        WeightsError: the file is of the other stride mode, or of the first release.
    """
    for other in variants.VARIANTS.values():
        prefix = other.official_sha256_prefix
        if prefix is not None and other != spec and (prefix in path.name or sha256.startswith(prefix)):
            raise WeightsError(f"{path} holds weights of {other.name}, not of {spec.name}; type --variant {other.name}")
    named = re.search(r"sim(?:plenet)?v1_[\w.]+-([0-9a-f]{8})\b", path.name)
    if sha256[:8] in variants.FIRST_RELEASE_HASHES or (named and named[1] != spec.official_sha256_prefix):
        raise WeightsError(
            f"{path} has the name or hash of an official file of the first release, whose padded 1x1 convolutions "
            "are not supported; type --weights pretrained, or rename the file if you trained it"
        )


def _default_card(spec: Variant, num_classes: int, *names: str) -> ModelCard:
    """Return a card for weights without one, of the first dataset in `names` with `num_classes`, if any."""
    fitting = (known for known in map(labels.known_dataset, names) if len(known.labels) == num_classes)
    known = next(fitting, KnownDataset((), spec.preprocessing))
    return ModelCard(spec.name, num_classes, known.preprocessing, known.labels, known.class_ids)


def _slug(spec: Variant, stem: str, sha256: str) -> str:
    """Return a checkpoint's name for folders: its file's name, simplified, and 8 digits of its SHA-256."""
    plain = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-")
    slug = f"{plain}-{sha256[:8]}" if plain else f"checkpoint-{sha256[:8]}"
    # Weights 'm1-x' of 1.5m must not get the folder of weights 'x' of 1.5m-m1.
    if any(f"{spec.name}-{slug}".startswith(f"{name}-") and len(name) > len(spec.name) for name in variants.VARIANTS):
        return f"weights-{slug}"
    return slug
