"""Single requests to the hub and to where it sends us: proxies, certificates, and who gets the token.

The token, or the user and password of HF_ENDPOINT, go to the scheme, host and port of the endpoint and to no other host. They are
taken out of its address at once, so that no message can have them.
"""

from __future__ import annotations

import platform
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from ...errors import StreamconvError, UsageError
from .errors import refusal, refusal_elsewhere
from .retries import RetryPolicy

REDIRECTS = (301, 302, 303, 307, 308)
#: the hub needs two; more than these go in a circle
MAX_REDIRECTS = 10
_USER_AGENT = f"streamconv; python/{platform.python_version()}"
_PORTS = {"http": 80, "https": 443}


class Session:
    """Sends requests; may be used from several threads.

    Parameters
    ----------
    token, endpoint : default to what huggingface_hub finds
    connections : as many are kept open

    Attributes
    ----------
    endpoint : where the hub is, without user and password
    """

    def __init__(self, token: str | None, endpoint: str | None, policy: RetryPolicy, connections: int = 1) -> None:
        try:
            self.endpoint, self._login = _split_login((endpoint or _endpoint()).rstrip("/"))
            self._origin = _origin(self.endpoint)
        except ValueError:  # not told, as it may hold a password
            raise UsageError("HF_ENDPOINT is not a URL", "Write it as https://huggingface.co.") from None
        self._token, self._policy, self._connections = token, policy, connections
        self._is_known = False
        self._headers: dict[str, str] | None = None
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._guard = threading.Lock()

    @property
    def has_token(self) -> bool:
        """Whether there is a token for the hub."""
        self._hub_headers()
        return self._is_known

    def is_hub(self, url: str) -> bool:
        """Whether ``url`` is on the endpoint's host, for which the token is meant."""
        return _origin(url) == self._origin

    def refusal(self, url: str, status: int, headers: Mapping[str, str], what: str) -> StreamconvError:
        """The error for a final answer ``status`` of ``url`` about ``what``: of the hub, or of a host that it sent us on to."""
        if self.is_hub(url):
            return refusal(status, headers, what, self.endpoint, self.has_token)
        return refusal_elsewhere(status, headers, what, self.endpoint, host_of(url), self.has_token)

    def send(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The beginning of an answer: status and headers. Redirections are not followed, nothing is decoded.

        Raises
        ------
        urllib3.exceptions.HTTPError, OSError : there is none
        """
        public = {k: v for k, v in self._hub_headers().items() if k != "authorization"}
        own = self._hub_headers() if self.is_hub(url) else public
        return self._pool(url).urlopen(
            "GET",
            url,
            headers={**own, "accept-encoding": "identity", **headers},
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=self._policy.connect_s, read=self._policy.read_s),
        )

    def _hub_headers(self) -> dict[str, str]:
        """Header fields for the hub, with names in small letters."""
        if self._headers is None:
            token, headers = _token(self._token), {"user-agent": _USER_AGENT}
            self._is_known = bool(token)
            if token:
                headers["authorization"] = f"Bearer {token}"
            if self._login:  # of a mirror that wants to know who asks, as huggingface_hub has it
                headers["authorization"] = urllib3.make_headers(basic_auth=self._login)["authorization"]
            self._headers = headers
        return self._headers

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Connections to the host of ``url``, through the proxy that the environment names for it."""
        parts = urlsplit(url)
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
        if proxy and proxy_bypass(parts.hostname or ""):
            proxy = ""
        with self._guard:
            if proxy not in self._pools:
                settings = {"maxsize": self._connections, "ssl_context": _trust()}
                if proxy:
                    bare, login = _split_login(proxy if "//" in proxy else f"http://{proxy}")
                    self._pools[proxy] = urllib3.ProxyManager(
                        bare,
                        proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None,
                        **settings,  # type: ignore[arg-type]
                    )
                else:
                    self._pools[proxy] = urllib3.PoolManager(**settings)  # type: ignore[arg-type]
            return self._pools[proxy]


def followed(url: str, target: str) -> str:
    """The address that ``target`` means in an answer of ``url``, without user and password; "" where it is not http or https."""
    try:
        address = _split_login(urljoin(url, target))[0]
        scheme, host, _ = _origin(address)
    except ValueError:
        return ""
    return address if scheme in _PORTS and host else ""


def is_same_origin(one: str, other: str) -> bool:
    """Whether two addresses are of the same scheme, host and port."""
    return _origin(one) == _origin(other)


def host_of(url: str) -> str:
    """Host and port, for messages."""
    return urlsplit(url).netloc.rpartition("@")[2]


def _split_login(url: str) -> tuple[str, str]:
    """``url`` without its user and password, and these as ``user:password``."""
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    return parts._replace(netloc=host).geturl(), f"{unquote(user)}:{unquote(password)}" if login else ""


def _origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what a token is meant for. ValueError where there is no such port."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


def _trust() -> ssl.SSLContext:
    """The system's certificates, those of SSL_CERT_FILE and SSL_CERT_DIR, and, where it is installed, certifi's."""
    context = ssl.create_default_context()
    with suppress(ImportError, OSError):  # slim images have no certificates of their own
        import certifi

        context.load_verify_locations(certifi.where())
    return context


def _endpoint() -> str:
    """Where the hub is: HF_ENDPOINT or the public one."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def _token(token: str | None) -> str:
    """``token``, else the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`; "" for none.

    Its own function for header fields is not used: it first asks the hub for a list of programs, and nothing bounds the answer.
    """
    from huggingface_hub import constants, get_token

    if token is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        with suppress(OSError, UnicodeDecodeError):  # of a home that is no folder, or a file that is no text
            token = get_token()
    if token and not (token.isascii() and token.isprintable()):  # not told, as it is a secret
        raise UsageError("the token for the hub has characters that no token has", "Check HF_TOKEN, or log in again.")
    return token or ""
