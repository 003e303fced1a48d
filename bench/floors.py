"""What this machine could do at best: matrix-product rates, copy bandwidth, and the shortest step they allow.

Run as `python -m bench.floors`; prints one JSON object. Only `measure` needs torch, and only in its own process.
"""

import argparse
import json
import time
from collections.abc import Callable

# Full fine-tuning with AdamW in fp32 reads weight, gradient and two moments and writes weight and two moments.
OPTIMIZER_BYTES_PER_PARAMETER = 28


def training_flops(layers: int, hidden: int, intermediate: int) -> float:
    """Count the FLOPs that full training of an encoder needs for a real token: its linear layers, forward and backward.

    Attention scores are left out (under 2 % at these lengths). MiniLM (6, 384, 1536): 63.7 million.
    """
    return 6.0 * layers * (4 * hidden * hidden + 2 * hidden * intermediate)


def lean_share(layers: int, hidden: int, intermediate: int) -> float:
    """Give the share of `training_flops` left when the last layer computes only the one position the head reads.

    That layer still needs keys and values everywhere; queries, output and feed-forward of the other positions
    are dead. Pooled positions themselves (one a row) are neglected.
    """
    dead = 2 * hidden * hidden + 2 * hidden * intermediate
    return 1 - dead / (layers * (4 * hidden * hidden + 2 * hidden * intermediate))


def step_floor(figures: dict, precision: str, tokens: float, parameters: int, flops_per_token: float) -> float:
    """Give the shortest step this machine allows, in seconds: useful FLOPs at its best rate plus optimizer traffic."""
    compute = tokens * flops_per_token / (figures["gflops"][precision] * 1e9)
    return compute + parameters * OPTIMIZER_BYTES_PER_PARAMETER / (figures["copy_gb_per_s"] * 1e9)


def shapes(hidden: int, intermediate: int) -> list[tuple[int, int, int]]:
    """List the products (rows, inputs, outputs) of the model at an unpadded and a padded batch, and a large square."""
    inner = [(hidden, hidden), (hidden, intermediate), (intermediate, hidden)]
    return [(rows, *pair) for rows in (512, 2048) for pair in inner] + [(2048, 2048, 2048)]


def measure(hidden: int, intermediate: int, threads: int) -> dict:
    """Time every path over every shape; return the best rates (GFLOP/s) and the copy bandwidth (GB/s, read + write).

    `gflops`: fp32 (the better of torch's default and oneDNN), bf16, and medium (fp32 storage, reduced products).
    `paths`: the best rate of each path and the rate at every shape.
    """
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    paths: dict[str, dict[str, float]] = {name: {} for name in ("fp32-default", "fp32-onednn", "bf16", "medium")}
    for rows, inputs, outputs in shapes(hidden, intermediate):
        x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        work = 2.0 * rows * inputs * outputs / 1e9
        for name, product in _products(x, w).items():
            torch.set_float32_matmul_precision("medium" if name == "medium" else "highest")
            paths[name][f"{rows}x{inputs}x{outputs}"] = work / _shortest(product)
    torch.set_float32_matmul_precision("highest")
    best = {name: max(rates.values()) for name, rates in paths.items()}
    fp32 = max(best["fp32-default"], best["fp32-onednn"])
    return {
        "gflops": {"fp32": fp32, "bf16": best["bf16"], "medium": max(fp32, best["medium"])},
        "copy_gb_per_s": _copy_bandwidth(),
        "threads": threads,
        "paths": {name: {"best": best[name], "by_shape": rates} for name, rates in paths.items()},
    }


def _products(x, w) -> dict[str, Callable[[], object]]:
    """Make the ways torch can multiply these two matrices."""
    import torch
    from torch.nn.functional import linear

    xb, wb = x.bfloat16(), w.bfloat16()
    return {
        "fp32-default": lambda: linear(x, w),
        "fp32-onednn": lambda: torch.ops.mkldnn._linear_pointwise(x, w, None, "none", [], ""),
        "bf16": lambda: linear(xb, wb),
        "medium": lambda: linear(x, w),
    }


def _copy_bandwidth() -> float:
    """Copy 256 MB, far past any cache, and count both the bytes read and the bytes written (GB/s)."""
    import torch

    source = torch.ones(64 * 1024 * 1024)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / 1e9 / _shortest(lambda: target.copy_(source))


def _shortest(act: Callable[[], object], budget: float = 0.2) -> float:
    """Time an action again and again for `budget` seconds, at least five times; return the shortest time."""
    act()
    times: list[float] = []
    end = time.perf_counter() + budget
    while len(times) < 5 or time.perf_counter() < end:
        begun = time.perf_counter()
        act()
        times.append(time.perf_counter() - begun)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.floors", description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--intermediate", type=int, default=1536)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    print(json.dumps(measure(options.hidden, options.intermediate, options.threads)))


if __name__ == "__main__":
    main()
