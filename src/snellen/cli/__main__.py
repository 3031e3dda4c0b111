"""Run ``python -m snellen.cli``."""

from snellen.cli import main

main()
