"""What people did, and what it adds up to.

``hits`` answers pixels and links, ``spool`` keeps them, ``collect`` turns them into labelled
``events`` and ``rollups``; ``conversions`` credits leads; ``performance`` answers questions.
"""
