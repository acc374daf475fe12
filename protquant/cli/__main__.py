"""`python -m protquant.cli`, the same as `protquant`."""

from protquant.cli import main

main()
