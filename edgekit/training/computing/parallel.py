"""Several processes that train one model together: ``torchrun --nproc-per-node 2 -m edgekit compress …``.

Every process draws the same global batch and computes its own part of it. The answers are gathered, so that
the loss is that of the whole batch, whatever it relates with whatever; PyTorch's DistributedDataParallel
adds up the gradients. So all processes see the same loss and take the same step. The first process alone
reads and writes the run folder, tells progress, exports and measures.

Batch norm sees a process's own part (its statistics are those of smaller batches), and its running statistics
are the first process's; a model without batch norm and dropout trains as in one process, up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from edgekit.errors import StageError
from edgekit.processes import count_here, rank_here

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.training.data.batches import Batch

__all__ = ["Group", "current", "joined"]

T = TypeVar("T")
_LEAST = 2  # samples a process: batch norm has no statistics of a single one
# The others wait while the first one exports and measures. One that is gone is noticed by its connection.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Group:
    """The processes that train together; one alone unless ``joined`` found more."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Raise StageError if a batch is too small to be shared."""
        if self.size > 1 and batch_size < _LEAST * self.size:
            raise StageError(
                "the batches are too small for so many processes",
                where="training.batch_size",
                got=f"{batch_size} samples for {self.size} processes",
                expected=f"at least {_LEAST} for each",
                next="raise batch_size, or start fewer processes",
            )

    def part(self, batch: Batch) -> Batch:
        """The part of a batch that this process computes."""
        if self.size == 1:
            return batch
        start, end = self._span(len(batch))
        return batch.part(start, end)

    def gather(self, part: Tensor, count: int) -> Tensor:
        """(count, …) from every process's part, in order. Gradients flow into the own part alone."""
        if self.size == 1:
            return part
        import torch
        from torch import distributed

        most = -(-count // self.size)
        own = part.detach()
        padded = own.new_zeros((most, *own.shape[1:]))
        padded[: len(own)] = own
        received = [torch.empty_like(padded) for _ in range(self.size)]
        with _told():
            distributed.all_gather(received, padded)
        parts: list[Tensor] = []
        for rank, values in enumerate(received):
            start, end = self._span(count, rank)
            parts.append(part if rank == self.rank else values[: end - start])
        whole = torch.cat(parts)
        if part.requires_grad:
            # DistributedDataParallel divides by the number of processes, as it is meant for mean losses of
            # parts. Here the loss is the whole batch's, and its gradient the sum over the parts.
            part.register_hook(lambda gradient: gradient * self.size)
        return whole

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model as it is to be called in training. Raises StageError if the processes' models differ."""
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        from edgekit.execution import outputs_of, select_outputs

        with _told("every process must make the same model: is the workload the same everywhere?"):
            # Auxiliary heads and the like, without a gradient in some step, are found in every step.
            wrapped = DistributedDataParallel(model, find_unused_parameters=True)
            select_outputs(wrapped, outputs_of(model))
            return wrapped

    def sync(self, model: nn.Module) -> None:
        """All weights and buffers as the first process has them."""
        if self.size == 1:
            return
        from torch import Tensor, distributed

        with _told():
            for _, value in sorted(model.state_dict().items()):
                if isinstance(value, Tensor):
                    plain = value.detach().contiguous()
                    distributed.broadcast(plain, 0)
                    value.copy_(plain)

    def first(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in the first process; the others get a copy. An error there ends all."""
        if self.size == 1:
            return work()
        from torch import distributed

        answer: list[Any] = [None, ""]
        if self.is_first:
            try:
                answer[0] = work()
            except Exception as error:
                answer[1] = f"{type(error).__name__}: {error}"
                with contextlib.suppress(Exception):  # the error itself counts, whoever still hears of it
                    distributed.broadcast_object_list(answer, 0)
                raise
        with _told():
            distributed.broadcast_object_list(answer, 0)
        if answer[1]:
            raise StageError("the first process failed", got=str(answer[1]))
        result: T = answer[0]
        return result

    def _span(self, count: int, rank: int | None = None) -> tuple[int, int]:
        rank = self.rank if rank is None else rank
        most = -(-count // self.size)
        return min(rank * most, count), min((rank + 1) * most, count)


_CURRENT: ContextVar[Group] = ContextVar("group", default=Group())  # noqa: B039  # frozen


def current() -> Group:
    """The group that this process trains in."""
    return _CURRENT.get()


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Meet the other processes that ``torchrun`` started; without it, a group of one.

    A process group that is there already is used, and left as it is. Raises StageError if the others can't be
    reached.
    """
    if count_here() <= 1:
        yield Group()
        return
    import torch
    from torch import distributed

    own = not distributed.is_initialized()
    if own:
        with _told("is MASTER_ADDR right, and are all processes started?"):
            # Without a GPU the second half is never used, and isn't there in builds for CPUs alone.
            with_gpus = torch.cuda.is_available() and distributed.is_nccl_available()
            backend = "cpu:gloo,cuda:nccl" if with_gpus else "gloo"
            distributed.init_process_group(backend, timeout=_PATIENCE)
    group = Group(distributed.get_rank(), distributed.get_world_size())
    token = _CURRENT.set(group)
    try:
        yield group
    finally:
        _CURRENT.reset(token)
        if own:
            with contextlib.suppress(RuntimeError):  # the others may be gone
                distributed.destroy_process_group()


@contextlib.contextmanager
def _told(next: str = "") -> Iterator[None]:
    """A broken connection in words: gloo's own say nothing to a user."""
    try:
        yield
    except RuntimeError as error:
        raise StageError(
            "the processes that train together lost each other",
            where=f"process {rank_here()}",
            got=str(error).split("\n", 1)[0],
            next=next or "look at the messages of the others; the same command goes on where this ended",
        ) from error
