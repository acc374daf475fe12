"""The `protquant` command: each subcommand calls the public function of the same arguments.

Every module here adds its commands to `app`, in the order in which `--help` lists them.
"""

from protquant.cli import (
    auto,
    bench,
    bench_full_size,
    cache,
    folding,
    formats,
    kernels,
    measuring,
    methods,
    models,
    planning,
    plugins,
    quantizing,
    ranges,
    sensitivity,
)
from protquant.cli.app import app, main

__all__ = [
    "app",
    "auto",
    "bench",
    "bench_full_size",
    "cache",
    "folding",
    "formats",
    "kernels",
    "main",
    "measuring",
    "methods",
    "models",
    "planning",
    "plugins",
    "quantizing",
    "ranges",
    "sensitivity",
]
