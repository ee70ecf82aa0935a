"""Owns what counts as a key or a password file, by its name and by its first bytes. Pure, no I/O.

Such a file is refused even when it is named: a host's model must not be able to send it to a provider. Names are
judged as the most lenient file systems compare them: without regard to case, width or invisible characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

HEAD_BYTES: Final = 8192
"""How much of a file's beginning :func:`key_in` wants to see."""

_HARMLESS: Final = re.compile(r".*\.(?:example|sample|template|dist|pub)")
"""Names that are made to be shown; they win over everything below."""

_KEY_LIKE: Final = re.compile(
    r"""
      \.env | \.env[._~-].* | .*\.env | \.envrc
    | id_(?:rsa|dsa|ecdsa|ed25519|xmss)(?:[._-].*)?
    | .*\.(?:pem|key|p8|p12|pfx|pkcs12|pvk|ppk|jks|keystore|kdb|kdbx|agekey|ovpn|tfstate)
    | .*\.tfstate\..*
    | [._]netrc | \.npmrc | \.pypirc | \.pgpass | \.my\.cnf | \.mylogin\.cnf | \.htpasswd | \.dockercfg
    | \.git-credentials | \.vault-token | \.terraformrc | \.s3cfg | \.boto | \..*_history
    | \.?credentials(?:\.(?:json|toml|ya?ml|ini|cfg|csv|xml|txt|db|enc|bak))?
    | (?:client[_-]?secret|service[_-]?account|application_default_credentials|oauth_creds).*\.json
    | \.?secrets\.(?:json|toml|ya?ml|ini|cfg|env|txt)
    | kubeconfig | logins\.json | key[34]\.db
    """,
    re.VERBOSE,
)
"""Last names, in lower case."""

_KEY_FOLDERS: Final = frozenset({".ssh", ".gnupg", ".aws", ".azure", ".password-store", ".gcloud"})
"""Folders of which nothing is read."""

_KEY_PATHS: Final = (
    (".kube", "config"),
    (".docker", "config.json"),
    (".config", "gcloud"),
    (".config", "gh"),
    (".codex", "auth.json"),
    (".git", "config"),
    ("etc", "shadow"),
    ("etc", "gshadow"),
    ("run", "secrets"),
)
"""Names that are keys only below that folder; ``.git/config`` holds the tokens that CI checkouts use."""

_PEM_KEY: Final = re.compile(rb"^-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY", re.MULTILINE)
_OTHER_KEYS: Final = (b"PuTTY-User-Key-File-", b"AGE-SECRET-KEY-1", b"SSH PRIVATE KEY FILE")


def key_like(parts: Sequence[str]) -> bool:
    """Whether a path, given as its names from the outermost on, is a key or password file by its name."""
    names = [_plain(part) for part in parts]
    if not names or _HARMLESS.fullmatch(names[-1]):
        return False
    if _KEY_LIKE.fullmatch(names[-1]) or not _KEY_FOLDERS.isdisjoint(names):
        return True
    return any(pair in _KEY_PATHS for pair in pairwise(names))


def key_in(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (up to ``HEAD_BYTES``) is a private key.

    A file that only mentions such a header, as source code and documentation do, is none: it has to begin with it,
    or with another PEM block (a certificate, say) that a key follows. UTF-16 is looked through.
    """
    text = _narrow(head).lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith((b"-----BEGIN ", b"Bag Attributes")):
        return bool(_PEM_KEY.search(text))
    if text.startswith(b"# created: "):
        return b"AGE-SECRET-KEY-1" in text
    if text.startswith(b"{"):
        return b'"private_key"' in text and b'"service_account"' in text
    return text.startswith(_OTHER_KEYS)


def _narrow(head: bytes) -> bytes:
    """UTF-16 with a byte order mark as ASCII bytes; anything else unchanged."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            return head[2:].decode(encoding, "replace").encode("ascii", "replace")
    return head


def _plain(name: str) -> str:
    """A name as a lenient file system compares it; Windows drops dots and spaces at the end, and streams."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    return plain.split(":", 1)[0].rstrip(". ") or plain
