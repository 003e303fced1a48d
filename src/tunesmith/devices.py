"""Device, precision, threads and ranks: the only file that knows torch.distributed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from tunesmith.errors import ModelError, RecipeError, ResourceError, TunesmithError
from tunesmith.recipe import Machine

PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others before it gives up."""

CPU_BUDGET_TOKENS = 2048
GPU_BUDGET_TOKENS = 16384


@dataclass(frozen=True)
class Devices:
    """Where this process works, in which numbers, and which of how many it is.

    `compute` is the dtype of autocast (None: no autocast); `stored` that of weights and moments.
    """

    device: torch.device
    compute: torch.dtype | None
    stored: torch.dtype
    threads: int
    rank: int = 0
    world_size: int = 1
    micro_batch_tokens: int = CPU_BUDGET_TOKENS
    shares_weights: bool = False
    """Whether each rank keeps a part of every weight, gradient and moment alone (FSDP2), and not a whole copy."""

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    @property
    def precision(self) -> str:
        if self.compute is not None:
            return "bf16"
        return "fp64" if self.stored == torch.float64 else "fp32"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Mixed precision for training; a plain pass where none is asked for."""
        if self.compute is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.compute)

    def wrap(self, model: nn.Module, some_wait: bool = False) -> nn.Module | None:
        """The model behind DistributedDataParallel if there are several processes that each hold all of it; else None.
        `some_wait`: there are steps in which not all that moves gets a gradient."""
        if self.world_size == 1 or self.shares_weights:
            return None
        ids = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=some_wait
        )

    def share_out(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        """Leave this rank its part of the model, in place (FSDP2, `fully_shard`): a block is gathered when its turn
        comes and let go behind it; what is in no block stays gathered through a pass. All ranks must make equally many
        passes, forward and back: each is an exchange. Gradients come as the mean over ranks, as behind DDP.

        In mixed precision weights are gathered as they are computed with, and gradients added up as weights are stored.
        Autocast alone would cast whole weights, and keep those for the way back.

        Raises:
            ModelError: it has a weight of a single number, or weights of several types: FSDP2 does not part these.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
        types = {str(parameter.dtype).removeprefix("torch.") for parameter in model.parameters()}
        if scalars or len(types) > 1:
            why = f"{scalars[0]} is a single number" if scalars else f"weights of several types ({', '.join(types)})"
            raise ModelError(f"machine.sharding: full is not for this model: {why}", remedy="sharding: none")
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        mixed = MixedPrecisionPolicy(self.compute, self.compute and self.stored, cast_forward_inputs=False)
        with machine_errors_named():
            for module in (*blocks, model):
                fully_shard(module, mesh=mesh, mp_policy=mixed)

    def gradients_kept(self, entry: nn.Module | None, last: bool) -> contextlib.AbstractContextManager[object]:
        """Around each backward: gradients are exchanged in the last micro-batch of a step only; where weights are
        shared out, in each, since nobody has room for whole gradients."""
        if last or not isinstance(entry, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return entry.no_sync()

    def sum(self, *values: float) -> list[float]:
        """Sums over all ranks, in double precision."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        with machine_errors_named():
            dist.all_reduce(tensor)
        return [float(value) for value in tensor]

    def agree(self, value: int) -> int:
        """The largest of the ranks' values: one rank that was told to stop stops all at the same step."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor([value], device=self.device)
        with machine_errors_named():
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
        return int(tensor.item())

    def wait(self) -> None:
        if self.world_size > 1:
            with machine_errors_named():
                dist.barrier()


def is_part(tensor: torch.Tensor) -> bool:
    """Whether this rank holds a part of the tensor alone."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor. Of one that is shared out every rank must ask at once."""
    part: Any = tensor
    with machine_errors_named():
        return part.full_tensor() if is_part(tensor) else tensor


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor: parts, in the order of ranks, follow each other along the first dimension."""
    part: Any = tensor
    return part.to_local() if is_part(tensor) else tensor


def laid_out_like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A whole tensor where `other` lies; where that is shared out, this rank's part of it. Nothing is exchanged."""
    tensor = tensor.to(other.device)
    if not is_part(other):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    parts: Any = other
    parted = distribute_tensor(tensor, parts.device_mesh, parts.placements, src_data_rank=None)
    return torch.empty_like(other, dtype=tensor.dtype).copy_(parted)  # a part must not keep the whole in memory


def choose_devices(machine: Machine, precision: str) -> Devices:
    """Work out device, precision, threads and rank. Under torchrun the environment says which rank this is.

    Raises:
        RecipeError: a device was asked for that is not here.
    """
    rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = _device(machine.device)
    threads = _threads_to_use(world_size) if machine.threads == "auto" else machine.threads
    torch.set_num_threads(threads)
    if device.type == "cpu":
        keep_memory()
    budget = machine.micro_batch_tokens
    if budget == "auto":
        budget = CPU_BUDGET_TOKENS if device.type == "cpu" else GPU_BUDGET_TOKENS
    use_bf16 = precision == "bf16" or (precision == "auto" and computes_in_bf16(device))
    return Devices(
        device=device,
        compute=torch.bfloat16 if use_bf16 else None,
        stored=torch.float64 if precision == "fp64" else torch.float32,
        threads=threads,
        rank=rank,
        world_size=world_size,
        micro_batch_tokens=budget,
        shares_weights=machine.sharding == "full" and world_size > 1,
    )


def _threads_to_use(world_size: int) -> int:
    """The cores this process may use, shared among the processes of this machine; for a process alone fewer, if the
    environment says so in the field's usual word. (Torch's launcher sets that word itself, to 1.)"""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if world_size > 1:
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else cores


def keep_memory() -> None:
    """Let the C library keep what a step frees for the next step (E0: no number changes).

    By default it gives blocks above 128 kB back to the system at once, and every step pays for fresh, zeroed pages
    again. The threshold of that cannot be set above 32 MB, which the gradient of an embedding table exceeds, so the
    giving back is turned off as a whole. glibc on Linux only; elsewhere nothing happens.
    """
    trim_threshold, most_mapped_blocks = -1, -4  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_MAX
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(most_mapped_blocks, 0)
        mallopt(trim_threshold, 2**31 - 1)


def give_back_memory() -> None:
    """Give the system back what `keep_memory` has kept, where a process holds less from now on. glibc on Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _device(asked: str) -> torch.device:
    if asked == "auto":
        asked = "cuda" if torch.cuda.is_available() else "cpu"
    if asked == "cuda":
        if not torch.cuda.is_available():
            raise RecipeError("machine.device: cuda asked for, none found", remedy="use auto or cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if asked == "mps" and not torch.backends.mps.is_available():
        raise RecipeError("machine.device: mps asked for, none found", remedy="use auto or cpu")
    return torch.device(asked)


def memory_bytes(device: torch.device) -> int | None:
    """All memory of the device, for weights and what training adds to them; None where it cannot be known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies faster in bfloat16 than in fp32.

    On a CPU without instructions for it it would be many times slower. With those of AVX512 alone AMD's multiply two to
    four times as fast, Intel's half as fast (measured on one of each): these gain by tiles (AMX) only, which a virtual
    machine may not pass on. By what the CPU says of itself and not by a trial, so that all ranks choose alike.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        by_vectors = capabilities.get("avx512_bf16") and is_by_amd()
        return bool(by_vectors or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return False


def is_by_amd() -> bool:
    """Whether the CPU says that AMD made it."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


@contextlib.contextmanager
def joined(devices: Devices) -> Iterator[None]:
    """Join the other processes for the length of the block; inside another such block they are joined already. Never
    twice in a row: the second time a process would find the addresses of the first, and call where nobody listens."""
    if devices.world_size == 1 or dist.is_initialized():
        yield
        return
    backend = "nccl" if devices.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def seed_everything(seed: int, step: int, rank: int) -> None:
    """Seed every generator from (seed, step, rank). Done before each step, so that no generator state is ever saved."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.manual_seed(mixed)
    random.seed(mixed)
    np.random.seed(mixed % 2**32)


class LostProcess(TunesmithError):
    """A process that this one works with is gone; why, it has told itself."""


@contextlib.contextmanager
def machine_errors_named() -> Iterator[None]:
    """Turn a shortage of memory, or the loss of another process, into an error that says so and what to do."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _out_of_memory(str(error)) from error
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise LostProcess("another process of this run has ended, so this one ends too") from error
        if "DefaultCPUAllocator" not in str(error) and "out of memory" not in str(error):
            raise
        raise _out_of_memory(str(error).splitlines()[0]) from error


def _out_of_memory(reason: str) -> ResourceError:
    return ResourceError(
        f"out of memory ({reason})",
        remedy="lower machine.micro_batch_tokens (the result stays the same) or train.max_length; then resume",
    )
