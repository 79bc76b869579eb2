"""Results files: what `compare.py --save` writes and `--baseline` reads again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demos.benchmark.workers import STAGES
from simplenet import files
from simplenet.errors import DataError, one_line

SCHEMA_VERSION = 2
_MAX_BYTES = 1 << 30


def save(results: dict[str, Any], path: Path) -> None:
    """Write the results, the value of `Comparison.to_json`, completely or not at all."""
    with files.replacing(path) as temporary:
        temporary.write_text(json.dumps(results), encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read a results file of this version.

    Raises:
        DataError: the file is missing, truncated, of another version, or not a results file.
    """
    remedy = "name a file that compare.py --save has written"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path} is over {_MAX_BYTES >> 30} GiB; {remedy}")
        results = json.loads(path.read_text(encoding="utf-8"))
        version = results["schema_version"]
    except OSError as error:
        raise DataError(f"cannot read {path}: {files.error_message(error)}; {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is truncated or no JSON ({one_line(error, 100)}); {remedy}") from error
    except (TypeError, KeyError, IndexError) as error:
        raise DataError(f"{path} is no results file; {remedy}") from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path} has the schema version {one_line(str(version), 20)}, this is {SCHEMA_VERSION}; measure again"
        )
    try:
        _check(results)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({one_line(repr(error), 100)}); measure again") from error
    return results  # type: ignore[no-any-return]


def latencies_ms(results: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Return the model latency of each measured row by its name, one list for each round."""
    return {name: row["timings"]["stages_ms"]["inference"] for name, row in _measured(results).items()}


def conditions(results: dict[str, Any]) -> dict[str, Any]:
    """Return what must be equal for two results to be comparable, by name."""
    machine = {name: results["machine"].get(name) for name in ("processor", "logical_cores", "governor", "system")}
    found: dict[str, Any] = {**machine, "threads": results["threads"], "frame": results["frame"]}
    for name, row in _measured(results).items():
        found[f"artifact of {name}"] = row["manifest"]["files"]
        found[f"device of {name}"] = row["description"]["device"]
    return found


def versions(results: dict[str, Any]) -> dict[str, str]:
    """Return the version of each package that ran a row."""
    described = [row["description"]["versions"] for row in _measured(results).values()]
    return {package: version for one in described for package, version in one.items()}


def _measured(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows with timings by name, without those of another interpreter."""
    rows = [row for row in results["rows"] if row["stages"] and row["python"] is None and row["peer"] is None]
    return {f"{row['backend']} {row['precision']}": row for row in rows}


def _check(results: dict[str, Any]) -> None:
    """Raise any of the errors that `read` catches unless the parts that are read later have their types."""
    conditions(results), versions(results)
    for name, rounds_ms in latencies_ms(results).items():
        if not rounds_ms or not all(samples and min(samples) > 0 for samples in rounds_ms):
            raise ValueError(f"{name} has no samples")
    if any(set(row["stages"]) != set(STAGES) for row in _measured(results).values()):
        raise ValueError("stages")
