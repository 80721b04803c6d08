"""Topics and groups, as coroutines."""

from __future__ import annotations

from .. import _admin
from ._bridge import Handle, Threads, in_thread


class Admin(Handle[_admin.Admin]):
    """Log.admin: what pylog.Admin has, each method a coroutine."""

    def __init__(self, admin: _admin.Admin, threads: Threads) -> None:
        self._sync, self._threads = admin, threads

    create_topic = in_thread(_admin.Admin.create_topic)
    delete_topics = in_thread(_admin.Admin.delete_topics)
    list_topics = in_thread(_admin.Admin.list_topics)
    describe_topics = in_thread(_admin.Admin.describe_topics)
    create_partitions = in_thread(_admin.Admin.create_partitions)
    alter_configs = in_thread(_admin.Admin.alter_configs)
    delete_records = in_thread(_admin.Admin.delete_records)
    list_groups = in_thread(_admin.Admin.list_groups)
    describe_groups = in_thread(_admin.Admin.describe_groups)
    reset_group_offsets = in_thread(_admin.Admin.reset_group_offsets)
    delete_groups = in_thread(_admin.Admin.delete_groups)

    async def close(self) -> None:
        """Nothing: it is the log's."""
