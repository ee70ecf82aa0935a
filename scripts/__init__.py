"""What needs a checkout: the generators of documents and manifests. Not part of the wheel."""
