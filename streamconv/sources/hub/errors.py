"""The user's error for what the hub answered."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import InputMissing, NetworkError, NoPermission, StreamconvError

_LOG_IN = "Set HF_TOKEN, or log in once with `hf auth login`."


def one_line(text: str, limit: int) -> str:
    """``text`` of an answer on one line of at most about ``limit`` characters, control characters escaped.

    >>> one_line("no\\r\\n  access\\x1b[2J", 300), one_line("x" * 50, 10)
    ('no access\\\\x1b[2J', 'xxxxxxxxxx…')
    """
    words = " ".join(text[: 4 * limit].split())
    plain = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words)
    return plain if len(plain) <= limit else f"{plain[:limit]}…"


def refusal(status: int, headers: Mapping[str, str], what: str, endpoint: str, has_token: bool) -> StreamconvError:
    """The error for a final answer ``status`` of the hub about ``what`` (``org/model`` and perhaps a file)."""
    code = headers.get("X-Error-Code", "")
    said = one_line(headers.get("X-Error-Message", ""), 300)
    reason = f" ({said})" if said else ""
    repo = "/".join(what.split("/")[:2]).split("@")[0]
    if code == "GatedRepo":
        return NoPermission(
            f"{what} is gated: {'your token has no access to it' if has_token else 'its owner has to grant access'}{reason}",
            f"Accept its licence at {endpoint}/{repo}. {'' if has_token else f'Then: {_LOG_IN}'}".rstrip(),
        )
    if code == "RevisionNotFound":
        return InputMissing(f"{what}: the hub has no such revision{reason}", f"See {endpoint}/{repo}/commits/main")
    if code == "EntryNotFound":
        return InputMissing(f"{what}: the hub has no such file{reason}", f"See {endpoint}/{repo}/tree/main")
    if status == 404 or (code == "RepoNotFound" and has_token):
        return InputMissing(
            f"{what} is not on {endpoint}, or is private{reason}",
            "Check the spelling." if has_token else f"Check the spelling. If it is private: {_LOG_IN}",
        )
    if status in (401, 403):
        token = "the token was not accepted" if has_token else "no token was sent"
        return NoPermission(
            f"{what}: {endpoint} refuses access, {token}{reason}",
            "Check that the token may read this model." if has_token else f"It is private, gated or absent. {_LOG_IN}",
        )
    return NetworkError(f"{what}: {endpoint} answered {status}{reason}", "Run the same command again to resume.")


def refusal_elsewhere(
    status: int, headers: Mapping[str, str], what: str, endpoint: str, host: str, has_token: bool
) -> StreamconvError:
    """The same for an answer of ``host``, to which ``endpoint`` sent on: it was not given the token, which is for the endpoint."""
    said = one_line(headers.get("X-Error-Message", ""), 300)
    code = headers.get("X-Error-Code", "")
    sent = f"{what}: {host}, to which {endpoint} redirects,"
    reason = f" ({said})" if said else ""
    if status == 404 or (code in ("RevisionNotFound", "EntryNotFound", "RepoNotFound") and has_token):
        return InputMissing(
            f"{sent} does not have it{reason}", "Check the spelling; a private model gives the same answer."
        )
    if status in (401, 403):
        token = f"it was not given the token, which is for {endpoint}" if has_token else "there is no token"
        log_in = "" if has_token else f" {_LOG_IN}"
        return NoPermission(
            f"{sent} refuses access: {token}{reason}",
            f"If the model is gated, request access there. Set HF_ENDPOINT to {host}'s address, so that it gets the token.{log_in}",
        )
    return NetworkError(f"{sent} answered {status}{reason}", "Run the same command again to resume.")


def unreachable(what: str, endpoint: str, error: BaseException) -> NetworkError:
    """The error for no answer at all."""
    text = str(error) or type(error).__name__
    return NetworkError(
        f"{what}: {endpoint} cannot be reached: {text}",
        "Check the network (HF_ENDPOINT, HTTPS_PROXY), then run the same command again.",
    )
