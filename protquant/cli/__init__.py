"""The `protquant` command: each subcommand calls the public function of the same arguments.

Every module here adds its commands to `app`, in the order in which `--help` lists them.
"""

from protquant.cli import folding, measuring, models, plugins
from protquant.cli.app import app, main

__all__ = ["app", "folding", "main", "measuring", "models", "plugins"]
