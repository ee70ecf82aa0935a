"""Recognises files of keys or passwords by name and content. Reads the table of hosts, no other file.

Such a file is refused even when it is named: a host's model must not be able to send it to a provider. Names are
compared like the most lenient file systems do: regardless of case, width and invisible characters, and without the
marks of a copy (``#.env#``, ``.pgpass.bak``).
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 8192
"""Bytes by which :func:`holds_key` judges what a file is."""

SCANNED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a text file that are searched for a private key: more than any model's context holds."""

_HARMLESS: Final = re.compile(r".*\.(?:example|sample|template|dist|pub)")
"""Names of files meant to be shown; they override everything below."""

_COPY: Final = re.compile(
    r"\#(?P<emacs>.+)\#"
    r"|\.\#(?P<lock>.+)"
    r"|(?P<copy>.+?)(?:~|\.(?:bak|backup|old|orig|save|saved|copy|tmp|sw[a-p]|before-kimi-mcp(?:-\d+)?|\d{1,8}))"
)
"""The name of a copy; the group is the name of the original."""

_KEY_LIKE: Final = re.compile(
    r"""
      \.env | \.env[._~-].* | .*\.env | \.envrc | \.flaskenv | \.dev\.vars(?:\..+)? | \.renviron
    | id_(?:rsa|dsa|ecdsa|ed25519|xmss)(?:[._-].*)?
    | .*\.(?:pem|key|p8|p12|pfx|pkcs12|pvk|ppk|jks|keystore|kdb|kdbx|agekey|ovpn|tfstate)
    | .*\.tfstate\..*
    | [._]netrc | \.npmrc | \.pypirc | \.pgpass | \.my\.cnf | \.mylogin\.cnf | \.htpasswd | \.dockercfg
    | \.git-credentials | \.vault-token | \.terraformrc | \.s3cfg | \.boto | \..*_history
    | \.?vault[_-]?pass(?:word)?(?:\.txt)? | \.databrickscfg | \.rediscli_auth
    | \.?credentials(?:\.(?:json|toml|ya?ml|ini|cfg|csv|xml|txt|db|enc))? | credentials\.tfrc\.json
    | (?:client[_-]?secret|service[_-]?account|application_default_credentials|oauth_creds).*\.json
    | \.?(?:secrets?|(?:access|auth|api|refresh)?[_-]?tokens?|passwords?|api[_-]?keys?)
      \.(?:jsonc?|toml|ya?ml|ini|cfg|conf|csv|tsv|xml|txt|env|properties|enc)
    | \.?auth\.json | (?:rootkey|.*accesskeys?|.*credentials)\.csv | local\.settings\.json
    | \.?mcp(?:[_-](?:config|settings))?\.jsonc?
    | kubeconfig | logins\.json | key[34]\.db
    """,
    re.VERBOSE,
)
"""Last names, in lower case. Hosts keep tool servers and their keys in some ``mcp.json``."""

_KEY_FOLDERS: Final = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".password-store", ".gcloud"})
"""Folders from which nothing is read."""

_KEY_PATH: Final = re.compile(
    r"""
      \.kube/config | \.docker/config\.json | \.config/(?:gcloud|gh) | \.git/config | \.gradle/gradle\.properties
    | \.m2/settings\.xml | etc/(?:shadow|gshadow) | run/secrets
    """,
    re.VERBOSE,
)
"""Names that are keys only in that folder; ``.git/config`` holds the tokens of CI checkouts."""

_PEM_KEY: Final = re.compile(rb"^-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY", re.MULTILINE)
_OTHER_KEYS: Final = (b"PuTTY-User-Key-File-", b"AGE-SECRET-KEY-1", b"SSH PRIVATE KEY FILE")
_KEY_BLOCK: Final = re.compile(
    rb"""
      -----BEGIN\ [A-Z0-9\ ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----
      # Proc-Type, Version and the like
      (?:(?:\\[nr]|[\s"'+,>|\#*;\\]){0,60}[A-Z][A-Za-z-]{2,20}:\ [^\r\n\\]{0,120}){0,4}
      (?:\\[nr]|[\s"'+,>|\#*;\\]){1,60}
      [A-Za-z0-9+/=]{40}
    | AGE-SECRET-KEY-1[0-9A-Z]{40}
    """,
    re.VERBOSE,
)
"""A private key with its content, anywhere in a text, quoted or indented. A header alone, as in code and documentation,
or one whose content is left out does not count."""


def key_like(parts: Sequence[str]) -> bool:
    """Whether a path, given as its names from the outermost on, is a key or password file by its name."""
    if not parts:
        return False
    *folders, last = (_plain(part) for part in parts)
    originals = _originals(last)
    if any(_HARMLESS.fullmatch(name) for name in originals):
        return False
    if not _KEY_FOLDERS.isdisjoint((*folders, *originals)) or any(map(_KEY_LIKE.fullmatch, originals)):
        return True
    paths = [(*folders, name) for name in originals]
    return any(
        any(map(_KEY_PATH.fullmatch, map("/".join, pairwise(names))))
        or any(names[-len(place) :] == place for place in _host_files())
        for names in paths
    )


def holds_key(head: bytes, read: Callable[[int], bytes]) -> bool:
    """Whether a file is or holds a private key. UTF-16 is understood.

    ``head``: its first ``HEAD_BYTES``; ``read`` returns so many bytes of its beginning. A header alone is a key where
    a file begins with it, or with another PEM block (a certificate). Source code mentions such headers: elsewhere in
    a text, which is searched up to ``SCANNED_BYTES``, its content has to follow. Other files are judged by the head.
    """
    text = _narrow(head).lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"-----BEGIN ", b"Bag Attributes")):
        begins = bool(_PEM_KEY.search(text))
    elif text.startswith(b"# created: "):
        begins = b"AGE-SECRET-KEY-1" in text
    elif text.startswith(b"{"):
        begins = b'"private_key"' in text and b'"service_account"' in text
    else:
        begins = text.startswith(_OTHER_KEYS)
    if begins or b"\0" in text:
        return begins
    whole = _narrow(read(SCANNED_BYTES))
    # Looked for first because that is fast: a long search by the expression would hold up every other thread.
    return any(sign in whole for sign in (b"PRIVATE KEY", b"AGE-SECRET-KEY-1")) and bool(_KEY_BLOCK.search(whole))


@cache
def _host_files() -> frozenset[tuple[str, ...]]:
    """Paths of hosts' own settings, which hold keys, relative to home."""
    table = Path(__file__).parents[1] / "catalogue" / "hosts.toml"
    rows = tomllib.loads(table.read_text("utf-8"))["hosts"]
    places = [place for row in rows for system in row["places"].values() for place in system]
    return frozenset(tuple(map(_plain, place.split("/")[1:])) for place in places)


def _originals(name: str) -> list[str]:
    """The name, and the names of which it is a copy."""
    names = [name]
    while found := _COPY.fullmatch(names[-1]):
        names.append(next(group for group in found.groups() if group))
    return names


_UTF16: Final = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


def _narrow(head: bytes) -> bytes:
    """UTF-16 with a byte order mark as ASCII bytes; anything else unchanged."""
    if encoding := _UTF16.get(head[:2]):
        return head[2:].decode(encoding, "replace").encode("ascii", "replace")
    return head


def _plain(name: str) -> str:
    """A name as a lenient file system compares it; Windows drops final dots and spaces, and streams."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    return plain.split(":", 1)[0].rstrip(". ") or plain
