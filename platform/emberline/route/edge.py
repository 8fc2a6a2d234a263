"""Who may ask, and over what: TLS, API keys and tokens, as filters of Envoy's.

Health is told to everybody; all else needs what was asked for. Files of TLS and of token keys are watched; a changed
file of API keys is taken by SIGHUP, which restarts Envoy without a gap.
"""

import re
import ssl
from pathlib import Path
from typing import Any

import orjson

from emberline.errors import InvalidFile, InvalidOption, InvalidSetting, MissingFile
from emberline.recipe import read_yaml
from emberline.route.clusters import TYPE
from emberline.route.settings import CLAIM_HEADER, Edge, Tls, Tokens

Json = dict[str, Any]
KEY_HEADER = "x-api-key"
KEY_FILTER, TOKEN_FILTER = "envoy.filters.http.api_key_auth", "envoy.filters.http.jwt_authn"
OPEN_PATHS = ("/livez", "/readyz", "/v2/health/live", "/v2/health/ready")
_SDS = "tls.json"
_PARTS = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""What each kind of a JSON Web Key cannot be without. Source: RFC 7518, section 6, and RFC 8037, section 2."""


def read_api_keys(path: Path) -> dict[str, str]:
    """Keys by client, from a YAML (or JSON) file `client: key`.

    Raises:
        MissingFile, InvalidFile, InvalidSetting: the file cannot be used; no key is told.
    """
    if not path.is_file():
        raise MissingFile(path, "the file of API keys")
    found = read_yaml(path)
    if not found:
        raise InvalidFile(path, "it names no client", hint="client: key, a line each")
    for client, key in found.items():
        if not isinstance(key, str) or not 16 <= len(key) <= 256:  # noqa: PLR2004 - said in words below
            raise InvalidSetting(path, str(client), "a key of another kind", "a text of 16 to 256 characters")
    if len(set(found.values())) < len(found):
        raise InvalidFile(path, "two clients have one key", hint="give each client a key of its own")
    return {str(client): str(key) for client, key in found.items()}


def read_tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """None without either.

    Raises:
        InvalidOption: one without the other.
    """
    if certificate is None or key is None:
        if certificate is not key:
            hint = "a certificate and its key are two files"
            raise InvalidOption("route", "--tls-cert and --tls-key", "one of them", "both or neither", hint=hint)
        return None
    return Tls(certificate, key)


def read_tokens(jwks: Path | None, issuer: str | None, audience: str | None, claims: tuple[str, ...]) -> Tokens | None:
    """None without a file of keys.

    Raises:
        InvalidOption: a file without an issuer, or the other way round.
        InvalidOption: it holds no keys.
        MissingFile: the file is not there.
    """
    if jwks is None:
        if issuer is not None or audience is not None:
            hint = "--jwt-issuer and --jwt-audience are about tokens, which are asked for with --jwks alone"
            raise InvalidOption("route", "--jwks", None, "the file of the keys that sign tokens", hint=hint)
        return None
    if issuer is None:
        raise InvalidOption("route", "--jwt-issuer", None, "who issues the tokens", hint="as in a token's `iss`")
    check_jwks(jwks)
    for claim in claims:
        if not re.fullmatch("[a-z][a-z0-9_]*", claim):
            hint = "such as sub, which is taken without it"
            raise InvalidOption("route", "--jwt-claim", claim, "lower-case letters, digits and _", hint=hint)
    return Tokens(jwks, issuer, audience, claims)


def check_jwks(path: Path) -> None:
    """Envoy would start without the keys, and know nobody.

    Raises:
        InvalidOption: it holds no keys.
        MissingFile: the file is not there.
    """
    if not path.is_file():
        raise MissingFile(path, "the file of the keys that sign tokens")
    try:
        keys = orjson.loads(path.read_bytes())["keys"]
        usable = bool(keys) and all(isinstance(key[part], str) for key in keys for part in _PARTS[key["kty"]])
    except (OSError, ValueError, KeyError, TypeError):
        usable = False
    if not usable:
        hint = 'JSON such as {"keys": [{"kty": "RSA", "n": …, "e": …}]}, as the issuer publishes it'
        raise InvalidOption("route", "--jwks", str(path), "a file of JSON Web Keys", hint=hint)


def auth_filters(edge: Edge) -> list[Json]:
    """Filters in the order in which they ask."""
    filters = []
    if edge.api_keys is not None:
        filters.append(_key_filter(edge.api_keys))
    if edge.tokens is not None:
        filters.append(_token_filter(edge.tokens))
    return filters


def open_to_all(edge: Edge) -> Json:
    """Per-route configuration of what needs no key; tokens leave OPEN_PATHS alone by themselves."""
    if edge.api_keys is None:
        return {}
    return {KEY_FILTER: {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}}


def tls_socket(tls: Tls | None, folder: Path) -> Json:
    """The transport socket of a filter chain; nothing without TLS."""
    if tls is None:
        return {}
    kind = f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    watched = {"path_config_source": {"path": str(folder / _SDS), "watched_directory": {"path": str(folder)}}}
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": kind,
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificate_sds_secret_configs": [
                        {"name": "certificate", "sds_config": {"resource_api_version": "V3", **watched}}
                    ],
                },
            },
        }
    }


def write_tls(tls: Tls, folder: Path) -> None:
    """Writes what Envoy watches; it names the files, and Envoy looks at their folder as well.

    Raises:
        MissingFile: the certificate or its key is not there.
        InvalidOption: they are no pair.
    """
    for path in (tls.certificate, tls.key):
        if not path.is_file():
            raise MissingFile(path, "the certificate" if path == tls.certificate else "the certificate's key")
    _check_pair(tls)
    secret = {
        "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.Secret",
        "name": "certificate",
        "tls_certificate": {
            "certificate_chain": {"filename": str(tls.certificate.absolute())},
            "private_key": {"filename": str(tls.key.absolute())},
            "watched_directory": {"path": str(tls.certificate.absolute().parent)},
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _SDS).write_bytes(orjson.dumps({"resources": [secret]}))


def _check_pair(tls: Tls) -> None:
    """An Envoy that starts with files it cannot use answers nobody, and a successor would still take the port over."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key, password="")
    except OSError as error:  # one of SSL is one; the others are of files that cannot be read
        reason = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or "no PEM"
        got = f"{tls.certificate}, {tls.key}"
        required = f"a certificate in PEM and its own key, without a password ({reason}),"
        hint = "both files are replaced by a renewal: try again when it is through"
        raise InvalidOption("route", "--tls-cert and --tls-key", got, required, hint=hint) from error


def _key_filter(keys: Any) -> Json:
    return {
        "name": KEY_FILTER,
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.api_key_auth.v3.ApiKeyAuth",
            "credentials": [{"client": client, "key": key} for client, key in sorted(keys.items())],
            "key_sources": [{"header": KEY_HEADER}],
            # no model needs to know it
            "forwarding": {"hide_credentials": True},
        },
    }


def _token_filter(tokens: Tokens) -> Json:
    provider: Json = {
        "issuer": tokens.issuer,
        "local_jwks": {
            "filename": str(tokens.jwks.absolute()),
            "watched_directory": {"path": str(tokens.jwks.absolute().parent)},
        },
        "claim_to_headers": [{"header_name": CLAIM_HEADER + claim, "claim_name": claim} for claim in tokens.claims],
        "clear_route_cache": True,  # the claim decides the route
    }
    if tokens.audience is not None:
        provider["audiences"] = [tokens.audience]
    return {
        "name": TOKEN_FILTER,
        "typed_config": {
            "@type": f"{TYPE}.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"clients": provider},
            "rules": [
                *({"match": {"path": path}} for path in OPEN_PATHS),
                {"match": {"prefix": "/"}, "requires": {"provider_name": "clients"}},
            ],
        },
    }
