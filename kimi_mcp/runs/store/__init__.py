"""The journal: runs, conversations and steps, kept on disk as they grow, and shared by every server of a folder.

``journal.py`` is its face; ``lives.py`` writes down runs as they live, ``statements.py`` asks all else of the tables in
``tables.py``; ``retention.py`` removes what is old; ``database.py`` is the file, ``hands.py`` its two threads;
``presence.py`` who is alive; ``survey.py`` a look from outside; ``telling.py`` records as JSON. I/O: the data folder.
"""
