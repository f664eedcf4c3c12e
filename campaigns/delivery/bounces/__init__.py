"""What comes back: bounces and complaints.

Ways in (``listener``, ``mailbox``, ``webhooks``, the ``bounce`` command) only keep what came, durably. One
tick reads it (``reading``: ``mime`` → ``dsn``, ``arf``, ``words`` → ``verdicts``) and records what it
means for a send and its recipient (``recording``). Whose mail it is about is believed only on a token of ours.
"""
