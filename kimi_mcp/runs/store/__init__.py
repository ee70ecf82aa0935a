"""The store: runs, conversations and steps, kept on disk as they grow, and shared by every server of a data folder."""
