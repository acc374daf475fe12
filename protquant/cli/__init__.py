"""The `protquant` command: each subcommand calls a public function, and has the options of that function.

Every module here adds its commands to `app`; `protquant.cli.app.PANELS` has the order in which `--help` lists them.
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
