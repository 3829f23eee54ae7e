"""From a name to a pinned commit: asked once, remembered for good.

huggingface_hub knows where the hub is (HF_ENDPOINT), who we are (HF_TOKEN, HF_HOME), when not to ask at all (HF_HUB_OFFLINE),
and what its own cache holds; all of that is left to it. What a branch meant when it was first asked for is kept in the store,
so that a job that is resumed, or repeated when it is done, uses the same commit and asks nobody.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from ...errors import BadInput, CannotCreate, NetworkError, NoPermission, StreamconvError
from .errors import refusal, unreachable
from .local import cached_model
from .model import HubFile, HubModel, Reference, hub_file, is_commit, require_reference
from .patience import PATIENT, Patience, Tries, asked_pause

if TYPE_CHECKING:
    from huggingface_hub import HfApi

#: worth another try: nothing wrong with the request
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
#: failures in a row before a name counts as out of reach
_FIRST_TRIES = 5


class Records(Protocol):
    """Where small facts are kept durably; ``engine.transfer.store.Store`` is one."""

    def load(self, *names: str) -> dict[str, Any] | None:
        """The record under ``names``, None when there is none."""

    def save(self, record: Mapping[str, Any], *names: str) -> None:
        """Keep ``record`` under ``names``."""


def resolve(
    ref: str | Reference,
    records: Records,
    *,
    offline: bool = False,
    refresh: bool = False,
    token: str | None = None,
    endpoint: str | None = None,
    patience: Patience = PATIENT,
) -> HubModel:
    """The commit that ``ref`` names and its files.

    Parameters
    ----------
    ref : see ``model.parse_reference``
    records : where answers are kept; the second call for a reference asks nobody
    offline : never ask the network, as with HF_HUB_OFFLINE=1
    refresh : ask the hub where the branch is now, whatever is remembered
    token, endpoint : default to what huggingface_hub finds

    Raises
    ------
    NetworkError : the hub does not answer, and neither the store nor the hub's own cache knows the model
    InputMissing : there is no such model or revision
    NoPermission : it is private or gated
    """
    ref = require_reference(ref) if isinstance(ref, str) else ref
    if not refresh and (known := _remembered(ref, records)):
        return known
    if offline or is_offline():
        if (known := cached_model(ref)) or (known := _remembered(ref, records)):
            return known
        raise NetworkError(
            f"{ref} has not been fetched, and offline mode is on",
            "Allow the network: without --offline, HF_HUB_OFFLINE=0.",
        )
    try:
        model = _ask(ref, token, endpoint or default_endpoint(), patience)
    except NetworkError as e:
        if refresh or not (known := cached_model(ref)):
            raise
        warning = f"the hub was not asked ({e.message}); {known.commit[:12]} is what huggingface_hub's cache has"
        return HubModel(known.repo, known.revision, known.commit, known.files, known.folder, (warning,))
    with suppress(NoPermission, CannotCreate):  # a cache that cannot be written: asked again next time
        records.save(model.to_json(), ref.folder, "listings", f"{model.commit}.json")
        if ref.revision != model.commit:
            record = {"commit": model.commit, "asked": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
            records.save(record, ref.folder, "refs", _ref_name(ref))
    return model


def _ref_name(ref: Reference) -> str:
    return quote(ref.revision, safe="") + ".json"


def _remembered(ref: Reference, records: Records) -> HubModel | None:
    commit = ref.revision if is_commit(ref.revision) else None
    if commit is None:
        commit = (records.load(ref.folder, "refs", _ref_name(ref)) or {}).get("commit")
    if not isinstance(commit, str) or not is_commit(commit):
        return None
    listing = records.load(ref.folder, "listings", f"{commit}.json")
    return HubModel.from_json(listing, ref.revision) if listing else None


def is_offline() -> bool:
    """Whether huggingface_hub was told not to use the network."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def default_endpoint() -> str:
    """Where the hub is: HF_ENDPOINT or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def headers_for(token: str | None) -> dict[str, str]:
    """User agent and, where there is a token, authorization, as huggingface_hub sends them."""
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined,unused-ignore]

    return dict(build_hf_headers(token=_usable(token), library_name="streamconv"))


def _usable(token: str | None) -> str | bool | None:
    """``token``; False, which means none, where huggingface_hub would stumble over a home that is no folder."""
    from huggingface_hub import get_token

    try:
        get_token()
    except OSError:
        return token or False
    return token


def _ask(ref: Reference, token: str | None, endpoint: str, patience: Patience) -> HubModel:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=endpoint, token=_usable(token), library_name="streamconv")
    has_token = "authorization" in headers_for(token)
    # Nothing has come yet and nobody sees a bar: a misspelt host or a missing network is told soon.
    tries = Tries(replace(patience, tries=min(patience.tries, _FIRST_TRIES)))
    while True:
        try:
            commit = api.model_info(ref.repo, revision=ref.revision, timeout=patience.read_s).sha
            if not commit or not is_commit(commit):
                raise BadInput(f"{endpoint} gives {ref} the commit {commit!r}, which is none")
            return HubModel(ref.repo, ref.revision, commit, _list(api, ref.repo, commit))
        except StreamconvError:
            raise
        except Exception as e:
            _judge(e, ref, endpoint, has_token, tries)


def _list(api: HfApi, repo: str, commit: str) -> dict[str, HubFile]:
    from huggingface_hub.hf_api import RepoFile

    found = {}
    for entry in api.list_repo_tree(repo, recursive=True, revision=commit):
        if isinstance(entry, RepoFile):
            if entry.lfs is not None:
                file = hub_file(repo, commit, entry.path, entry.lfs.size, "sha256", entry.lfs.sha256)
            else:
                file = hub_file(repo, commit, entry.path, entry.size, "git-sha1", entry.blob_id)
            found[file.path] = file
    return found


def _judge(e: Exception, ref: Reference, endpoint: str, has_token: bool, tries: Tries) -> None:
    """Pause before another try, or raise what is final.

    huggingface_hub uses one HTTP library or the other, depending on its version; their errors have no common base, so they
    are told apart by what they carry.
    """
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    if isinstance(e, OfflineModeIsEnabled):
        raise NetworkError(f"{ref} has not been fetched, and offline mode is on", "Set HF_HUB_OFFLINE=0.") from None
    if isinstance(e, HFValidationError):
        raise BadInput(f"{ref}: {e}") from None
    response = getattr(e, "response", None)
    status = getattr(response, "status_code", 0)
    if response is not None and status not in TRANSIENT:
        raise refusal(status, response.headers, str(ref), endpoint, has_token) from None
    if response is not None:
        tries.failed(f"{ref}: {endpoint} answered {status}", asked_pause(response.headers))
    elif isinstance(e, OSError) or type(e).__module__.partition(".")[0] in ("httpx", "httpx2", "requests"):
        tries.failed(unreachable(str(ref), endpoint, e).message)
    else:
        raise BadInput(f"{ref}: {endpoint} answered something that cannot be understood: {e!r}") from None
