"""Official weights: downloaded once into the user's cache and verified before they get their name.

SIMPLENET_CACHE names another cache folder, SIMPLENET_WEIGHTS_URL the folder of a mirror. A file whose SHA-256 does not
begin as its name says is kept aside as NAME.rejected; SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS=1 accepts it anyway.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from simplenet import fetch, files, http_get, variants
from simplenet.errors import DownloadError, UsageError
from simplenet.fetch import RemoteFile
from simplenet.http_get import GetError, Limits

BASE_URL = "https://github.com/Coderx7/SimpleNet_Pytorch/releases/download/v1.0.0/"
URL_VARIABLE = "SIMPLENET_WEIGHTS_URL"
CACHE_VARIABLE = "SIMPLENET_CACHE"
ACCEPT_VARIABLE = "SIMPLENET_ACCEPT_UNVERIFIED_WEIGHTS"
OTHER_CACHE = f"name another folder: {CACHE_VARIABLE}=DIR"


def cache_folder() -> Path:
    """$SIMPLENET_CACHE, or simplenet-edge in the platform's folder for caches. It need not exist.

    Raises:
        DownloadError: this user has no home folder.
    """
    if own := os.environ.get(CACHE_VARIABLE):
        return Path(files.home_expanded(own)).absolute()
    try:
        if sys.platform == "darwin":
            return Path.home() / "Library/Caches/simplenet-edge"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "simplenet-edge/Cache"
        xdg = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(xdg) if Path(xdg).is_absolute() else Path.home() / ".cache") / "simplenet-edge"
    except RuntimeError as error:
        raise DownloadError(f"there is no home folder to keep weights in; name one: {CACHE_VARIABLE}=DIR") from error


def fetch_official(variant: str, limits: Limits | None = None) -> Path:
    """The variant's official weights in the cache, downloaded if they are not there yet. Safe in several processes.

    Raises:
        UsageError: unknown variant, or one without official weights. DownloadError: no network, or the server or the
            disk failed; what arrived is kept for the next try. WeightsError: it is another file than it should be.
    """
    spec = variants.get(variant)
    name, expected = spec.official_weights_file, spec.official_sha256_prefix
    if name is None or expected is None:
        raise UsageError(f"{spec.name} has no official weights; type --weights auto, random, or a PATH")
    base = os.environ.get(URL_VARIABLE) or BASE_URL
    try:
        http_get.check_url(base)
    except GetError as error:
        raise UsageError(f"{URL_VARIABLE}: {error}; name the https address of a folder") from error
    remote = RemoteFile(
        url=base.rstrip("/") + "/" + name,
        sha256=expected,
        otherwise="type --weights random",
        elsewhere=OTHER_CACHE,
        accept_variable=ACCEPT_VARIABLE,
    )
    return fetch.fetch(remote, cache_folder() / name, limits)
