"""Work handed to whichever of several makers is free."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from ..errors import AsynDMError

Maker = TypeVar("Maker")
Job = TypeVar("Job")
Made = TypeVar("Made")


class Gone(AsynDMError):
    """A maker does not answer, and is not asked again."""


def spread(
    jobs: Iterable[Job],
    makers: Sequence[Maker],
    make: Callable[[Maker, Job], Made],
    gone: Callable[[Maker, Gone], None],
) -> Iterator[tuple[Job, Made]]:
    """Every job with what ``make(maker, job)`` gave for it, in the order in which they end.

    ``gone`` is told of each maker that raises :class:`Gone`; another one does its job. Raises the
    last :class:`Gone` if no maker is left, and whatever else ``make`` raises. Jobs are drawn when
    a maker is free for them.
    """
    if len(makers) == 1:  # in the caller's own thread
        for job in jobs:
            yield job, make(makers[0], job)
        return
    coming, left, free = iter(jobs), deque[Job](), deque(makers)
    ended: queue.SimpleQueue[tuple[Maker, Job, Made | None, BaseException | None]] = queue.SimpleQueue()
    busy = 0

    def work(maker: Maker, job: Job) -> None:
        try:
            ended.put((maker, job, make(maker, job), None))
        except BaseException as error:  # it is raised where the jobs are handed out
            ended.put((maker, job, None, error))

    while True:
        while free:
            try:
                job = left.popleft() if left else next(coming)
            except StopIteration:
                break
            # A daemon: after Ctrl-C nobody waits for a picture.
            threading.Thread(target=work, args=(free.popleft(), job), daemon=True).start()
            busy += 1
        if not busy:
            return
        maker, job, made, error = ended.get()
        busy -= 1
        if error is None:
            free.append(maker)
            yield job, made  # type: ignore[misc]
        elif isinstance(error, Gone):
            if not busy and not free:
                raise error
            gone(maker, error)
            left.append(job)
        else:
            raise error
