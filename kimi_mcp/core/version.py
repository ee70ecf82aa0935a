"""The version of this package. Pure, no I/O."""

__version__ = "0.1.0"
"""A literal: asking importlib.metadata at start would cost every host a good ten milliseconds."""
