"""Run ``python -m snellen``, which ``accelerate launch -m snellen tune …`` starts in every process."""

from snellen.cli import main

if __name__ == "__main__":
    main()
