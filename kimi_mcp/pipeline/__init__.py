"""The one path of every call: resolve, decide, load, send, conclude. Does I/O."""
