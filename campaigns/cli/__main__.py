"""``python -m campaigns.cli``: the command without its script."""

from campaigns.cli import main

main()
