"""Bounded memory: work is done some images at a time, and fewer when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from interpretkit.errors import check_count

# On a CPU larger passes are no faster; at this size integrated gradients of ResNet-18 take about 250 MB.
IMAGES_PER_FORWARD = {"cpu": 8}
IMAGES_PER_FORWARD_ELSEWHERE = 64

T = TypeVar("T")


class Chunks:
    """Divides work over ``count`` images into forward passes of at most so many images.

    Parameters
    ----------
    images_per_forward : int or None
        The most images in a pass; by default 8 on a CPU and 64 on other devices.
    device : torch.device
        Where the model is.

    Attributes
    ----------
    size : int
        The most images in a pass; halved whenever memory has run out.

    Raises
    ------
    InputError
        If `images_per_forward` is not a whole number above 0.
    """

    def __init__(self, images_per_forward: int | None, device: torch.device) -> None:
        if images_per_forward is None:
            images_per_forward = IMAGES_PER_FORWARD.get(device.type, IMAGES_PER_FORWARD_ELSEWHERE)
        check_count("images_per_forward", images_per_forward)
        self.size = images_per_forward

    def run(self, count: int, work: Callable[[torch.Tensor], T], *, each: int = 1) -> list[T]:
        """Call `work` on the numbers 0 … count − 1, in order, some at a time.

        Parameters
        ----------
        count : int
            The number of images.
        work : callable
            From image numbers ``(m,)`` to a result. It is called again with fewer numbers when it runs out of
            memory, so it may change nothing before it has succeeded.
        each : int
            How many images one takes the memory of, where `work` keeps more than the model does by itself.

        Returns
        -------
        list
            The result of each call.
        """
        results: list[T] = []
        start = 0
        while start < count:
            # Passes of like size, for a small one uses the processor badly.
            passes = -(-(count - start) // max(1, self.size // each))
            stop = start + -(-(count - start) // passes)
            failed: Exception | None = None
            try:
                results.append(work(torch.arange(start, stop)))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error) or stop - start == 1:
                    raise
                failed = error.with_traceback(None)
            # Only out of the handler are the frames let go that hold the memory of the failed pass.
            if failed is None:
                start = stop
            else:
                self.size = max(1, (stop - start) // 2)
                if torch.cuda.is_initialized():
                    torch.cuda.empty_cache()
        return results


def out_of_memory(error: Exception) -> bool:
    """Return whether an exception says that memory has run out."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    # The CPU's allocator has no exception of its own.
    return "can't allocate memory" in str(error) or "not enough memory" in str(error)
