"""`python -m protquant`, the same as `protquant`."""

from protquant.start import main

main()
