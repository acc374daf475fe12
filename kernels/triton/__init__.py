"""Triton kernels for NVIDIA (sm_80, sm_90, sm_100) and AMD (gfx942); each has a twin in `protquant.kernels.reference`.

Needs the package triton, which torch brings along where it is built for a GPU.
"""
