"""`python -m workers` is `veriframe`."""

from .cli import main

main()
