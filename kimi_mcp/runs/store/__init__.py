"""The store: runs, conversations and steps, kept as they grow, and shared by all servers of a folder or a database."""
