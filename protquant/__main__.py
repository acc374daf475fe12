"""`python -m protquant`, the same as `protquant`."""

from protquant.cli import main

main()
