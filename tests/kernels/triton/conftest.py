"""Where kernels are tested: interpreted on the CPU, or compiled on a GPU with PROTQUANT_TEST_DEVICE=cuda."""

import os

import torch

if "PROTQUANT_TEST_DEVICE" in os.environ:
    # Before the tests are read: some keep tensors beside them.
    torch.set_default_device(os.environ["PROTQUANT_TEST_DEVICE"])
