"""Where a request's unit is: a header, a cookie, or a claim of its token; what Envoy matches, hashes and logs of it.

Envoy hashes what was sent, and logs what is named here. Both must be one text, or a client could have its unit seen in
both variants, which makes an experiment invalid. So of two cookies of one name the first counts for both, and none has
quotes, which the log would lack; and of a header that was sent twice the listener keeps the first alone.
"""

from dataclasses import dataclass
from typing import Any

from emberline.assignment import MAX_UNIT_BYTES
from emberline.experiment import Unit
from emberline.route.clusters import TYPE
from emberline.route.settings import CLAIM_HEADER

Json = dict[str, Any]

# Envoy matches bytes, not characters; so both the length and this are of bytes (surrogates are no UTF-8)
_UTF8 = (
    r"[\x01-\x7f]"
    r"|[\xc2-\xdf][\x80-\xbf]"
    r"|\xe0[\xa0-\xbf][\x80-\xbf]"
    r"|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    r"|\xed[\x80-\x9f][\x80-\xbf]"
    r"|\xf0[\x90-\xbf][\x80-\xbf]{2}"
    r"|[\xf1-\xf3][\x80-\xbf]{3}"
    r"|\xf4[\x80-\x8f][\x80-\xbf]{2}"
)
_LENGTH = f".{{1,{MAX_UNIT_BYTES}}}"
_REQUEST_ID = "x-request-id"
COOKIE_FILTER = "envoy.filters.http.header_to_metadata"
COOKIE_TYPE = f"{TYPE}.extensions.filters.http.header_to_metadata.v3.Config"


@dataclass(frozen=True)
class Source:
    """One way to know a request's unit.

    Attributes:
        header: that Envoy matches and hashes.
        present, usable: what a route matches: that a unit is there, and that it can be taken.
        pattern: regular expression whose first group is the unit.
        logged: what stands for the unit in the log.
        field: what an error names.
        cookie: to be set with the unit, where a request had none.
    """

    header: str
    present: tuple[Json, ...]
    usable: tuple[Json, ...]
    logged: str
    field: str
    pattern: str = "^(.*)$"
    cookie: str | None = None

    @property
    def extraction(self) -> Json:
        """Per-route configuration that puts the unit where `logged` finds it; empty where it is there already."""
        if not self.logged.startswith("%DYNAMIC_METADATA"):
            return {}
        found = {"metadata_namespace": "emberline", "key": "unit"}
        rules = [{"cookie": self.field.removeprefix("cookie "), "on_header_present": found}]
        return {COOKIE_FILTER: {"@type": COOKIE_TYPE, "request_rules": rules}}

    def hash_policy(self, salt: str) -> Json:
        """The unit, salted."""
        rewrite = {"pattern": {"regex": self.pattern}, "substitution": _escaped(salt) + r":\1"}
        return {"header": {"header_name": self.header, "regex_rewrite": rewrite}}


def sources_of(unit: Unit) -> tuple[Source, ...]:
    """The ways to know an experiment's units, the first that a request fits counts."""
    if unit.cookie is not None:
        return _by_cookie(unit.cookie), _minted(unit.cookie)
    if unit.jwt_claim is not None:
        return (_by_header(CLAIM_HEADER + unit.jwt_claim, f"claim {unit.jwt_claim}"),)
    return (_by_header(unit.header, unit.header),)


def header_of(unit: Unit) -> str | None:
    """The header that holds the unit and nothing else; None for a cookie."""
    return sources_of(unit)[0].header if unit.cookie is None else None


def _by_header(header: str, field: str) -> Source:
    usable = (_matches(header, _LENGTH), _matches(header, f"({_UTF8})+"))
    return Source(header, (_is_there(header),), usable, f"%REQ({header})%", field)


def _by_cookie(name: str) -> Source:
    # lazily, so that the first of two counts; Envoy joins several cookie headers to one before
    before, after = r"(?:.*?;\s*)??", r"(?:;.*)?"
    value = r"[\x21\x23-\x3a\x3c-\x7e]"  # no space, quote or semicolon
    return Source(
        "cookie",
        (_matches("cookie", f"{before}{name}=.*"),),
        (_matches("cookie", f"{before}{name}={value}{{1,{MAX_UNIT_BYTES}}}{after}"),),
        "%DYNAMIC_METADATA(emberline:unit)%",
        f"cookie {name}",
        pattern=f"^{before}{name}=([^;]*){after}$",
    )


def _minted(name: str) -> Source:
    """A request without the cookie: its own id becomes the unit, and the cookie that it is sent back with."""
    there = (_is_there(_REQUEST_ID),)
    return Source(_REQUEST_ID, there, there, f"%REQ({_REQUEST_ID})%", f"cookie {name}", cookie=name)


def _is_there(header: str) -> Json:
    return {"name": header, "present_match": True}


def _matches(header: str, regex: str) -> Json:
    return {"name": header, "string_match": {"safe_regex": {"regex": regex}}}


def _escaped(text: str) -> str:
    r"""A text that stands for itself in an RE2 substitution, where `\1` is a group."""
    return text.replace("\\", "\\\\")
