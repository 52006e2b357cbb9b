"""The processes whose data are one data set."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import distributed

T = TypeVar("T")


class Ranks:
    """The ranks of a group; without one, this process alone.

    Args:
        process_group: As :func:`normkit.recalibrate` takes it.
    """

    def __init__(self, process_group: Any) -> None:
        is_initialized = distributed.is_available() and distributed.is_initialized()
        group = distributed.group.WORLD if process_group is None and is_initialized else process_group
        self._group = group if group and distributed.get_world_size(group) > 1 else None

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Do something on every rank, and return what each has got. If one fails, all do.

        Raises:
            RuntimeError: another rank failed.
        """
        if self._group is None:
            return [work()]
        result: T | None = None
        error: Exception | None = None
        try:
            result = work()
        except Exception as raised:  # the others wait for this rank
            error = raised
        found: list[Any] = [None] * distributed.get_world_size(self._group)
        distributed.all_gather_object(found, (None if error is None else repr(error), result), self._group)
        if error is not None:
            raise error
        for rank, (failure, _) in enumerate(found):
            if failure is not None:
                raise RuntimeError(
                    f"recalibrate stopped on all ranks, and changed nothing: rank {rank} raised {failure}"
                )
        return [value for _, value in found]
