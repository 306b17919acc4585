"""The feed-forward's gate in one pass over memory, arithmetic in float32."""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait


@triton.jit
def gate_kernel(
    both: tl.tensor,
    out: tl.tensor,
    size: tl.constexpr,
    block: tl.constexpr,
    gelu: tl.constexpr,
    early: tl.constexpr,
) -> None:
    """out[row, n] = act(both[row, n]) * both[row, size + n].

    both [rows, 2 * size] and out [rows, size] contiguous. One program per row and `block` columns. GELU in its tanh
    form: x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), since half of 1 + tanh(y) is sigmoid(2 y). With `early` it is
    launched as `present.starts_early` says.
    """
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    there = columns < size
    if early:
        gdc_wait()
    gates = tl.load(both + row * 2 * size + columns, mask=there, other=0.0).to(tl.float32)
    up = tl.load(both + row * 2 * size + size + columns, mask=there, other=0.0).to(tl.float32)
    turned = gates
    if gelu:
        turned = 1.5957691216057308 * gates * (1.0 + 0.044715 * gates * gates)
    acted = gates / (1.0 + tl.exp(-turned))
    tl.store(out + row * size + columns, (acted * up).to(out.dtype.element_ty), mask=there)
