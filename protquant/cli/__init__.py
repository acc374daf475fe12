"""The `protquant` command: each subcommand is made of a public function and the options of that.

Every module here adds its commands to `app`; `protquant.cli.app.PANELS` is the order in which `--help` lists them.
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
    "ranges",
    "sensitivity",
]
