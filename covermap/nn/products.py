"""Products of matrices on processors, by the faster of two libraries that torch has for them.

torch multiplies float32 matrices by MKL, which leaves half of AVX-512 unused on AMD's processors. oneDNN, which torch
convolves with, uses all of it, but is asked for products only where torch has been told that bfloat16 would do. Without
AMX, which no processor of AMD has, oneDNN then multiplies in float32 all the same: twice as fast, as exact. That it
does is tried out once, not believed.

The setting is one of the process. A program that imports covermap keeps its own: only the command line, whose process
is ours, asks for it, by the environment variable COVERMAP_WIDE_PRODUCTS=1, which its workers inherit.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import torch

_EXACT = 1e-5
"""Largest error of a product beside float64, relative to the largest number: float32 makes 1e-6, bfloat16 4e-3."""
_SIZES = ((64, 64, 64), (197, 192, 768), (512, 768, 192))


@functools.cache
def use_wide_products() -> bool:
    """Have torch multiply by oneDNN from now on, if that is faster and in float32; gives whether it does so.

    Without COVERMAP_WIDE_PRODUCTS=1, where there is a graphics card, whose products the same setting would make less
    exact, on processors other than AMD's with AVX-512, and where a user has set something, all stays as it is.
    """
    if os.environ.get("COVERMAP_WIDE_PRODUCTS") != "1":
        return False
    if torch.cuda.is_available() or not _is_as_delivered() or not _mkl_is_narrow():
        return False
    torch.set_float32_matmul_precision("medium")
    if not is_exact():
        torch.set_float32_matmul_precision("highest")
        return False
    return True


def is_exact() -> bool:
    """Whether products of float32 matrices are right to the last digits of float32."""
    generator = torch.Generator().manual_seed(0)
    for rows, inner, columns in _SIZES:
        a, b = (torch.randn(size, generator=generator) for size in ((rows, inner), (columns, inner)))
        exact = a.double() @ b.double().T
        if (torch.nn.functional.linear(a, b).double() - exact).abs().max() > _EXACT * exact.abs().max():
            return False
    return True


def _is_as_delivered() -> bool:
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by torch's newer settings, of which the older know nothing
        return False


def _mkl_is_narrow() -> bool:
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return False
    told = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (told.read_text(errors="replace")[:2000] if told.is_file() else platform.processor())
