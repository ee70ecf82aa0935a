"""``skill.md`` and the routing by its triggers. Reads the package's own data."""
