"""Without a GPU the kernels run in Triton's interpreter, on the CPU, which must be said before they are made."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
