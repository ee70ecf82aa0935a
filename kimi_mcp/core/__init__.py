"""Values and rules that every package shares: types, errors, settings, redaction, logging."""
