"""`python -m emberline.cli` is the `emberline` command."""

from emberline.cli import main

main()
