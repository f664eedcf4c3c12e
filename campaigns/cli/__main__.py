"""Entry point of ``python -m campaigns.cli``, the same as the ``kampania`` script."""

from campaigns.cli import main

main()
