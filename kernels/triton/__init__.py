"""Triton kernels for NVIDIA (sm_80, sm_90, sm_100) and AMD (gfx942); `protquant.kernels.reference` defines each.

They need the package triton, which torch installs with its builds for GPUs.
"""
