"""From a name to a pinned commit: asked once, remembered for good.

huggingface_hub knows where the hub is (HF_ENDPOINT), who we are (HF_TOKEN, HF_HOME), when not to ask at all (HF_HUB_OFFLINE),
and what its own cache holds; all of that is left to it. What a branch meant when it was first asked for is kept in the store,
so that a job that is resumed, or repeated when it is done, uses the same commit without a request.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol
from urllib.parse import quote

from ...errors import CannotCreate, NetworkError, NoPermission, UsageError
from .api import Api
from .local import cached_model
from .model import HubModel, Reference, is_commit, require_reference
from .retries import PATIENT, Retries, RetryPolicy
from .session import Session

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
    policy: RetryPolicy = PATIENT,
) -> HubModel:
    """The commit that ``ref`` names and its files.

    Parameters
    ----------
    ref : see ``model.parse_reference``
    records : where answers are kept; the second call for a reference makes no request
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
        model = _ask(ref, Session(token, endpoint, policy), policy)
    except NetworkError as e:
        if refresh or not (known := cached_model(ref)):
            raise
        warning = f"the hub was not queried ({e.message}); {known.commit[:12]} is what huggingface_hub's cache has"
        return replace(known, warnings=(warning, *known.warnings))
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
    known = HubModel.from_json(listing, ref.revision) if listing else None
    return known if known is not None and (known.repo, known.commit) == (ref.repo, commit) else None


def is_offline() -> bool:
    """Whether huggingface_hub was told not to use the network."""
    try:
        from huggingface_hub import constants
    except ValueError:  # not told, as it may hold a password
        raise UsageError(
            "huggingface_hub rejects the settings in the environment",
            "Check HF_ENDPOINT and the others that begin with HF_.",
        ) from None
    return bool(constants.HF_HUB_OFFLINE)


def _ask(ref: Reference, session: Session, policy: RetryPolicy) -> HubModel:
    # Nothing has arrived yet and no progress bar is shown: a misspelt host or a missing network is reported soon.
    api = Api(session, ref, policy, Retries(replace(policy, tries=min(policy.tries, _FIRST_TRIES))))
    commit = api.commit()
    return HubModel(ref.repo, ref.revision, commit, api.files(commit))
