"""A key that looks real, and the encodings in which a secret may leak. Pure."""

from __future__ import annotations

import base64

KEY = "sk-Vt4Rw8Yq2Lk6Nz0Xb5Gd9Hf3Jm7Pc1Sa"
"""Looks like a provider's key, but is none."""


def encoded_forms(secret: str) -> list[str]:
    """The encodings in which a secret may leak, itself included."""
    raw = secret.encode()
    return [
        secret,
        raw.hex(),
        raw.hex().upper(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
        "".join(f"%{byte:02X}" for byte in raw),
    ]
