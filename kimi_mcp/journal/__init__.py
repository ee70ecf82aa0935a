"""The journal: runs, conversations and steps, kept on disk as they grow, and shared by every server of a folder.

``journal.py`` is its face; ``statements.py`` what is asked of the tables in ``tables.py``; ``database.py`` the file and
its two threads; ``presence.py`` who is alive; ``survey.py`` a look from outside; ``telling.py`` records as JSON. I/O:
the data folder.
"""
