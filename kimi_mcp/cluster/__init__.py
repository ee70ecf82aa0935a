"""Several replicas on one PostgreSQL: the engine that distributes their jobs, and a replica from its start to its end.

Imported only where ``KIMI_CLUSTER=on``, since it needs the extra ``cluster``.
"""
